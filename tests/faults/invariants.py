"""What must hold after every fault, looked at from outside: the database, STS's own list of calls,
and what the callers hold.

Owns the invariants. Does not own when they are looked at (the tests).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select, update

from broker.adapters.store.engine import Database
from broker.adapters.store.schema import (
    audit_checkpoints,
    audit_records,
    grants,
    issuances,
    login_sessions,
)
from broker.audit.authentic import Evidence
from broker.audit.checkpoint import Checkpoint, opened
from broker.audit.note import VerifierKey
from broker.audit.receipt import Receipt
from broker.audit.verify import Verifier, export_line
from broker.devstack.aws.faults import StsCall
from tests.faults.world import World

TERMINAL = {
    "issuance.issued": "issued",
    "issuance.failed": "failed",
    "issuance.withheld": "withheld",
    "issuance.orphaned": "orphaned",
}
TERMINAL_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class Seen:
    """The database at one moment."""

    log: list[Any]
    notes: list[str]
    issuances: list[Any]
    login_sessions: list[Any]
    grants: list[Any]

    @classmethod
    async def now(cls, database: Database) -> Seen:
        async with database.snapshot() as conn:

            async def rows(query: Select[Any]) -> list[Any]:
                return list((await conn.execute(query)).all())

            return cls(
                await rows(select(audit_records).order_by(audit_records.c.seq)),
                [row.note for row in await rows(select(audit_checkpoints.c.note))],
                await rows(select(issuances)),
                await rows(select(login_sessions)),
                await rows(select(grants)),
            )


class Witness:
    """Holds the log against everything signed that was ever seen of it. Each signature is checked
    once.
    """

    def __init__(self, keys: Sequence[VerifierKey]) -> None:
        self._keys = keys
        self._checkpoints: dict[str, Checkpoint] = {}
        self._receipts: dict[str, Receipt] = {}

    def whole_log(self, seen: Seen, answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every record, once chain, tree, signed checkpoints and receipts agree."""
        for note in seen.notes:
            self._checkpoint(note)
        for answer in answers:
            if answer["issuance_id"] not in self._receipts:
                receipt = Receipt.parse(answer["receipt"])
                assert receipt.unverified() == self._checkpoint(receipt.checkpoint)
                self._receipts[answer["issuance_id"]] = receipt
        evidence = Evidence(
            tuple(sorted(set(self._checkpoints.values()), key=lambda one: one.size)),
            tuple(self._receipts.values()),
            signed=True,
        )
        verifier = Verifier(sizes=evidence.sizes, numbers=evidence.numbers)
        for row in seen.log:
            if not verifier.feed(export_line(row.record, row.leaf, row.chain)):
                break
        found = verifier.close()
        assert found.problem is None, found.problem
        problem = evidence.problem(found.head.seq, found.roots, found.leaves)
        assert problem is None, problem
        return [json.loads(row.record) for row in seen.log]

    def _checkpoint(self, note: str) -> Checkpoint:
        if note not in self._checkpoints:
            self._checkpoints[note] = opened(note, self._keys)
        return self._checkpoints[note]


def issuances_agree(stored: Iterable[Any], records: Iterable[dict[str, Any]]) -> None:
    """Each intent is on record before all else, has one outcome at most, and the row says which."""
    history: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record["type"].startswith("issuance.") and "issuance" in record["subject"]:
            history[record["subject"]["issuance"]].append(record["type"])
    states = {row.id: row.state for row in stored}
    assert set(history) == set(states)
    for issuance, types in history.items():
        assert types[0] == "issuance.requested", (issuance, types)
        assert types.count("issuance.requested") == 1, (issuance, types)
        outcomes = [TERMINAL[kind] for kind in types[1:]]
        # What came too late is recorded as withheld beside the outcome that was first.
        first, late = outcomes[:1], outcomes[1:]
        assert first == ([] if states[issuance] == "requested" else [states[issuance]]), types
        assert all(outcome in ("withheld", "failed") for outcome in late), (issuance, types)


def nothing_was_given_out_unrecorded(
    given: Iterable[dict[str, Any]], records: Iterable[dict[str, Any]]
) -> None:
    """Credentials that a caller holds are on record, once, in a record that their receipt shows."""
    issued = {
        record["subject"]["issuance"]: record
        for record in records
        if record["type"] == "issuance.issued"
    }
    answers = list(given)
    seen = Counter(answer["issuance_id"] for answer in answers)
    assert all(times == 1 for times in seen.values())
    for answer in answers:
        record = issued[answer["issuance_id"]]
        key = answer["credentials"]["access_key_id"]
        assert record["detail"]["access_key_id"] == key, answer["issuance_id"]
        assert json.loads(answer["receipt"]["record"]) == record


def sts_was_asked_for_intents_alone(calls: Iterable[StsCall], stored: Iterable[Any]) -> None:
    """No call without an intent, and none twice."""
    intents = {row.session_name for row in stored}
    named = Counter(call.parameters["RoleSessionName"] for call in calls)
    unknown = named.keys() - intents
    assert not unknown, unknown
    assert all(times == 1 for times in named.values()), named.most_common(1)


def what_is_issued_was_made(
    calls: Iterable[StsCall], stored: Iterable[Any], records: Iterable[dict[str, Any]]
) -> None:
    """Each issued record is of the one key that STS made for it, and of no other's."""
    made = {
        call.parameters["RoleSessionName"]: call.issued_key_id
        for call in calls
        if call.outcome == "ok"
    }
    by_id = {row.id: row for row in stored}
    keys = []
    for record in records:
        if record["type"] == "issuance.issued":
            row = by_id[record["subject"]["issuance"]]
            keys.append(record["detail"]["access_key_id"])
            assert made[row.session_name] == row.access_key_id == keys[-1]
    assert len(set(keys)) == len(keys)


def mutators_are_on_record(
    sessions: Iterable[Any], granted: Iterable[Any], records: Sequence[dict[str, Any]]
) -> None:
    """A login session or a grant is there with its record, or neither is."""
    logged_in = Counter(
        record["subject"]["login_session"]
        for record in records
        if record["type"] == "login.succeeded"
    )
    assert logged_in == Counter(row.id for row in sessions)
    created = Counter(
        record["subject"]["grant"] for record in records if record["type"] == "grant.created"
    )
    assert created == Counter(row.id for row in granted)


class Outside:
    """Looks at a world's database, without its servers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.database = Database.open(world.database_url)
        self._witness = Witness(world.log_keys)

    async def all_holds(self) -> list[dict[str, Any]]:
        """The log's records, once everything was looked at. The servers may be serving."""
        world, given = self._world, self._world.given
        # What callers were told and STS was asked, then what must be on record of it by now.
        answers, granted, refreshed = list(given.issued), set(given.granted), given.refreshed
        calls = world.aws.calls.of("AssumeRole")
        seen = await Seen.now(self.database)
        records = self._witness.whole_log(seen, answers)
        assert not given.leaks
        lost = [person.ended for person in world.people if person.ended]
        assert not lost, lost
        nothing_was_given_out_unrecorded(answers, records)
        sts_was_asked_for_intents_alone(calls, seen.issuances)
        what_is_issued_was_made(world.aws.calls.of("AssumeRole"), seen.issuances, records)
        issuances_agree(seen.issuances, records)
        mutators_are_on_record(seen.login_sessions, seen.grants, records)
        assert granted <= {row.id for row in seen.grants}
        assert sum(record["type"] == "session.refreshed" for record in records) >= refreshed
        return records

    async def verified_offline(self, folder: Path) -> str:
        """What `broker audit verify` says of an export, the newest checkpoint and a receipt."""
        seen = await Seen.now(self.database)
        export, checkpoint = folder / "audit.jsonl", folder / "checkpoint"
        receipt = folder / "receipt.json"
        export.write_bytes(b"".join(export_line(r.record, r.leaf, r.chain) for r in seen.log))
        newest = max(seen.notes, key=lambda note: opened(note, self._world.log_keys).size)
        checkpoint.write_text(newest)
        receipt.write_text(json.dumps(self._world.given.issued[-1]["receipt"]))
        keys = [word for key in self._world.log_keys for word in ("--key", str(key))]
        evidence = ["--checkpoint", str(checkpoint), "--receipt", str(receipt), *keys]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "broker.entry", "audit", "verify", str(export), *evidence],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def admin_is_fresh(self, url: str) -> None:
        """As if the admin had just shown the second factor."""
        admin = self._world.admin
        assert admin is not None
        async with self.database.begin() as conn:
            now = await self.database.now(conn)
            await conn.execute(
                update(login_sessions)
                .where(login_sessions.c.principal_id == admin.principal_id)
                .values(mfa_time=now)
            )
        async with self._world.client() as client:
            assert await self._world.refresh(client, url, admin), admin.ended

    async def intents_become_terminal(self) -> None:
        """Wait until no intent is open. None may be open for longer than TERMINAL_WITHIN."""
        query = select(func.min(issuances.c.requested_at)).where(issuances.c.state == "requested")
        while True:
            async with self.database.begin() as conn:
                oldest = (await conn.execute(query)).scalar_one()
                now = await self.database.now(conn)
            if oldest is None:
                return
            age = (now - oldest).total_seconds()
            assert age < TERMINAL_WITHIN, f"an intent is open for {age:.0f} s"
            await asyncio.sleep(0.25)
