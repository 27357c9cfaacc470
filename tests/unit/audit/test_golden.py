"""The golden files verify, or are found broken where they are, by both verifiers, for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.cli.main import main

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "golden" / "audit"
CASES = json.loads((FOLDER / "cases.json").read_text())
EXIT_CODES = {"internally consistent": 0, "authentic": 0}


def words(case: dict[str, Any]) -> list[str]:
    options = ["--key", case["key"]] if case["key"] else []
    for option in ("checkpoint", "receipt"):
        for name in case[f"{option}s"]:
            options += [f"--{option}", str(FOLDER / name)]
    return [str(FOLDER / case["source"]), *options]


def name_of(case: dict[str, Any]) -> str:
    return "-".join([case["source"], case["says"], *case["checkpoints"], *case["receipts"]])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_both_verifiers_agree(case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["audit", "verify", *words(case)], {})
    shown = capsys.readouterr()
    tool = [sys.executable, "-I", str(ROOT / "tools" / "verify_log.py"), *words(case)]
    second = subprocess.run(tool, capture_output=True, text=True, check=False)
    expected = EXIT_CODES.get(case["says"], 1)
    assert (code, second.returncode) == (expected, expected), (shown, second)
    said = shown.out + shown.err.removeprefix("broker: ")
    assert said.startswith(f"{case['says']}:"), said
    assert second.stdout.startswith(f"{case['says']}:"), second.stdout


def test_the_second_verifier_knows_nothing_of_the_broker() -> None:
    source = (ROOT / "tools" / "verify_log.py").read_text()
    imported = [
        line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))
    ]
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
