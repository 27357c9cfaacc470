"""A delegate signs receipts until its certificate ends, is renewed in time, and is never believed
for more than that.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.adapters.delegates import CLOCKS, Delegates
from broker.adapters.store.engine import Database
from broker.adapters.store.journal import GroupCommitJournal
from broker.audit.checkpoint import Checkpoint, opened
from broker.audit.delegate import LONGEST, certified
from broker.audit.note import BadNote, CannotSign, VerifierKey
from broker.audit.receipt import Receipt
from broker.audit.record import EventType
from broker.errors import AuditUnavailable
from tests.store.journal_scene import add_person, event, intent, outcome, until
from tests.unit.audit.keys import ORIGIN, TestSigner

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class FarAway:
    """A log's key that can be out of reach."""

    def __init__(self) -> None:
        self._signer = TestSigner()
        self.out = False
        self.asked = 0

    @property
    def key(self) -> VerifierKey:
        return self._signer.key

    def sign(self, message: bytes) -> bytes:
        self.asked += 1
        if self.out:
            raise CannotSign("KMS is out")
        return self._signer.sign(message)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def made(log_key: FarAway, clock: Clock) -> Delegates:
    return Delegates(ORIGIN, log_key, now=clock, poll=0.01)


async def test_what_it_signs_is_a_receipts_head_and_no_checkpoint() -> None:
    log_key, clock = FarAway(), Clock()
    delegates = made(log_key, clock)
    with pytest.raises(CannotSign, match="no delegate"):
        delegates.current()
    await delegates.start()
    key = delegates.current()
    assert key.certificate == delegates.certificate
    assert key.certificate is not None
    certificate = certified(key.certificate, [log_key.key])
    assert certificate.covers(NOON - CLOCKS)
    assert certificate.ends - certificate.begins == LONGEST
    head = Checkpoint(ORIGIN, 3, bytes(32))
    note = head.signed(key.signer)
    assert opened(note, [certificate.key]) == head
    with pytest.raises(BadNote, match="no key that is trusted"):
        opened(note, [log_key.key])
    await delegates.aclose()


async def test_it_is_renewed_at_half_its_time_and_goes_on_while_it_can_not_be() -> None:
    log_key, clock = FarAway(), Clock()
    delegates = made(log_key, clock)
    await delegates.start()
    first = delegates.certificate
    clock.now = NOON + LONGEST / 2

    async def renewed() -> bool:
        return delegates.certificate != first

    await until(renewed)
    second, asked = delegates.certificate, log_key.asked

    log_key.out = True
    clock.now += LONGEST / 2

    async def tried() -> bool:
        return log_key.asked > asked and bool(delegates.problems)

    await until(tried)
    assert delegates.current().certificate == second
    (problem,) = delegates.problems
    ends = NOON + LONGEST / 2 + LONGEST - 2 * CLOCKS
    assert f"{ends:%Y-%m-%dT%H:%M:%SZ}" in problem

    clock.now = ends
    with pytest.raises(CannotSign, match="can't be renewed: KMS is out"):
        delegates.current()

    log_key.out = False

    async def back() -> bool:
        return delegates.problems == ()

    await until(back)
    assert delegates.current().certificate != second
    await delegates.aclose()


async def test_without_the_logs_key_there_is_no_first_one() -> None:
    log_key = FarAway()
    log_key.out = True
    with pytest.raises(CannotSign, match="KMS is out"):
        await made(log_key, Clock()).start()


async def test_nothing_is_issued_once_receipts_can_not_be_signed(
    sqlite_database: Database,
) -> None:
    """The request is refused before STS is asked; the rest of the log goes on."""
    clock = Clock()
    clock.now = datetime.now(UTC)
    delegates = made(FarAway(), clock)
    await delegates.start()
    await delegates.aclose()  # never renewed
    journal = GroupCommitJournal(sqlite_database, receipt_key=delegates.current)
    await journal.start()
    await add_person(sqlite_database)

    async def issue() -> Receipt:
        wanted = intent()
        await journal.request(wanted)
        concluded = await journal.conclude(outcome(wanted))
        assert concluded.receipt is not None
        return concluded.receipt

    receipt = await issue()
    assert receipt.certificate == delegates.certificate
    trusted = [FarAway().key]
    receipt.verify(trusted, at=datetime.now(UTC))
    with pytest.raises(BadNote, match="not certified for this time"):
        receipt.verify(trusted, at=datetime.now(UTC) + LONGEST)

    began = intent()
    await journal.request(began)
    clock.now += LONGEST
    for refused in (journal.request(intent()), journal.conclude(outcome(began))):
        with pytest.raises(AuditUnavailable) as caught:
            await refused
        assert "can't be renewed" in (caught.value.log_detail or "")
    await journal.append(event(EventType.LOGIN_SUCCEEDED))
    await journal.aclose()
