"""Stored versions of the access policy."""

from __future__ import annotations

import hashlib

import pytest

from broker.errors import PreconditionFailed
from tests.store.stores import Stores


async def test_versions_count_from_one_and_keep_the_exact_text(stores: Stores) -> None:
    assert await stores.access.current_policy() is None
    text = "version: 1\r\n# Zürich\r\n"
    first = await stores.apply(text=text)
    assert first.number == 1
    assert first.text == text
    assert first.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert first.applied_by == "p-admin"
    assert await stores.access.current_policy() == first
    second = await stores.apply(expected=1)
    assert await stores.access.current_policy() == second
    versions = [record["detail"]["version"] for record in await stores.records()]
    assert versions == [1, 2]


@pytest.mark.parametrize("expected", [0, 2, 99])
async def test_who_read_another_version_changes_nothing(stores: Stores, expected: int) -> None:
    await stores.apply()
    before = await stores.everything()
    with pytest.raises(PreconditionFailed, match="version 1"):
        await stores.apply("corp/mallory@example.com", expected=expected)
    assert await stores.everything() == before
