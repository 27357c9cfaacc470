"""What a chained, provable record costs, and how fast a log is verified, in one run.

Two processes of 32 callers append to one PostgreSQL with its durability on, in turn by
the broker's group commit, by a transaction an append under FOR UPDATE, and by single
inserts without any chain, all on asyncpg. A ratio is the median of the rounds' ratios,
so that what else the machine does weighs on both sides alike. Run it on a quiet machine.

    python bench/audit.py [--quick]

Ratios (the gate):
  append_vs_row_lock      appends a second, of those under FOR UPDATE     at least 15
  append_vs_unchained     appends a second, of single inserts             at least 2
  lone_p50_vs_unchained   a lone caller's median, of a single insert's    at most 2
  receipts_vs_none        issuances recorded a second, with receipts, of without   at least 0.9
  verify_records_per_s    records verified, chain and tree, on one core   at least 100000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import asyncpg
from stage.appending import event
from stage.postgresql import cluster
from stage.processes import Worker

from broker.adapters.migrations import migrate
from broker.audit.chain import GENESIS, chain_hash, leaf_hash
from broker.audit.record import EventType, prepare, rfc3339
from broker.audit.verify import export_line, verify

CALLERS = 32
PROCESSES = 2
_FLOORS = """
CREATE TABLE head (seq bigint NOT NULL, chain bytea NOT NULL);
INSERT INTO head VALUES (0, decode(repeat('00', 32), 'hex'));
CREATE TABLE chained (seq bigint PRIMARY KEY, record bytea NOT NULL, leaf bytea NOT NULL,
                      chain bytea NOT NULL);
CREATE TABLE unchained (id bigserial PRIMARY KEY, record bytea NOT NULL);
"""
_PERSON = """
INSERT INTO principals (id, kind, issuer, subject, provider, handle, email_verified, groups,
                        claims, created_at)
VALUES ('p-abcdefghij234567', 'person', 'i', 's', 'corp', 'ada', false, '[]', '{}', now());
INSERT INTO login_sessions (id, principal_id, client, auth_time, created_at, expires_at)
VALUES ('ls-bench', 'p-abcdefghij234567', 'cli', now(), now(), now() + interval '1 day');
"""


class Crowd:
    """The two processes."""

    def __init__(self, **database: str) -> None:
        self._workers = [Worker("appending.py") for _ in range(PROCESSES)]
        self._threads = ThreadPoolExecutor(PROCESSES)
        self._database = database

    def rate(self, how: str, seconds: float) -> float:
        """Appends a second of both, 32 callers each."""
        task = {"how": how, "callers": CALLERS, "seconds": seconds, **self._database}
        answers = list(self._threads.map(lambda worker: worker.ask(**task), self._workers))
        rate = sum(float(answer["rate"]) for answer in answers)
        print(f"{how:14} {PROCESSES} x {CALLERS} callers  {rate:9.0f}/s", flush=True)
        return rate

    def lone(self, how: str, seconds: float) -> float:
        """The median of one caller, in seconds."""
        task = {"how": how, "callers": 1, "seconds": seconds, **self._database}
        p50 = float(self._workers[0].ask(**task)["p50"])
        print(f"{how:14} a lone caller        p50 {p50 * 1000:7.3f} ms", flush=True)
        return p50

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown()


def measure(crowd: Crowd, *, rounds: int, seconds: float) -> dict[str, float]:
    """Every ratio of appending, by name."""
    ratios: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        ratios.setdefault(name, []).append(value)

    for how in ("group", "row_lock", "unchained", "issue", "issue_signed"):
        crowd.rate(how, seconds / 3)
    for _ in range(rounds):
        group, unchained = crowd.rate("group", seconds), crowd.rate("unchained", seconds)
        note("append_vs_row_lock", group / crowd.rate("row_lock", seconds))
        note("append_vs_unchained", group / unchained)
        lone = crowd.lone("group", seconds / 2)
        note("lone_p50_vs_unchained", lone / crowd.lone("unchained", seconds / 2))
        plain = crowd.rate("issue", seconds)
        note("receipts_vs_none", crowd.rate("issue_signed", seconds) / plain)
    return {name: round(statistics.median(values), 3) for name, values in ratios.items()}


def exported(count: int) -> list[bytes]:
    """An export in chunks as a file is read."""
    chain, lines, kinds = GENESIS, [], (EventType.ISSUANCE_ISSUED, EventType.ISSUANCE_REQUESTED)
    moment = rfc3339(datetime.now(UTC))
    for seq in range(1, count + 1):
        record = prepare(event(kinds[seq % 2], f"iss-{seq:024x}")).record(seq, moment)
        leaf = leaf_hash(record)
        chain = chain_hash(chain, leaf)
        lines.append(export_line(record, leaf, chain))
    whole = b"".join(lines)
    print(f"{count} records of {len(whole) // count} bytes a line")
    step = 256 * 1024
    return [whole[at : at + step] for at in range(0, len(whole), step)]


def verified_per_second(count: int, rounds: int) -> float:
    """Of CPU time: the median of the rounds."""
    chunks, rates = exported(count), []
    for _ in range(rounds):
        began = time.process_time()
        found = verify(chunks)
        rates.append(count / (time.process_time() - began))
        if found.count != count:
            raise RuntimeError(str(found))
        print(f"verify         {rates[-1]:9.0f} records/s", flush=True)
    return round(statistics.median(rates))


async def _prepare(url: str, dsn: str, floors: str) -> None:
    await migrate(url)
    for name, statements in ((dsn, _PERSON), (floors, _FLOORS)):
        conn = await asyncpg.connect(name)
        await conn.execute(statements)
        await conn.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    quick = parser.parse_args().quick
    print(f"{os.cpu_count()} CPUs")
    rate = verified_per_second(50_000 if quick else 300_000, 3 if quick else 5)
    with cluster() as postgresql:
        url = postgresql.database("broker")
        postgresql.database("floors")
        asyncio.run(_prepare(url, postgresql.dsn("broker"), postgresql.dsn("floors")))
        crowd = Crowd(url=url, dsn=postgresql.dsn("floors"))
        try:
            rounds, seconds = (3, 1.2) if quick else (7, 4.0)
            ratios: dict[str, Any] = measure(crowd, rounds=rounds, seconds=seconds)
        finally:
            crowd.stop()
    ratios["verify_records_per_s"] = rate
    print(json.dumps({"name": "audit", "ratios": ratios}))


if __name__ == "__main__":
    main()
