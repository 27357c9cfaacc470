"""Makes the golden files of receipts that delegates signed, and of cosigned checkpoints.

They stand beside those of `make_audit` and are of the same log. As there: run once, for
ever kept. Keys are from fixed seeds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, succession
from broker.audit.delegate import Certificate, delegate_name
from broker.audit.merkle import NO_LEAVES
from broker.audit.note import VerifierKey, sign
from broker.audit.receipt import Receipt
from tests.golden.make_audit import FOLDER, NEW, NOON, OLD, THIEF, checkpoint, records
from tests.unit.audit.keys import ORIGIN, TestSigner, TestWitness

OTHER = TestSigner("other.example.com", seed=1)
DELEGATE = TestSigner(delegate_name(ORIGIN), seed=4)
STRAY = TestSigner(delegate_name(OTHER.key.name), seed=4)
FIRST, SECOND = TestWitness("witness.example.com/w1", 5), TestWitness("w2.example.org", 6)
DAY = timedelta(hours=24)
SEEN_AT = int(datetime(2026, 11, 24, 12, 10, tzinfo=UTC).timestamp())
SEQ, SIZE = 7, 120


def certificate(
    *,
    origin: str = ORIGIN,
    key: VerifierKey = DELEGATE.key,
    begins: datetime = NOON,
    ends: datetime = NOON + DAY,
) -> Certificate:
    return Certificate(origin, key, begins, ends)


class Maker:
    def __init__(self) -> None:
        self.cases: list[dict[str, object]] = []
        self.rows = records(300)
        growth = NO_LEAVES.extend(leaf_hash(row) for row in self.rows[:SIZE])
        head = checkpoint(self.rows, SIZE)
        self.head = head
        self.receipt = Receipt(
            SEQ,
            self.rows[SEQ - 1],
            growth.inclusion(SEQ - 1),
            head.signed(DELEGATE),
            certificate().signed(OLD),
        )

    def write(self, name: str, data: str) -> str:
        (FOLDER / name).write_bytes(data.encode())
        return name

    def case(
        self,
        says: str,
        *,
        key: TestSigner | None = OLD,
        checkpoints: tuple[str, ...] = (),
        receipts: tuple[str, ...] = (),
        witnesses: tuple[TestWitness, ...] = (),
    ) -> None:
        self.cases.append(
            {
                "source": "good.jsonl",
                "says": says,
                "key": None if key is None else str(key.key),
                "checkpoints": list(checkpoints),
                "receipts": list(receipts),
                "witnesses": [str(witness.key) for witness in witnesses],
            }
        )

    def refused(self, name: str, **changes: str | None) -> None:
        """A receipt of a delegate that nobody may believe."""
        receipt = replace(self.receipt, **changes)  # type: ignore[arg-type]  # its members
        made = json.dumps(receipt.as_json(), ensure_ascii=False)
        self.case("not authentic", receipts=(self.write(f"delegated-{name}.json", made),))

    def delegates(self) -> None:
        good = self.write(
            "delegated-7.json", json.dumps(self.receipt.as_json(), ensure_ascii=False)
        )
        self.case("authentic", receipts=(good,))
        self.case("internally consistent", key=None, receipts=(good,))
        self.case("not authentic", key=NEW, receipts=(good,))
        rotated = replace(self.receipt, certificate=certificate().signed(NEW)).as_json()
        after = self.write("delegated-7-new-key.json", json.dumps(rotated, ensure_ascii=False))
        self.case("authentic", key=NEW, receipts=(after,))
        self.case("not authentic", key=OLD, receipts=(after,))

        of_record = NOON + timedelta(seconds=SEQ)
        for name, begins, ends in (
            ("expired", of_record - DAY, of_record),
            ("not-yet", of_record + timedelta(seconds=1), of_record + DAY),
        ):
            made = certificate(begins=begins, ends=ends)
            self.refused(name, certificate=made.signed(OLD))
        stray = certificate(origin=OTHER.key.name, key=STRAY.key)
        other_head = replace(self.head, origin=OTHER.key.name)
        self.refused("other-origin", certificate=stray.signed(OTHER))
        self.refused("other-origin-by-this-key", certificate=stray.signed(OLD))
        self.refused(
            "head-of-other-origin",
            certificate=stray.signed(OLD),
            checkpoint=other_head.signed(STRAY),
        )
        self.refused("head-of-other-origin-same-delegate", checkpoint=other_head.signed(DELEGATE))
        self.refused("self-certified", certificate=certificate().signed(DELEGATE))
        self.refused("by-a-thief", certificate=certificate().signed(THIEF))
        self.refused("head-by-the-log", checkpoint=self.head.signed(OLD))
        self.refused("head-by-a-thief", checkpoint=self.head.signed(THIEF))
        self.refused("no-certificate", certificate=None)
        self.refused("checkpoint-for-certificate", certificate=self.head.signed(OLD))
        self.refused("succession-for-certificate", certificate=succession(ORIGIN, OLD, DELEGATE))
        text = certificate().text
        later = text.replace("until 2026-11-25", "until 2026-11-26")
        self.refused("too-long", certificate=sign(later, OLD))
        self.refused(
            "no-time", certificate=sign(text.replace("2026-11-25T12", "2026-11-24T12"), OLD)
        )
        self.refused("respelt", certificate=sign(text.replace("\nuntil ", "\nuntil  "), OLD))
        self.refused("time-respelt", certificate=sign(text.replace("T12:00:00Z", "T12:0:00Z"), OLD))
        self.refused("more-lines", certificate=sign(f"{text}more\n", OLD))
        named = text.replace(str(DELEGATE.key), str(TestSigner(seed=4).key))
        self.refused("named-like-the-log", certificate=sign(named, OLD))
        signed = certificate().signed(OLD)
        self.refused(
            "falsely-signed", certificate=signed.replace("T12:00:00Z\n", "T11:00:00Z\n", 1)
        )

        for name, note in (
            ("certificate-for-checkpoint", signed),
            ("delegate-for-checkpoint", checkpoint(self.rows, 250).signed(DELEGATE)),
        ):
            self.case("not authentic", checkpoints=(self.write(f"{name}.note", note),))

    def cosigned(self) -> None:
        head = checkpoint(self.rows, 250)
        note = head.signed(OLD)
        one = note + FIRST.cosign(head.text, SEEN_AT)
        both = one + SECOND.cosign(head.text, SEEN_AT + 1)
        once = self.write("good.checkpoint-250-cosigned", one)
        twice = self.write("good.checkpoint-250-cosigned-twice", both)
        plain = "good.checkpoint-250"
        for name in (once, twice):
            self.case("authentic", checkpoints=(name,))
            self.case("internally consistent", key=None, checkpoints=(name,))
            self.case("authentic", checkpoints=(name,), witnesses=(FIRST,))
        self.case("authentic", checkpoints=(twice,), witnesses=(SECOND, FIRST))
        self.case("not authentic", checkpoints=(once,), witnesses=(FIRST, SECOND))
        self.case("not authentic", checkpoints=(plain,), witnesses=(FIRST,))
        self.case("not authentic", checkpoints=(once, plain), witnesses=(FIRST,))
        self.case("not authentic", key=NEW, checkpoints=(once,), witnesses=(FIRST,))

        other = Checkpoint(ORIGIN, 250, bytes(32))
        late = FIRST.cosign(head.text, SEEN_AT, written=SEEN_AT + 1)
        for name, line in (
            ("other-time", late),
            ("other-head", FIRST.cosign(other.text, SEEN_AT)),
            ("by-a-thief", TestWitness(FIRST.key.name, 7).cosign(head.text, SEEN_AT, as_of=FIRST)),
            ("cut", FIRST.cosign(head.text, SEEN_AT, cut=1)),
            ("endless-time", FIRST.cosign(head.text, 2**63)),
        ):
            false = self.write(f"cosigned-{name}.note", note + line)
            self.case("not authentic", checkpoints=(false,), witnesses=(FIRST,))
            self.case("authentic", checkpoints=(false,))
        # A witness's key that signs as if it were a log's is another key.
        log_like = TestSigner(FIRST.key.name, 5)
        as_log = self.write("cosigned-as-a-log.note", sign(head.text, OLD, log_like))
        self.case("not authentic", checkpoints=(as_log,), witnesses=(FIRST,))
        alone = head.text + "\n" + FIRST.cosign(head.text, SEEN_AT)
        unsigned = self.write("cosigned-alone.note", alone)
        self.case("not authentic", checkpoints=(unsigned,), witnesses=(FIRST,))


def main() -> None:
    maker = Maker()
    maker.delegates()
    maker.cosigned()
    path = Path(FOLDER / "cases-delegates.json")
    path.write_text(json.dumps(maker.cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
