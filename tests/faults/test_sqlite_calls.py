"""SQLite with each system call of its write path gone wrong: EIO, ENOSPC, torn, or the last one."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.issuance.journal import State
from tests.conftest import roomy_memory
from tests.faults.counts import record
from tests.faults.invariants import Seen, issuances_agree, mutators_are_on_record
from tests.faults.prefork import ROOT
from tests.faults.sqlite_process import Case, Told
from tests.missing import missing
from tests.store.journal_scene import NEVER, intent, log, outcome

# Of each kind, in the default suite.
SAMPLE = 8
SOURCE = Path(__file__).with_name("fault.c")
KINDS: dict[str, dict[str, Any]] = {
    "EIO": {"mode": "fail", "errnum": errno.EIO},
    "ENOSPC": {"mode": "fail", "errnum": errno.ENOSPC},
    "ENOSPC until there is room": {"mode": "fail", "errnum": errno.ENOSPC, "stays": True},
    "SIGKILL before": {"mode": "kill before"},
    "SIGKILL after": {"mode": "kill after"},
    "SIGKILL in the middle of a write": {"mode": "tear"},
}


class Cases:
    """The process that forks one for each case, and a fresh database for each."""

    def __init__(self, folder: Path, template: Path, shim: Path) -> None:
        self._folder, self._template = folder, template
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.sqlite_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)},
        )

    def run(self, name: str, **case: Any) -> tuple[Path, list[list[str]], Told | int]:
        """The database, what was acknowledged, and what was told, or the signal of its end."""
        folder = self._folder / name
        folder.mkdir()
        path, acknowledged = folder / "broker.db", folder / "acknowledged"
        shutil.copy(self._template, path)
        order = Case(f"sqlite+aiosqlite:///{path}", str(acknowledged), **case)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        told = answer["died"] if "died" in answer else Told(**answer)
        lines = acknowledged.read_text().splitlines() if acknowledged.exists() else []
        return path, [line.split(" ", 1) for line in lines], told

    def close(self) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            stream.close()
        assert self._child.wait(60) == 0


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("no C compiler: apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("shim") / "fault.so"
    subprocess.run(
        [compiler, "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"],
        check=True,
        timeout=60,
    )
    return library


@pytest.fixture
def cases(_sqlite_template: Path, shim: Path) -> Iterator[Cases]:
    # In memory where there is some: each case syncs dozens of times.
    with TemporaryDirectory(prefix="broker-calls-", dir=roomy_memory()) as folder:
        made = Cases(Path(folder), _sqlite_template, shim)
        yield made
        made.close()


async def what_stands(path: Path, acknowledged: list[list[str]]) -> None:
    """The database is whole, holds all that was acknowledged, and goes on."""
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database = Database.open(f"sqlite+aiosqlite:///{path}")
    try:
        records = await log(database)
        seen = await Seen.now(database)
        issuances_agree(seen.issuances, records)
        mutators_are_on_record(seen.login_sessions, seen.grants, records)
        found = {
            (record["type"], which) for record in records for which in record["subject"].values()
        }
        for kind, which in acknowledged:
            if kind == "audit.checkpoint":
                assert any(f"\n{which}\n" in note for note in seen.notes)
            else:
                assert (kind, which) in found, (kind, which)
        journal = GroupCommitJournal(database, housekeeping_every=NEVER)
        await journal.start()
        await journal.reap(-1)
        person = seen.login_sessions[0] if seen.login_sessions else None
        if person is not None:
            asked = intent(
                principal_id=person.principal_id, login_session_id=person.id, grant_id=None
            )
            await journal.request(asked)
            assert (await journal.conclude(outcome(asked))).state is State.ISSUED
        await journal.aclose()
        states = {row.state for row in (await Seen.now(database)).issuances}
        assert "requested" not in states
    finally:
        await database.aclose()


async def one_gone_wrong(cases: Cases, kind: str, nth: int) -> bool:
    """False where the process had ended well before its `nth` call."""
    case = KINDS[kind]
    path, acknowledged, told = cases.run(f"{kind} {nth}", nth=nth, **case)
    try:
        if told != signal.SIGKILL:
            assert isinstance(told, Told), told
            assert told.broken is None
        await what_stands(path, acknowledged)
    except AssertionError as broken:
        broken.add_note(f"{kind} {nth}: {told}")
        raise
    finally:
        shutil.rmtree(path.parent)
    return told == signal.SIGKILL or case["mode"] == "fail"


async def calls_of_the_script(cases: Cases) -> int:
    path, acknowledged, told = cases.run("nothing wrong", mode="count")
    assert isinstance(told, Told)
    assert told.broken is None
    assert len(acknowledged) == 7
    await what_stands(path, acknowledged)
    assert told.calls > 100
    return told.calls


@pytest.mark.timeout(600)
async def test_some_calls_gone_wrong_lose_nothing_that_was_acknowledged(cases: Cases) -> None:
    """Evenly spread, others of each kind; `--long` has them all."""
    calls = await calls_of_the_script(cases)
    for offset, kind in enumerate(KINDS):
        for nth in range(1 + offset, calls + 1, calls // SAMPLE):
            await one_gone_wrong(cases, kind, nth)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_each_call_gone_wrong_loses_nothing_that_was_acknowledged(cases: Cases) -> None:
    calls = await calls_of_the_script(cases)
    done = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        for nth in range(1, calls + 1):
            done[kind] += await one_gone_wrong(cases, kind, nth)
    record("sqlite", done)
