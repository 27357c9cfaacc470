"""A process that writes a SQLite database through the stores, with one system call gone wrong.

Run by `test_sqlite_calls`, with `fault.c` preloaded. One process imports the stores; each case is
a fork of it. A case is a line on stdin; what came of it, or how it died, is a line on stdout. What
was acknowledged to callers goes to a file as it happens: it must be in the log, whatever follows.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from broker.adapters.checkpoints import CheckpointPublisher
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.tree import AuditTree
from broker.audit.record import EventType
from broker.errors import AuditUnavailable
from broker.issuance.journal import Intent, State
from tests.store.journal_scene import NEVER, event, intent, outcome
from tests.store.stores import Stores
from tests.unit.audit.keys import TestSigner

MODES = {"none": 0, "count": 1, "fail": 2, "kill before": 3, "kill after": 4, "tear": 5}
# A fault that befell one call: what was refused for it is done when it is asked for again. One
# that stays is over after so many refusals; and a connection that was opened meanwhile, which
# SQLite then gave for reading alone, may refuse once more before it is replaced.
OVER_AFTER = 2
TRIES = OVER_AFTER + 2


@dataclass(frozen=True)
class Case:
    """`nth` of the calls, from 1. `errnum`: of the mode `fail`. `stays`: all calls from it on."""

    url: str
    acknowledged: str
    mode: str
    nth: int = 0
    errnum: int = 0
    stays: bool = False


@dataclass
class Told:
    """`calls`: how many were made, or the one that went wrong. `refused`: steps that had to be
    asked for again. `broken`: an error that is no refusal.
    """

    calls: int = 0
    last: str = ""
    refused: int = 0
    broken: str | None = None


class Shim:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_seen.restype = ctypes.c_long
        self._library.fault_last.restype = ctypes.c_char_p

    def arm(self, case: Case) -> None:
        path = case.url.removeprefix("sqlite+aiosqlite:///").encode()
        self._library.fault_arm(
            path, MODES[case.mode], ctypes.c_long(case.nth), case.errnum, int(case.stays)
        )

    def disarm(self) -> None:
        self._library.fault_arm(b"", MODES["none"], ctypes.c_long(0), 0, 0)

    def tell(self, told: Told) -> None:
        told.calls = self._library.fault_seen()
        told.last = self._library.fault_last().decode()


class Script:
    """What a broker writes: mutators, issuances, a checkpoint, and the end of it all."""

    def __init__(self, case: Case, shim: Shim, told: Told) -> None:
        self._case, self._shim, self._told = case, shim, told
        self._acknowledgements = os.open(
            case.acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    async def run(self) -> None:
        self._shim.arm(self._case)
        database = Database.open(self._case.url)
        journal = GroupCommitJournal(database, housekeeping_every=NEVER, signer=TestSigner())
        await journal.start()
        try:
            await self._write(database, journal)
        finally:
            await journal.aclose()
            await database.aclose()
        self._shim.tell(self._told)

    async def _write(self, database: Database, journal: GroupCommitJournal) -> None:
        stores = Stores(database)
        publisher = CheckpointPublisher(
            checkpoints=SqlCheckpoints(database),
            tree=AuditTree(database),
            journal=journal,
            signer=TestSigner(),
        )
        people: list[tuple[str, str]] = []

        async def log_in() -> None:
            login = await stores.log_in("ada")
            self._acknowledge("login.succeeded", login.session.id)
            people.append((login.principal.id, login.session.id))

        async def grant() -> None:
            self._acknowledge("grant.created", (await stores.grant(people[-1][0])).grant.id)

        async def issue() -> None:
            asked = self._intent(*people[-1])
            await journal.request(asked)
            self._acknowledge("issuance.requested", asked.id)
            concluded = await journal.conclude(outcome(asked))
            if concluded.state is not State.ISSUED:
                raise RuntimeError(f"withheld: {concluded.reason}")
            self._acknowledge("issuance.issued", asked.id)

        async def fail() -> None:
            asked = self._intent(*people[-1])
            await journal.request(asked)
            self._acknowledge("issuance.requested", asked.id)
            await journal.fail(asked, event(EventType.ISSUANCE_FAILED, asked.id))
            self._acknowledge("issuance.failed", asked.id)

        async def publish() -> None:
            self._acknowledge("audit.checkpoint", str((await publisher.publish()).size))

        for step in (log_in, grant, issue, fail, publish):
            await self._insist(step)

    async def _insist(self, step: Callable[[], Awaitable[None]]) -> None:
        """As a caller does who is told to try again."""
        for attempt in range(TRIES):
            try:
                await step()
            except AuditUnavailable:
                self._told.refused += 1
                if attempt == TRIES - 1:
                    raise
                if attempt == OVER_AFTER - 1:
                    self._shim.tell(self._told)
                    self._shim.disarm()
            else:
                return

    @staticmethod
    def _intent(principal: str, session: str) -> Intent:
        return intent(principal_id=principal, login_session_id=session, grant_id=None)

    def _acknowledge(self, what: str, which: str) -> None:
        os.write(self._acknowledgements, f"{what} {which}\n".encode())


def run(case: Case, shim: Shim) -> Told:
    """In a process of its own."""
    told = Told()
    try:
        asyncio.run(Script(case, shim, told).run())
    except BaseException as error:  # noqa: BLE001 - it is told, and the test fails of it
        told.broken = repr(error)
    shim.disarm()
    return told


def main() -> None:
    """A case a line; what came of it, or the signal that ended it, a line each."""
    shim = Shim()
    gc.freeze()
    for line in sys.stdin.buffer:
        case = Case(**json.loads(line))
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.write(write, json.dumps(asdict(run(case, shim))).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.buffer.write(told if code == 0 else json.dumps({"died": -code}).encode())
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
