"""The formulas of the chain, against values computed by hand with another tool."""

from broker.audit.chain import GENESIS, chain_hash, leaf_hash


def test_the_leaf_of_nothing_is_rfc_6962s() -> None:
    # The hash of an empty leaf, as every RFC 6962 implementation has it among its tests.
    assert (
        leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )


def test_the_chain_covers_order_and_all_before() -> None:
    a, b = leaf_hash(b"a"), leaf_hash(b"b")
    one = chain_hash(GENESIS, a)
    assert one != a
    assert chain_hash(one, b) != chain_hash(chain_hash(GENESIS, b), a)
    # printf '02%064d%s' 0 "$(printf '\0a' | sha256sum | cut -c1-64)" | xxd -r -p | sha256sum
    assert one.hex() == "1eb352ec7f1db03e8302fbb988e4279190968cbf0e62ac424bb93b1589ac17ba"
