"""`make demo` is `broker dev --tour`: it walks the whole path, and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_make_demo_runs_the_tour() -> None:
    # Without MAKEFLAGS: under `make check` it would say which folder it enters and leaves.
    environment = {"PATH": os.environ["PATH"]}
    asked = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.splitlines()[-1] == ".venv/bin/broker dev --tour"


@pytest.mark.timeout(400)
def test_the_tour_ends_well(tmp_path: Path) -> None:
    """It waits for one-time codes of its own now and then, as people do."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "broker.entry", "dev", "--tour"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "That was the whole path, on real HTTP." in done.stdout
