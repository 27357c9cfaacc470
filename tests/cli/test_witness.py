"""Each client is a witness: it pins the log's key, keeps receipts, and notices another past."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.delegate import delegate_name
from broker.cli.server import Server
from broker.cli.witness import RECEIPTS_A_LOGIN
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker
from tests.cli.fake_log import ORIGIN, FakeLog
from tests.unit.audit.keys import TestSigner, TestWitness


@pytest.fixture
def log(broker: FakeBroker) -> FakeLog:
    """Of three records, signed."""
    broker.log = made = FakeLog()
    for _ in range(3):
        made.append()
    made.publish()
    return made


def kept(cli: Cli, broker: FakeBroker) -> Path:
    origin = Server.parse(broker.origin).origin
    return cli.home / origin.replace("://", "_").replace(":", "%3A") / "log"


def log_in(cli: Cli, *options: str):
    return cli("login", *options)


def mistrusts(done, *words: str) -> None:
    assert done.code == 1, done
    assert "IS NOT THE ONE SEEN BEFORE" in done.err
    for word in words:
        assert word in done.err, done.err


def test_the_first_login_pins_the_key_and_later_ones_follow_the_log(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    first = log_in(cli)
    assert first.code == 0, first.err
    assert str(log.signer.key) in first.err
    state = kept(cli, broker) / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    for _ in range(5):
        log.append()
    log.publish()
    again = log_in(cli)
    assert (again.code, "log's key" in again.err) == (0, False)
    assert broker.last("/v1/audit/proof/consistency").query == {"from": "3", "to": "8"}
    assert json.loads(state.read_text())["checkpoint"] == log.published
    log_in(cli)
    assert broker.count("/v1/audit/proof/consistency") == 1


def test_a_broker_without_a_signed_log_pins_nothing(cli: Cli, broker: FakeBroker):
    assert log_in(cli).code == 0
    assert not kept(cli, broker).exists()
    assert cli("creds", "data-reader").code == 0


def test_receipts_are_kept_privately_and_found_in_the_log_at_the_next_login(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    for _ in range(3):
        assert cli("creds", "data-reader").code == 0
    names = sorted(path.name for path in (kept(cli, broker) / "receipts").iterdir())
    assert names == [f"{seq:016}-iss-{seq}.json" for seq in (4, 5, 6)]
    for path in (kept(cli, broker) / "receipts").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log.append()
    log.publish()
    done = log_in(cli)
    assert done.code == 0, done.err
    assert json.loads((kept(cli, broker) / "state").read_text())["checked"] == 6


def test_receipts_that_one_login_has_no_time_for_are_looked_at_by_the_next(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    assert cli("creds", "data-reader").code == 0  # at 4
    folder = kept(cli, broker) / "receipts"
    for seq in range(5, 5 + 2 * RECEIPTS_A_LOGIN):
        receipt = log.receipt(f"iss-{seq}")
        (folder / f"{seq:016}-iss-{seq}.json").write_text(json.dumps(receipt))
        (folder / f"{seq:016}-iss-{seq}.json").chmod(0o600)
    newest = len(log.records)
    looked_at = []
    for _ in range(3):
        log.append()
        log.publish()
        assert log_in(cli).code == 0
        proven = broker.queries("/v1/audit/proof/consistency")
        assert {"from": str(newest), "to": str(len(log.records))} in proven, "the newest, at once"
        looked_at.append(json.loads((kept(cli, broker) / "state").read_text())["checked"])
    assert looked_at == [3 + RECEIPTS_A_LOGIN, 3 + 2 * RECEIPTS_A_LOGIN, newest]


def test_a_receipt_newer_than_the_checkpoint_is_no_alarm(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    cli("creds", "data-reader")
    assert log_in(cli).code == 0
    assert json.loads((kept(cli, broker) / "state").read_text())["checked"] == 0


def test_a_database_restored_from_an_older_dump_is_noticed_by_whoever_holds_a_receipt(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    assert cli("creds", "data-reader").code == 0
    (receipt,) = (kept(cli, broker) / "receipts").iterdir()
    del log.records[3:]  # the record of that issuance is gone, and the checkpoint is an old one
    mistrusts(log_in(cli), "shorter than your receipt's", f"{log.checkpoint()}", " 4 ")
    # The log grows again, past the receipt, with other records.
    for _ in range(4):
        log.append("iss-other")
    log.publish()
    mistrusts(log_in(cli), "does not begin with", f"{log.checkpoint()}")
    assert receipt.exists()


def test_a_receipt_that_is_never_covered_is_noticed(cli: Cli, broker: FakeBroker, log: FakeLog):
    log_in(cli)
    cli("creds", "data-reader")
    (receipt,) = (kept(cli, broker) / "receipts").iterdir()
    long_ago = time.time() - 3600
    os.utime(receipt, (long_ago, long_ago))
    mistrusts(log_in(cli), "shorter than your receipt's")


def shrink(log: FakeLog) -> None:
    log.records.pop()
    log.publish()


def fork(log: FakeLog) -> None:
    log.records[1] = b'{"seq":2,"type":"nothing.happened"}'
    log.append()
    log.publish()


def another_of_the_same_size(log: FakeLog) -> None:
    log.records[1] = b'{"seq":2,"type":"nothing.happened"}'
    log.publish()


def false_signature(log: FakeLog) -> None:
    log.append()
    note = log.checkpoint().signed(FakeLog(seed=1).signer)
    log.published = note.replace("\n4\n", "\n5\n")


def no_signature_of_a_known_key(log: FakeLog) -> None:
    log.published = log.checkpoint().signed(FakeLog(seed=9).signer)


def new_key_out_of_nowhere(log: FakeLog) -> None:
    log.rotate(2, honest=False)
    log.publish()


def no_checkpoint_any_more(log: FakeLog) -> None:
    log.published = None


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        (shrink, ("shorter than it was", "log.example.com 3 ", "log.example.com 2 ")),
        (fork, ("does not begin with", "log.example.com 3 ", "log.example.com 4 ")),
        (another_of_the_same_size, ("two different logs of 3 records",)),
        (false_signature, ("is false",)),
        (no_signature_of_a_known_key, ("no key that is trusted",)),
        (new_key_out_of_nowhere, ("did not sign",)),
        (no_checkpoint_any_more, ("nothing is signed yet",)),
    ],
)
def test_another_past_is_loud_and_exit_code_1(
    cli: Cli, broker: FakeBroker, log: FakeLog, hide, words
):
    log_in(cli)
    seen = (kept(cli, broker) / "state").read_bytes()
    hide(log)
    done = log_in(cli)
    mistrusts(done, *words)
    assert (kept(cli, broker) / "state").read_bytes() == seen
    # Accepting it is a decision of its own, and keeps the evidence.
    log.publish()
    accepted = log_in(cli, "--accept-rollback")
    assert accepted.code == 0, accepted.err
    (aside,) = kept(cli, broker).parent.glob("log-*")
    assert (aside / "state").read_bytes() == seen
    assert log_in(cli).code == 0


def test_a_log_that_is_gone_is_noticed(cli: Cli, broker: FakeBroker, log: FakeLog):
    log_in(cli)
    broker.log = None
    mistrusts(log_in(cli), "no signed log any more")
    done = cli("creds", "data-reader")
    assert (done.code, done.out) == (1, "")
    assert "no receipt" in done.err


def test_a_new_key_is_trusted_when_the_old_one_signed_it(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    cli("creds", "data-reader")
    log.rotate(2)
    log.rotate(3)
    log.append()
    log.publish()
    done = log_in(cli)
    assert done.code == 0, done.err
    assert f"signed by the one you know: {log.signer.key}" in done.err
    assert cli("creds", "data-reader").code == 0
    # A replica that still has the old key, and what it signed before.
    log.signers.pop()
    log.publish()
    assert log_in(cli).code == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"checkpoint": "x"}, "not a signed note"),
        ({"path": []}, "must be"),
        ({"record": '{"seq":4,"subject":{"issuance":"iss-9"}}'}, "is not in the tree"),
        ({"seq": 3}, "proof"),
    ],
)
def test_credentials_with_a_false_receipt_are_not_handed_on(
    cli: Cli, broker: FakeBroker, log: FakeLog, monkeypatch, change: dict[str, object], what: str
):
    log_in(cli)
    honest = log.receipt
    monkeypatch.setattr(log, "receipt", lambda issuance: honest(issuance) | change)
    done = cli("creds", "data-reader")
    assert (done.code, done.out) == (1, "")
    assert what in done.err or "is not in" in done.err


def test_a_receipt_of_another_issuance_is_refused(
    cli: Cli, broker: FakeBroker, log: FakeLog, monkeypatch
):
    log_in(cli)
    honest = log.receipt
    monkeypatch.setattr(log, "receipt", lambda issuance: honest("iss-other"))
    done = cli("creds", "data-reader")
    assert (done.code, done.out) == (1, "")
    assert "another issuance" in done.err


def test_a_damaged_memory_is_not_taken_for_a_first_login(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log_in(cli)
    state = kept(cli, broker) / "state"
    state.write_text("{}")
    assert "is damaged" in log_in(cli).err
    state.chmod(0o644)
    done = log_in(cli)
    assert done.code == 1
    assert "by others" in done.err


def test_a_checkpoint_that_witnesses_cosigned_is_one_like_any_other(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    witness = TestWitness("witness.example.com/w1", 5)
    assert log.published is not None
    log.published += witness.cosign(log.checkpoint().text, 1_790_000_000)
    assert log_in(cli).code == 0
    assert json.loads((kept(cli, broker) / "state").read_text())["checkpoint"] == log.published
    log.append()
    log.publish()
    assert log_in(cli).code == 0


# --- Receipts that a delegate signed -------------------------------------------------------------


def test_a_delegates_receipt_is_kept_and_looked_after_when_the_delegate_is_long_gone(
    cli: Cli, broker: FakeBroker, log: FakeLog
):
    log.certify()
    log_in(cli)
    assert cli("creds", "data-reader").code == 0
    (path,) = (kept(cli, broker) / "receipts").iterdir()
    assert json.loads(path.read_text())["version"] == 2
    log.delegate = log.certificate = None
    log.rotate(5)
    log.append()
    log.publish()
    assert log_in(cli).code == 0
    assert json.loads((kept(cli, broker) / "state").read_text())["checked"] == 4


@pytest.mark.parametrize(
    ("ahead", "ago"),
    [
        (timedelta(minutes=4), timedelta(minutes=1)),
        (-timedelta(minutes=4), timedelta(hours=23, minutes=59)),
    ],
)
def test_a_clock_that_is_a_little_wrong_is_no_alarm(
    cli: Cli, broker: FakeBroker, log: FakeLog, ahead: timedelta, ago: timedelta
):
    """By this machine's the delegate began in three minutes, or ended a while ago."""
    log.now += ahead
    log.certify(ago=ago)
    log_in(cli)
    assert cli("creds", "data-reader").code == 0


def _of_a_stolen_one(log: FakeLog) -> None:
    """Its key was stolen, and dates the record back into its time."""
    log.now -= timedelta(days=2)
    log.certify()


def _certified_by_itself(log: FakeLog) -> None:
    log.certify(TestSigner(delegate_name(ORIGIN), seed=7))


def _without_its_certificate(log: FakeLog) -> None:
    log.certify()
    log.certificate = None


def _with_an_old_certificate(log: FakeLog) -> None:
    today = log.now
    log.now -= timedelta(days=2)
    log.certify()
    log.now = today


@pytest.mark.parametrize(
    "falsify",
    [
        _of_a_stolen_one,
        _certified_by_itself,
        _without_its_certificate,
        _with_an_old_certificate,
        lambda log: log.certify(TestSigner(ORIGIN, seed=9)),
        lambda log: log.certify(origin="other.example.com"),
    ],
)
def test_a_delegates_receipt_that_is_not_to_be_believed_stops_the_command(
    cli: Cli, log: FakeLog, falsify: Callable[[FakeLog], None]
):
    log_in(cli)
    falsify(log)
    done = cli("creds", "data-reader")
    assert done.code == 1
    assert "the receipt is false" in done.err
    assert done.out == ""
