"""What `make mutants` says in the end: a table, what survived, and whether that is enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.mutants import main

KILLED, SURVIVED, UNTESTED, TIMEOUT, TO_DO = 1, 0, 33, 36, None


def results(folder: Path, **modules: Sequence[int | None]) -> str:
    for name, codes in modules.items():
        file = folder / "broker" / f"{name.replace('__', '/')}.py.meta"
        file.parent.mkdir(parents=True, exist_ok=True)
        named = {f"broker.{name}.x_f__mutmut_{n}": code for n, code in enumerate(codes, 1)}
        file.write_text(json.dumps({"exit_code_by_key": named}))
    return str(folder)


def test_a_table_by_package_and_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = results(
        tmp_path,
        access__decide=[KILLED] * 9 + [SURVIVED],
        access__hours=[KILLED] * 8 + [TIMEOUT] * 2,
        audit__chain=[KILLED] * 3,
        audit__nothing=[],
    )
    assert main([folder]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "| Module | Mutants | Killed | |",
        "|---|---|---|---|",
        "| **access** | 20 | 19 | 95.0% |",
        "| `access/decide` | 10 | 9 | 90.0% |",
        "| `access/hours` | 10 | 10 | 100.0% |",
        "| **audit** | 3 | 3 | 100.0% |",
        "| `audit/chain` | 3 | 3 | 100.0% |",
    ]
    assert told.err == "survived: broker.access__decide.x_f__mutmut_10\n"


@pytest.mark.parametrize(
    "codes",
    [
        [KILLED] * 84 + [SURVIVED] * 16,
        [KILLED] * 84 + [UNTESTED] * 16,
        [KILLED] * 99 + [TO_DO],
    ],
    ids=["survived", "no test", "not tried"],
)
def test_what_is_not_enough(tmp_path: Path, codes: Sequence[int | None]) -> None:
    """Of one package, however good the others are."""
    assert main([results(tmp_path, access__decide=[KILLED] * 900, audit__chain=codes)]) == 1


def test_85_in_100_are_enough_and_no_result_is_none(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([results(tmp_path, audit__chain=[KILLED] * 85 + [SURVIVED] * 15)]) == 0


def test_an_exit_code_of_a_newer_mutmut_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="77"):
        main([results(tmp_path, audit__chain=[77])])
