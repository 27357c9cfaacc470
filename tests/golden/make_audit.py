"""Makes tests/golden/audit, the files that must verify, or be found broken, for ever.

Run once for a new version of the format; the files are never made anew for the
one they are of, or they would prove nothing. Keys are from fixed seeds.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.audit.chain import GENESIS, chain_hash, leaf_hash
from broker.audit.checkpoint import Checkpoint, succession
from broker.audit.merkle import NO_LEAVES, TILE_WIDTH
from broker.audit.receipt import Receipt
from broker.audit.record import Actor, Event, EventType, Outcome, to_record
from broker.audit.tiles import bundle, of_tree
from broker.audit.verify import export_line
from tests.unit.audit.keys import ORIGIN, TestSigner

FOLDER = Path(__file__).parent / "audit"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TEXTS = ["plain", 'quo"ted \\ back', "línea \u2028 \U0001f511", "\x01\n\t\x7f", "", "</x>"]
OLD, NEW, THIEF = TestSigner(seed=1), TestSigner(seed=2), TestSigner(seed=3)


def records(count: int, *, text: str | None = None) -> list[bytes]:
    made = []
    for seq in range(1, count + 1):
        kind = EventType.ISSUANCE_ISSUED if seq % 2 else EventType.ISSUANCE_REQUESTED
        words = text if text is not None and seq == 5 else TEXTS[seq % len(TEXTS)]
        event = Event(
            kind,
            Actor("p-abcdefghij234567", "person", words, "192.0.2.1", "broker/1"),
            Outcome.SUCCESS,
            {"issuance": f"iss-{seq}", "principal": "p-abcdefghij234567"},
            {"reason": words, "limits": [{"name": "requested", "seconds": 3600}], "ok": True},
            f"req-{seq}",
        )
        made.append(to_record(event, seq, NOON + timedelta(seconds=seq)))
    return made


def export(rows: list[bytes]) -> bytes:
    chain, lines = GENESIS, []
    for row in rows:
        leaf = leaf_hash(row)
        chain = chain_hash(chain, leaf)
        lines.append(export_line(row, leaf, chain))
    return b"".join(lines)


def checkpoint(rows: list[bytes], size: int) -> Checkpoint:
    leaves = [leaf_hash(row) for row in rows[:size]]
    return Checkpoint(ORIGIN, size, NO_LEAVES.extend(leaves).after.root)


def receipt(rows: list[bytes], seq: int, size: int) -> str:
    growth = NO_LEAVES.extend(leaf_hash(row) for row in rows[:size])
    note = checkpoint(rows, size).signed(OLD)
    made = Receipt(seq, rows[seq - 1], growth.inclusion(seq - 1), note)
    return json.dumps(made.as_json(), ensure_ascii=False)


def tiles(folder: Path, rows: list[bytes]) -> None:
    leaves = [leaf_hash(row) for row in rows]
    for tile in of_tree(len(rows)):
        part = slice(tile.begin, tile.begin + tile.width)
        if tile.level is None:
            data = bundle(rows[part])
        elif tile.level == 0:
            data = b"".join(leaves[part])
        else:
            spans = [leaves[n * TILE_WIDTH : (n + 1) * TILE_WIDTH] for n in range(tile.width)]
            data = b"".join(NO_LEAVES.extend(span).after.root for span in spans)
        path = folder / "tile" / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> None:
    cases: list[dict[str, object]] = []

    def write(name: str, data: bytes | str) -> str:
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return name

    def case(
        source: str,
        *,
        says: str,
        key: TestSigner | None = None,
        checkpoints: tuple[str, ...] = (),
        receipts: tuple[str, ...] = (),
    ) -> None:
        one = {"source": source, "says": says, "key": str(key.key) if key else None}
        cases.append(one | {"checkpoints": list(checkpoints), "receipts": list(receipts)})

    rows = records(300)
    whole = export(rows)
    lines = whole.splitlines(keepends=True)
    write("good.jsonl", whole)
    signed = write("good.checkpoint-250", checkpoint(rows, 250).signed(OLD))
    all_signed = write("good.checkpoint-300", checkpoint(rows, 300).signed(OLD))
    rotated = write("good.checkpoint-300-new-key", checkpoint(rows, 300).signed(NEW))
    empty_signed = write("empty.checkpoint", Checkpoint(ORIGIN, 0, NO_LEAVES.root).signed(OLD))
    write("succession", succession(ORIGIN, OLD, NEW))
    given = write("receipt-7.json", receipt(rows, 7, 120))
    consistent, authentic = "internally consistent", "authentic"

    case("good.jsonl", says=consistent)
    case("good.jsonl", says=consistent, checkpoints=(signed,))
    case("good.jsonl", says=authentic, key=OLD, checkpoints=(signed,))
    case("good.jsonl", says=authentic, key=OLD, checkpoints=(signed, all_signed))
    case("good.jsonl", says=authentic, key=NEW, checkpoints=(rotated,))
    case("good.jsonl", says=authentic, key=OLD, receipts=(given,))
    case("good.jsonl", says=authentic, key=OLD, checkpoints=(empty_signed,))
    case("good.jsonl", says="not authentic", key=THIEF, checkpoints=(signed,))
    case("good.jsonl", says="not authentic", key=OLD, checkpoints=(rotated,))
    false = (FOLDER / signed).read_text().replace("\n250\n", "\n251\n")
    case(
        "good.jsonl", says="not authentic", key=OLD, checkpoints=(write("false.checkpoint", false),)
    )
    case("good.jsonl", says="broken at seq 251", checkpoints=(write("lie.checkpoint",
        Checkpoint(ORIGIN, 280, bytes(32)).signed(THIEF)), signed))  # fmt: skip
    write("empty.jsonl", b"")
    case("empty.jsonl", says=consistent)
    case("empty.jsonl", says="broken at seq 1", key=OLD, checkpoints=(signed,))

    def broken(name: str, data: bytes, seq: int) -> None:
        case(write(name, data), says=f"broken at seq {seq}")

    lines = lines[:60]
    short = b"".join(lines)
    broken("flipped.jsonl", short.replace(b"req-47\\", b"req-48\\"), 47)
    broken("dropped.jsonl", b"".join(lines[:41] + lines[42:]), 42)
    broken("doubled.jsonl", b"".join(lines[:42] + lines[41:]), 43)
    broken("swapped.jsonl", b"".join([*lines[:9], lines[10], lines[9], *lines[11:]]), 10)
    broken("inserted.jsonl", b"".join([*lines[:5], lines[50], *lines[5:]]), 6)
    broken("cut-line.jsonl", short[:-1], 60)
    broken("respelt.jsonl", short.replace(b'"leaf": ', b'"leaf":  ', 1), 1)
    broken("carriage-returns.jsonl", short.replace(b"\n", b"\r\n"), 1)
    for name, forged in (
        ("duplicate-member", b'{"a":{"x":1,"x":2},"seq":1}'),
        ("fraction", b'{"a":1.5,"seq":1}'),
        ("exponent", b'{"a":1e3,"seq":1}'),
        ("not-a-number", b'{"a":NaN,"seq":1}'),
        ("wrong-number", b'{"seq":2}'),
        ("no-number", b'{"v":1}'),
        ("true-number", b'{"seq":true}'),
        ("array", b'[{"seq":1}]'),
        ("space-after", b'{"seq":1} '),
        ("space-before", b' {"seq":1}'),
        ("no-json", b"seq"),
        ("nothing", b""),
    ):
        broken(f"forged-{name}.jsonl", export([forged]), 1)

    # What only a signature shows.
    cut = write("truncated.jsonl", b"".join(whole.splitlines(keepends=True)[:249]))
    case(cut, says=consistent)
    case(cut, says="broken at seq 250", key=OLD, checkpoints=(signed,))
    other = records(300, text="another reason")
    forked = write("forked.jsonl", export(other))
    case(forked, says=consistent)
    case(forked, says="broken at seq 1", key=OLD, checkpoints=(signed,))
    case(forked, says="broken at seq 1", key=OLD, receipts=(given,))
    changed = write("receipt-5-other.json", receipt(other, 5, 120))
    case("good.jsonl", says="broken at seq 1", key=OLD, receipts=(changed,))
    bad = json.loads((FOLDER / given).read_text())
    bad["path"][0] = "00" * 32
    case("good.jsonl", says="not authentic", key=OLD,
        receipts=(write("receipt-bad-path.json", json.dumps(bad)),))  # fmt: skip
    bad = json.loads((FOLDER / given).read_text())
    bad["seq"] = 8
    case("good.jsonl", says="not authentic", key=OLD,
        receipts=(write("receipt-bad-seq.json", json.dumps(bad)),))  # fmt: skip

    for name in ("tiles", "tiles-flipped", "tiles-missing"):
        tiles(FOLDER / name, rows)
        write(f"{name}/checkpoint", checkpoint(rows, 300).signed(OLD))
    spot = FOLDER / "tiles-flipped/tile/entries/001.p/44"
    spot.write_bytes(spot.read_bytes().replace(b"req-280", b"req-281"))
    (FOLDER / "tiles-missing/tile/entries/000").unlink()
    case("tiles", says=consistent)
    case("tiles", says=authentic, key=OLD)
    case("tiles", says="not authentic", key=NEW)
    case("tiles-flipped", says="broken at seq 280", key=OLD)
    case("tiles-missing", says="broken at seq 1", key=OLD)
    write("cases.json", json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
