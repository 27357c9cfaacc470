"""Several broker processes over one database make one log, also when one is killed."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

from sqlalchemy import func, select

from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.adapters.store.records import AuditRecords
from broker.adapters.store.schema import issuances
from broker.audit.record import EventType
from tests.store.journal_scene import NEVER, add_person, event, log, until

ROOT = Path(__file__).parents[2]


async def start(url: str, callers: int, rounds: int) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "tests.store.journal_process", url, str(callers), str(rounds)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    await heard(process, b"ready\n")
    return process


async def heard(process: Process, word: bytes) -> None:
    assert process.stdout is not None
    assert await process.stdout.readline() == word


async def begin(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await process.stdin.drain()
    await heard(process, b"started\n")


async def test_64_callers_in_two_processes_make_one_gapless_chain(
    database: Database, database_url: str
) -> None:
    await add_person(database)
    processes = await asyncio.gather(*(start(database_url, 32, 5) for _ in range(2)))
    await asyncio.gather(*map(begin, processes))
    await asyncio.gather(*(heard(process, b"done\n") for process in processes))
    assert [await process.wait() for process in processes] == [0, 0]

    records = await log(database)
    assert [r["seq"] for r in records] == list(range(1, 2 * 32 * 5 * 2 + 1))
    order: dict[str, list[str]] = {}
    for record in records:
        order.setdefault(record["subject"]["issuance"], []).append(record["type"])
    assert len(order) == 320
    assert all(ends == ["issuance.requested", "issuance.issued"] for ends in order.values())
    assert [r["time"] for r in records] == sorted(r["time"] for r in records)


async def test_a_killed_process_leaves_a_chain_that_verifies_and_others_go_on(
    database: Database, database_url: str
) -> None:
    await add_person(database)
    process = await start(database_url, 32, 0)
    await begin(process)

    async def busy() -> bool:
        return (await AuditRecords(database).head()).seq > 200

    await until(busy)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL

    journal = GroupCommitJournal(database, housekeeping_every=NEVER)
    await journal.start()
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    reaped = await journal.reap(-1)
    await journal.aclose()

    types = Counter(r["type"] for r in await log(database))
    assert types["login.succeeded"] == 1
    assert types["issuance.orphaned"] == reaped
    assert types["issuance.requested"] == types["issuance.issued"] + reaped
    async with database.read() as conn:
        query = select(issuances.c.state, func.count()).group_by(issuances.c.state)
        states = {row[0]: row[1] for row in (await conn.execute(query)).all()}
    assert states.get("issued", 0) == types["issuance.issued"]
    assert states.get("orphaned", 0) == reaped
    assert "requested" not in states
