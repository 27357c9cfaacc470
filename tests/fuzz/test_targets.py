"""Damaged input of every kind, against everything that reads the outside's bytes.

Hypothesis in the suite; with --long also atheris, guided by coverage, ten minutes a target
(`BROKER_FUZZ_SECONDS`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutated import mutated
from tests.fuzz.targets import SEEDS, TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_input_is_refused_or_read(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(st.one_of(mutated(SEEDS[name]), st.binary(max_size=200))))


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    seconds = os.environ.get("BROKER_FUZZ_SECONDS", "600")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.coverage_guided", name, str(corpus)),
            *(f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048"),
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
