"""The benchmarks start, explain themselves, and name the ratios that others compare.

They are not run here: a test must not depend on how busy the machine is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The public contract: a name that is dropped breaks whoever compares.
RATIOS = {
    "issuance": ["vs_floor_a_c32", "vs_floor_b_c32", "p99_vs_floor_a_c32", "cpu_vs_boto3"],
    "audit": [
        "append_vs_row_lock",
        "append_vs_unchained",
        "lone_p50_vs_unchained",
        "verify_records_per_s",
    ],
    "ci": ["rs256_vs_raw", "es256_vs_raw", "exchange_vs_issuance"],
    "cli": ["cached_vs_python", "uncached_vs_python", "cached_vs_aws_cli"],
}
SCRIPTS = sorted(path.stem for path in (ROOT / "bench").glob("*.py"))


def test_every_benchmark_of_the_contract_is_there() -> None:
    assert set(SCRIPTS) >= set(RATIOS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_starts_and_says_how_to_be_quick(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


@pytest.mark.parametrize("name", RATIOS)
def test_it_names_its_ratios(name: str) -> None:
    source = (ROOT / "bench" / f"{name}.py").read_text("utf-8")
    assert [ratio for ratio in RATIOS[name] if ratio not in source] == []
    assert f'"name": "{name}"' in source
