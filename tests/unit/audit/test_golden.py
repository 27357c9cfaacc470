"""The golden files verify, or are found broken where they are, by both verifiers, for ever."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.audit.note import VerifierKey
from broker.audit.receipt import Receipt
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
KEY = next(case["key"] for case in CASES if "receipt-7.json" in case["receipts"])
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


def _mutated(text: str, random: Random) -> str:
    """One character changed, dropped, doubled or swapped for its neighbour; or a line's label."""
    place = random.randrange(len(text))
    one = text[place]
    return random.choice(
        [
            text[:place] + random.choice('0aZ+/= ":{}\\n—') + text[place + 1 :],
            text[:place] + text[place + 1 :],
            text[:place] + one + text[place:],
            text[:place] + text[place + 1 : place + 2] + one + text[place + 2 :],
            text.replace(random.choice(["origin ", "from ", "until ", "key ", "\\n"]), one, 1),
        ]
    )


def _good_by_the_first(value: object) -> bool:
    try:
        Receipt.parse(value).verify([VerifierKey.parse(KEY)])
    except ValueError:
        return False
    return True


def _good_by_the_second(value: object) -> bool:
    try:
        SECOND["open_receipt"](value, [SECOND["parse_key"](KEY)])
    except (ValueError, TypeError, AttributeError, KeyError):  # what its command refuses by
        return False
    return True


@pytest.mark.parametrize("count", [15, pytest.param(4000, marks=pytest.mark.long)])
def test_both_verifiers_judge_changed_receipts_alike(count: int) -> None:
    random = Random(count)
    texts = [(FOLDER / name).read_text() for name in ("delegated-7.json", "receipt-7.json")]
    assert all(_good_by_the_first(json.loads(text)) for text in texts)
    judged = 0
    while judged < count:
        text = _mutated(random.choice(texts), random)
        try:
            value = json.loads(text)
        except ValueError:
            continue
        judged += 1
        assert _good_by_the_first(value) == _good_by_the_second(value), text


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
