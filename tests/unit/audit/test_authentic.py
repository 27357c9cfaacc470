"""A log held against what was signed of it, and a directory of tiles read whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker.audit.authentic import Evidence, TreeVerification, verify_tiles
from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint
from broker.audit.merkle import NO_LEAVES
from broker.audit.note import BadNote
from broker.audit.receipt import Receipt
from broker.audit.tiles import Tile, bundle, of_tree
from broker.audit.verify import Problem
from tests.unit.audit.keys import ORIGIN, TestSigner

SIGNER = TestSigner()
SIZE = 600  # two tiles and a part of one
RECORDS = [b'{"seq":%d}' % seq for seq in range(1, SIZE + 1)]
LEAVES = [leaf_hash(record) for record in RECORDS]
NO_RECEIPTS: tuple[Receipt, ...] = ()


def root(size: int) -> bytes:
    return NO_LEAVES.extend(LEAVES[:size]).after.root


def signed(size: int) -> str:
    return Checkpoint(ORIGIN, size, root(size)).signed(SIGNER)


def receipt(seq: int, size: int = SIZE) -> Receipt:
    growth = NO_LEAVES.extend(LEAVES[:size])
    return Receipt(seq, RECORDS[seq - 1], growth.inclusion(seq - 1), signed(size))


ROOTS = {size: root(size) for size in (0, 3, 5, 9, SIZE)}


def evidence(*sizes: int, receipts: tuple[Receipt, ...] = NO_RECEIPTS) -> Evidence:
    return Evidence.read([signed(size) for size in sizes], receipts, [SIGNER.key])


def test_what_is_read_says_where_to_look() -> None:
    kept = (receipt(7, 300), receipt(2))
    read = evidence(9, 3, receipts=kept)
    assert read == Evidence(
        tuple(Checkpoint(ORIGIN, size, root(size)) for size in (3, 9, 300, SIZE)), kept, True
    )
    assert (read.sizes, read.numbers, read.covered) == ({3, 9, 300, SIZE}, {2, 7}, SIZE)
    nothing = Evidence.read([], [], [])
    assert (nothing.sizes, nothing.numbers, nothing.covered) == (set(), set(), 0)
    assert nothing == Evidence((), (), False)


def test_without_a_key_notes_and_receipts_are_claims() -> None:
    stranger = TestSigner(seed=9)
    note = Checkpoint(ORIGIN, 3, root(3)).signed(stranger)
    claimed = replace(receipt(1, 3), checkpoint=note)
    assert Evidence.read([note], [claimed], []) == replace(
        evidence(3, 3), receipts=(claimed,), signed=False
    )
    with pytest.raises(BadNote):
        Evidence.read([note], [], [SIGNER.key])
    with pytest.raises(BadNote):
        Evidence.read([], [claimed], [SIGNER.key])


def test_a_log_that_is_what_was_signed_has_no_problem() -> None:
    read = evidence(0, 3, 9, SIZE, receipts=(receipt(2), receipt(SIZE)))
    leaves = {2: LEAVES[1], SIZE: LEAVES[-1]}
    assert read.problem(SIZE, ROOTS, leaves) is None
    assert read.problem(SIZE, ROOTS, {}) is None, "numbers that an export leaves out"


def test_a_log_that_ends_too_early_is_said_to() -> None:
    what = "the log ends before it, and the checkpoint is of 9 records"
    assert evidence(3, 9, SIZE).problem(5, ROOTS, {}) == Problem(6, what)
    assert evidence(9).problem(9, ROOTS, {}) is None


@pytest.mark.parametrize(
    ("forged", "first", "size"), [({3}, 1, 3), ({9}, 4, 9), ({3, 9}, 1, 3), ({SIZE}, 10, SIZE)]
)
def test_another_root_lies_after_the_last_good_one(forged: set[int], first: int, size: int) -> None:
    roots = {**ROOTS, **{one: bytes(32) for one in forged}}
    checkpoint = Checkpoint(ORIGIN, size, root(size))
    what = f"somewhere from here to {size} is not what the checkpoint {checkpoint} says"
    assert evidence(3, 9, SIZE).problem(SIZE, roots, {}) == Problem(first, what)


def test_a_record_that_is_not_the_receipts_is_named() -> None:
    what = "it is not the record that the receipt holds"
    leaves = {2: bytes(32), 7: bytes(32), 8: LEAVES[7]}
    read = evidence(3, receipts=(receipt(8), receipt(7), receipt(2)))
    roots = {**ROOTS, 3: bytes(32)}
    assert read.problem(SIZE, ROOTS, leaves) == Problem(2, what)
    # The first record that is wrong is told, whatever shows it.
    found = read.problem(SIZE, roots, leaves)
    assert found is not None
    assert found.seq == 1


# --- A directory of tiles ------------------------------------------------------------------


def directory(records: list[bytes] = RECORDS) -> dict[str, bytes]:
    """The files of a log, by their paths under `tile/`."""
    leaves = [leaf_hash(record) for record in records]
    nodes = NO_LEAVES.extend(leaves).nodes
    files = {}
    for tile in of_tree(len(records)):
        places = range(tile.begin, tile.begin + tile.width)
        if tile.level is None:
            files[tile.path] = bundle(records[places.start : places.stop])
        else:
            hashes = {(n.height, n.place): value for n, value in nodes.items()}
            files[tile.path] = b"".join(hashes[tile.height, place] for place in places)
    return files


def read(files: dict[str, bytes], size: int = SIZE, **asked: Any) -> TreeVerification:
    return verify_tiles(files.get, size, **({"sizes": (), "numbers": ()} | asked))


def test_a_whole_directory_is_good_with_or_without_its_tiles_of_hashes() -> None:
    files = directory()
    assert set(files) == {
        "entries/000", "entries/001", "entries/002.p/88",
        "0/000", "0/001", "0/002.p/88", "1/000.p/2",
    }  # fmt: skip
    bundles = {path: data for path, data in files.items() if path.startswith("entries")}
    for held in (files, bundles):
        assert read(held, sizes=[3, 300], numbers=[1, 257, SIZE]) == TreeVerification(
            SIZE,
            None,
            {
                0: root(0),
                3: root(3),
                256: root(256),
                300: root(300),
                512: root(512),
                SIZE: root(SIZE),
            },
            {1: LEAVES[0], 257: LEAVES[256], SIZE: LEAVES[-1]},
        )
    assert read({}, 0) == TreeVerification(0, None, {0: root(0)}, {})


def without(path: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        del files[path]

    return change


def swapped(path: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({path: data})


def hashes(tile: Tile) -> bytes:
    return directory()[tile.path]


SECOND, SECOND_HASHES, UPPER = "entries/001", Tile(0, 1, 256), Tile(1, 0, 2)
FLIPPED = bytes(32) + hashes(SECOND_HASHES)[32:]


@pytest.mark.parametrize(
    ("change", "records", "seq", "what"),
    [
        (without(SECOND), 256, 257, "the tile entries/001 is missing"),
        (swapped(SECOND, b"x"), 256, 257, "the bundle of entries is cut off"),
        (
            swapped(SECOND, bundle(RECORDS[256:511])),
            256,
            257,
            "the tile entries/001 holds 255 records",
        ),
        (
            swapped(SECOND, bundle([*RECORDS[256:300], b'{"seq":1}', *RECORDS[301:512]])),
            300,
            301,
            "the record does not match its hash in the tile",
        ),
        (
            swapped(SECOND_HASHES.path, FLIPPED),
            256,
            257,
            "the record does not match its hash in the tile",
        ),
        (
            swapped(SECOND_HASHES.path, hashes(SECOND_HASHES) + bytes(32)),
            512,
            257,
            "the tile of hashes has another width",
        ),
        (
            swapped(UPPER.path, hashes(UPPER)[::-1]),
            SIZE,
            1,
            "the tile 1/000.p/2 is not over the records",
        ),
    ],
)
def test_what_is_wrong_with_a_directory_is_told_with_its_first_record(
    change: Callable[[dict[str, bytes]], None], records: int, seq: int, what: str
) -> None:
    files = directory()
    change(files)
    found = read(files)
    assert (found.records, found.problem) == (records, Problem(seq, what))


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (b'{"seq":3}', "the record says it is number 3"),
        (b"{}", "the record has no sequence number"),
        (b"{", "the record is not well-formed JSON"),
        (b"\xff", "the record is not UTF-8"),
    ],
)
def test_a_record_in_a_tile_has_the_number_of_its_place(record: bytes, what: str) -> None:
    records = [RECORDS[0], record, RECORDS[2]]
    assert read(directory(records), 3).problem == Problem(2, what)
