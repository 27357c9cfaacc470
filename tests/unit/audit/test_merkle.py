"""The tree against Certificate Transparency's published vectors, and against a naive tree."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import leaf_hash
from broker.audit.merkle import (
    EMPTY_ROOT,
    NO_LEAVES,
    BadProof,
    CompactRange,
    Node,
    TreeBuilder,
    consistency_spans,
    fill,
    inclusion_spans,
    needed,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The entries and roots of Certificate Transparency's reference implementation.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2, word for word."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole=whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], whole=False), naive_root(leaves[:k])]


def many(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def all_nodes(leaves: list[bytes]) -> dict[Node, bytes]:
    return dict(NO_LEAVES.extend(leaves).nodes)


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    grown = NO_LEAVES.extend(LEAVES[:size]).after
    assert grown.size == size
    assert grown.root.hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int) -> None:
    proof = fill(inclusion_spans(index, size), all_nodes(LEAVES))
    assert [one.hex() for one in proof] == INCLUSION[index, size]
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int) -> None:
    proof = fill(consistency_spans(old, new), all_nodes(LEAVES))
    assert [one.hex() for one in proof] == CONSISTENCY[old, new]
    verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


def test_every_small_tree_proves_as_the_rfc_says() -> None:
    leaves = many(20)
    nodes = all_nodes(leaves)
    for size in range(1, 21):
        root = naive_root(leaves[:size])
        for index in range(size):
            proof = fill(inclusion_spans(index, size), nodes)
            assert list(proof) == naive_path(index, leaves[:size])
            verify_inclusion(leaves[index], index, size, proof, root)
        for old in range(1, size + 1):
            proof = fill(consistency_spans(old, size), nodes)
            assert list(proof) == naive_subproof(old, leaves[:size], whole=True)
            verify_consistency(old, size, naive_root(leaves[:old]), root, proof)


@given(st.lists(st.integers(0, 40), max_size=12))
def test_growing_in_batches_is_the_same_tree(batches: list[int]) -> None:
    leaves = many(sum(batches))
    edge, at = NO_LEAVES, 0
    for batch in batches:
        growth = edge.extend(leaves[at : at + batch])
        for index in range(at, at + batch):
            proof = growth.inclusion(index)
            assert list(proof) == naive_path(index, leaves[: at + batch])
        at += batch
        edge = CompactRange.parse(at, growth.after.to_bytes())
        assert edge.root == naive_root(leaves[:at])


def test_the_builder_has_every_root_on_its_way() -> None:
    leaves, builder = many(800), TreeBuilder()
    for size, leaf in enumerate(leaves, 1):
        assert builder.root == NO_LEAVES.extend(leaves[: size - 1]).after.root
        builder.add([leaf])
        assert builder.size == size
    whole = TreeBuilder()
    whole.add(leaves)
    assert whole.root == builder.root


def test_the_roots_of_full_tiles_come_once_each() -> None:
    leaves = many(700)
    edge, found = NO_LEAVES, []
    for at in range(0, 700, 70):
        growth = edge.extend(leaves[at : at + 70])
        found += growth.tile_roots()
        edge = growth.after
    assert found == [
        (Node(8, 0), naive_root(leaves[:256])),
        (Node(8, 1), naive_root(leaves[256:512])),
    ]


def test_growing_costs_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the log's size: about one hash a leaf, and one for each level of the tree."""
    hashed = 0

    def count(left: bytes, right: bytes) -> bytes:
        nonlocal hashed
        hashed += 1
        return node_hash(left, right)

    monkeypatch.setattr("broker.audit.merkle.node_hash", count)
    edge = CompactRange(2**40 - 1, tuple(bytes([n]) * 32 for n in range(40)))
    edge.extend(many(512))
    assert hashed < 512 + 2 * 40


def test_only_leaves_that_were_added_are_proved_by_growth() -> None:
    growth = NO_LEAVES.extend(many(3)).after.extend(many(2))
    for index in (-1, 2, 5):
        with pytest.raises(ValueError, match=rf"^leaf {index} was not added here$"):
            growth.inclusion(index)
    assert list(growth.inclusions([3, 4])) == [3, 4]


@pytest.mark.parametrize(
    ("size", "data"), [(-1, b""), (0, bytes(32)), (3, bytes(32)), (3, bytes(63)), (2, bytes(64))]
)
def test_an_edge_of_another_size_is_refused(size: int, data: bytes) -> None:
    text = f"{len(data)} bytes are not the edge of a tree of {size} leaves"
    with pytest.raises(ValueError, match=f"^{text}$"):
        CompactRange.parse(size, data)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 700])
def test_an_edge_is_stored_as_its_hashes_and_comes_back(size: int) -> None:
    edge = NO_LEAVES.extend(many(size)).after
    stored = edge.to_bytes()
    assert stored == b"".join(edge.hashes)
    assert CompactRange.parse(size, stored) == edge
    assert edge.root == naive_root(many(size))


@pytest.mark.parametrize("before", [0, 1, 255, 256, 257, 511])
def test_a_tile_that_was_full_before_is_not_named_again(before: int) -> None:
    growth = NO_LEAVES.extend(many(before)).after.extend(many(513)[before:])
    assert [node.place for node, _ in growth.tile_roots()] == [0, 1][before // 256 :]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600])
def test_the_builder_has_the_root_of_what_it_was_given(size: int) -> None:
    builder = TreeBuilder()
    builder.add(many(size)[:9])
    builder.add(many(size)[9:])
    assert (builder.size, builder.root) == (size, naive_root(many(size)))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (3, 3), (9, 3)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"^a tree of {size} leaves has no leaf {index}$"):
        inclusion_spans(index, size)
    text = f"^a tree of {size} records has no record {index + 1}$"
    with pytest.raises(BadProof, match=text):
        verify_inclusion(bytes(32), index, size, [], bytes(32))


def test_a_log_does_not_shrink() -> None:
    for old, new in ((5, 4), (-1, 4)):
        text = f"^a tree of {new} leaves does not grow from one of {old}$"
        with pytest.raises(ValueError, match=text):
            consistency_spans(old, new)
        with pytest.raises(BadProof, match=f"^the log shrank from {old} records to {new}$"):
            verify_consistency(old, new, bytes(32), bytes(32), [])


def test_equal_and_empty_trees() -> None:
    root = naive_root(many(5))
    verify_consistency(5, 5, root, root, [])
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    verify_consistency(0, 5, EMPTY_ROOT, root, [])
    with pytest.raises(BadProof, match=r"^there are two different logs of 5 records$"):
        verify_consistency(5, 5, root, bytes(32), [])
    with pytest.raises(BadProof, match=r"^the root of the empty log is another$"):
        verify_consistency(0, 5, root, root, [])
    for old, new in ((5, 5), (0, 5)):
        with pytest.raises(BadProof, match=r"^the proof must be 0 hashes of 32 bytes$"):
            verify_consistency(old, new, root, root, [bytes(32)])


mutations = st.sampled_from(
    [
        lambda proof: proof[:-1],
        lambda proof: [*proof, bytes(32)],
        lambda proof: proof[::-1] if proof[::-1] != proof else [*proof, proof[0]],
        lambda proof: [proof[0][:-1], *proof[1:]],
        lambda proof: [*proof[:-1], bytes([proof[-1][0] ^ 1]) + proof[-1][1:]],
        lambda proof: [bytes([proof[0][0] ^ 128]) + proof[0][1:], *proof[1:]],
    ]
)


@given(st.integers(2, 300), st.data(), mutations)
def test_a_changed_inclusion_proof_is_refused(
    size: int, data: st.DataObject, mutate: Callable[[list[bytes]], list[bytes]]
) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = many(size)
    growth = NO_LEAVES.extend(leaves)
    proof, root = list(growth.inclusion(index)), growth.after.root
    verify_inclusion(leaves[index], index, size, proof, root)
    for changed_index in {index ^ 1, 0, size - 1} - {index}:
        with pytest.raises(BadProof):
            verify_inclusion(leaves[index], changed_index, size, proof, root)
    text = f"^record {index + 1} is not in the tree of {size} records$"
    with pytest.raises(BadProof, match=text):
        verify_inclusion(leaves[index][::-1], index, size, proof, root)
    with pytest.raises(BadProof):
        verify_inclusion(leaves[index], index, size, mutate(proof), root)


@given(st.integers(2, 300), st.data(), mutations)
def test_a_changed_consistency_proof_is_refused(
    new: int, data: st.DataObject, mutate: Callable[[list[bytes]], list[bytes]]
) -> None:
    old = data.draw(st.integers(1, new - 1))
    growth = NO_LEAVES.extend(many(new))
    proof = list(fill(consistency_spans(old, new), growth.nodes))
    old_root = naive_root(many(old))
    verify_consistency(old, new, old_root, growth.after.root, proof)
    for roots in ((bytes(32), growth.after.root), (old_root, bytes(32))):
        text = f"^the log of {new} records does not begin with that of {old} records$"
        with pytest.raises(BadProof, match=text):
            verify_consistency(old, new, *roots, proof)
    with pytest.raises(BadProof):
        verify_consistency(old, new, old_root, growth.after.root, mutate(proof))


@given(st.integers(1, 1000), st.data())
def test_a_proof_needs_few_nodes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    assert len(needed(inclusion_spans(index, size))) <= 2 * size.bit_length()
