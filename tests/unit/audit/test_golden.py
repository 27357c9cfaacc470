"""The golden files verify, or are found broken where they are, by both verifiers, for ever."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.cli.main import main

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "golden" / "audit"
TOOL = ROOT / "tools" / "verify_log.py"
SECOND = runpy.run_path(str(TOOL))
CASES = [
    case
    for name in ("cases.json", "cases-delegates.json")
    for case in json.loads((FOLDER / name).read_text())
]
EXIT_CODES = {"internally consistent": 0, "authentic": 0}


def words(case: dict[str, Any]) -> list[str]:
    options = ["--key", case["key"]] if case["key"] else []
    for option in ("checkpoint", "receipt"):
        for name in case[f"{option}s"]:
            options += [f"--{option}", str(FOLDER / name)]
    for witness in case.get("witnesses", ()):
        options += ["--witness", witness]
    return [str(FOLDER / case["source"]), *options]


def name_of(case: dict[str, Any]) -> str:
    witnesses = [vkey.partition("+")[0] for vkey in case.get("witnesses", ())]
    words = [case["source"], case["says"], *case["checkpoints"], *case["receipts"], *witnesses]
    return "-".join(words)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_both_verifiers_agree(
    case: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = main(["audit", "verify", *words(case)], {})
    shown = capsys.readouterr()
    # In this process: starting Python a hundred times is most of what the files cost.
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words(case)])
    second_code = SECOND["main"]()
    second = capsys.readouterr()
    expected = EXIT_CODES.get(case["says"], 1)
    assert (code, second_code) == (expected, expected), (shown, second)
    said = shown.out + shown.err.removeprefix("broker: ")
    assert said.startswith(f"{case['says']}:"), said
    assert second.out.startswith(f"{case['says']}:"), second.out


def test_the_second_verifier_stands_alone() -> None:
    case = next(case for case in CASES if case["receipts"] and case["says"] == "authentic")
    tool = [sys.executable, "-I", str(TOOL), *words(case)]
    alone = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout[:10]) == (0, "authentic:"), alone


def test_the_second_verifier_knows_nothing_of_the_broker() -> None:
    source = TOOL.read_text()
    imported = [
        line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))
    ]
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
