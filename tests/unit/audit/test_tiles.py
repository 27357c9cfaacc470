"""Names and contents of tiles, as C2SP's tlog-tiles has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.tiles import BadTile, Tile, bundle, of_tree, unbundle


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 256), "0/000"),
        (Tile(0, 1234067, 256), "0/x001/x234/067"),
        (Tile(2, 999, 256), "2/999"),
        (Tile(2, 1000, 5), "2/x001/000.p/5"),
        (Tile(None, 273, 112), "entries/273.p/112"),
    ],
)
def test_names(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/0",
        "0/00",
        "0/0000",
        "00/000",
        "64/000",
        "-1/000",
        "0/x000/000",
        "0/x00/000",
        "0/x001/x234",
        "0/000.p",
        "0/000.p/",
        "0/000.p/0",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/999",
        "0/000/",
        "/0/000",
        "0/000.p/5/",
        "0/\u0660\u0660\u0660",
        "entries/../0/000",
        "0/" + "x001/" * 9 + "000",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(BadTile, match=r"^not the path of a tile$"):
        Tile.parse(path)


def test_the_example_of_the_specification() -> None:
    """A tree of 70,000: 273 full tiles and one of 112, one full and one of 17, one of 1."""
    tiles = [tile for tile in of_tree(70_000) if tile.level is not None]
    counted = [(tile.level, tile.width) for tile in tiles if tile.width < 256]
    assert counted == [(0, 112), (1, 17), (2, 1)]
    assert len(tiles) == 273 + 1 + 1 + 1 + 1
    assert all(tile.fits(70_000) for tile in tiles)
    assert [t.path for t in of_tree(256)] == ["0/000", "entries/000", "1/000.p/1"]
    assert of_tree(0) == []


def test_the_highest_level_and_the_narrowest_tile_have_names() -> None:
    assert Tile.parse("63/000.p/255") == Tile(63, 0, 255)
    assert Tile.parse("entries/x999/x999/x999/x999/x999/999.p/1").index == 10**18 - 1


@pytest.mark.parametrize(
    ("tile", "height", "begin", "needs"),
    [
        (Tile(0, 0, 256), 0, 0, 256),
        (Tile(None, 3, 5), 0, 768, 773),
        (Tile(1, 0, 1), 8, 0, 256),
        (Tile(2, 1, 17), 16, 256, 273 << 16),
    ],
)
def test_a_tile_needs_a_tree_that_holds_all_of_it(
    tile: Tile, height: int, begin: int, needs: int
) -> None:
    assert (tile.height, tile.begin) == (height, begin)
    assert tile.fits(needs)
    assert not tile.fits(needs - 1)


def test_every_tile_of_a_tree_in_the_order_of_its_records() -> None:
    assert [tile.path for tile in of_tree(257)] == [
        "0/000", "entries/000", "0/001.p/1", "entries/001.p/1", "1/000.p/1"
    ]  # fmt: skip
    assert [tile.path for tile in of_tree(1)] == ["0/000.p/1", "entries/000.p/1"]


def test_a_bundle_holds_each_record_after_its_length() -> None:
    assert bundle([b"ab", b"", b"x" * 258]) == b"\0\2ab\0\0\1\2" + b"x" * 258
    for cut in (b"\0", b"\0\2a", b"\0\1a\0"):
        with pytest.raises(BadTile, match=r"^the bundle of entries is cut off$"):
            unbundle(cut)


@given(st.lists(st.binary(max_size=300)))
def test_bundles_come_apart_as_they_were_put_together(records: list[bytes]) -> None:
    data = bundle(records)
    assert unbundle(data) == records
    if data and records[-1]:
        with pytest.raises(BadTile):
            unbundle(data[:-1])
    with pytest.raises(BadTile):
        unbundle(data + b"\0")
