"""Whoever changes an export in whatever way, but has not the log's key, is caught."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from broker.audit.authentic import Evidence
from broker.audit.chain import GENESIS, chain_hash, leaf_hash
from broker.audit.checkpoint import Checkpoint
from broker.audit.merkle import NO_LEAVES
from broker.audit.record import Actor, Event, EventType, Outcome, to_record
from broker.audit.verify import export_line, verify
from tests.unit.audit.keys import ORIGIN, TestSigner

SIGNER = TestSigner()
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SIZE = 120


def made(count: int) -> Iterator[bytes]:
    for seq in range(1, count + 1):
        kind = (EventType.ISSUANCE_REQUESTED, EventType.ISSUANCE_ISSUED)[seq % 2]
        event = Event(
            kind,
            Actor("p-abcdefghij234567", "person", "ada@example.com", "192.0.2.1"),
            Outcome.SUCCESS,
            {"issuance": f"iss-{seq}", "role": "data-reader"},
            {"reason": 'the "q3" numbers' if seq % 7 == 0 else "look", "seconds": 3600 + seq},
            f"req-{seq}",
        )
        yield to_record(event, seq, NOON)


def lines_of(records: list[bytes]) -> list[bytes]:
    chain, lines = GENESIS, []
    for record in records:
        leaf = leaf_hash(record)
        chain = chain_hash(chain, leaf)
        lines.append(export_line(record, leaf, chain))
    return lines


RECORDS = list(made(SIZE))
LINES = lines_of(RECORDS)
ROOT = NO_LEAVES.extend(leaf_hash(record) for record in RECORDS).after.root
EVIDENCE = Evidence.read([Checkpoint(ORIGIN, SIZE, ROOT).signed(SIGNER)], [], [SIGNER.key])

Mutation = Callable[[random.Random], bytes]


def flip(chance: random.Random) -> bytes:
    changed = bytearray(b"".join(LINES))
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def drop(chance: random.Random) -> bytes:
    at = chance.randrange(SIZE)
    return b"".join(LINES[:at] + LINES[at + chance.randint(1, 5) :])


def swap(chance: random.Random) -> bytes:
    one, other = chance.sample(range(SIZE), 2)
    lines = [*LINES]
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def duplicate(chance: random.Random) -> bytes:
    at = chance.randrange(SIZE)
    return b"".join([*LINES[: at + 1], LINES[at], *LINES[at + 1 :]])


def insert(chance: random.Random) -> bytes:
    at = chance.randrange(SIZE)
    return b"".join([*LINES[:at], chance.choice(LINES), *LINES[at:]])


def truncate(chance: random.Random) -> bytes:
    whole = b"".join(LINES)
    if chance.random() < 0.5:
        return whole[: chance.randrange(len(whole))]
    return b"".join(LINES[: chance.randrange(SIZE)])


def fork(chance: random.Random) -> bytes:
    """From some record on another history, every hash recomputed."""
    records = [*RECORDS]
    for at in range(chance.randrange(SIZE), SIZE):
        records[at] = records[at].replace(b"success", b"failure")
    return b"".join(lines_of(records))


def recompute(chance: random.Random) -> bytes:
    """One record changed, left out or put in, every number and hash recomputed."""
    records = [json.loads(record) for record in RECORDS]
    at = chance.randrange(SIZE)
    match chance.randrange(3):
        case 0:
            records[at]["subject"]["role"] = "admin"
        case 1:
            del records[at]
        case _:
            records.insert(at, records[chance.randrange(SIZE)] | {"request_id": "req-x"})
    numbered = [
        json.dumps(record | {"seq": seq}, sort_keys=True, separators=(",", ":")).encode()
        for seq, record in enumerate(records, 1)
    ]
    return b"".join(lines_of(numbered))


MUTATIONS = (flip, drop, swap, duplicate, insert, truncate, fork, recompute)


def caught(export: bytes) -> bool:
    found = verify([export], sizes=EVIDENCE.sizes)
    if found.problem is not None:
        return True
    return EVIDENCE.problem(found.head.seq, found.roots, found.leaves) is not None


def run(count: int, seed: int) -> None:
    chance, whole = random.Random(seed), b"".join(LINES)
    assert not caught(whole)
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        changed = mutation(chance)
        if changed != whole:
            assert caught(changed), (mutation.__name__, seed, number)


@pytest.mark.parametrize("seed", range(4))
def test_random_mutations_are_all_caught(seed: int) -> None:
    run(120, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_ten_thousand_random_mutations_are_all_caught(seed: int) -> None:
    run(1000, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_clean_records_raise_no_alarm() -> None:
    chain, lines, builder = GENESIS, [], NO_LEAVES
    leaves: list[bytes] = []
    for record in made(1_000_000):
        leaf = leaf_hash(record)
        chain = chain_hash(chain, leaf)
        leaves.append(leaf)
        lines.append(export_line(record, leaf, chain))
    root = builder.extend(leaves).after.root
    note = Checkpoint(ORIGIN, len(lines), root).signed(SIGNER)
    evidence = Evidence.read([note], [], [SIGNER.key])
    found = verify(lines, sizes=evidence.sizes)
    assert found.problem is None
    assert found.count == 1_000_000
    assert evidence.problem(found.head.seq, found.roots, found.leaves) is None
