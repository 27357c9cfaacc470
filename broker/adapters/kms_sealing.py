"""The sealing ring whose keys are wrapped by AWS KMS.

Owns how data keys are made, wrapped and opened. Each is made by KMS, bound by its
encryption context to this use and to its own id, kept wrapped in the database
(`store/sealing_keys`), and in the clear in the memory of server processes alone:
KMS is asked when a process starts, not for each secret. What secrets are bound
to is as in every ring (`sealing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.adapters.key_place import KmsReference
from broker.adapters.kms import KmsFault, KmsKey
from broker.adapters.sealing import FileKeyRing, KeyRing, new_key_id
from broker.adapters.store.sealing_keys import SqlSealingKeys, WrappedKey
from broker.errors import StartupError


async def load(reference: KmsReference, profile: str | None, store: SqlSealingKeys) -> KeyRing:
    """Raises StartupError, which names the cure."""
    kept = await store.all()
    if not kept:
        raise StartupError(
            "the database holds no sealing keys of KMS yet: run `broker migrate`, or, where a key"
            f" file sealed so far, `broker keys rotate --to {reference}`"
        )
    for one in kept:
        # Of every one: whoever writes the database could else add a key of their own, wrapped by a
        # key of KMS in an account of theirs, and seal what they like under it.
        if one.reference != str(reference):
            raise StartupError(
                f"the sealing keys are wrapped by {one.reference}: set [keys] sealing to that, or"
                f" move on from there with `broker keys rotate --to {reference}`"
            )
    keys = await asyncio.to_thread(_unwrap, kept, reference, profile)
    return KeyRing(kept[-1].id, {key_id: AESGCM(key) for key_id, key in keys.items()})


async def create(reference: KmsReference, profile: str | None, store: SqlSealingKeys) -> None:
    """The first data key, where nothing is sealed yet. Raises StartupError."""
    await store.begin([await asyncio.to_thread(_new_key, reference, profile)])


async def rotate(reference: KmsReference, profile: str | None, store: SqlSealingKeys) -> None:
    """Add a data key, and make it the current one. Raises StartupError."""
    if not await store.all():
        raise StartupError("the database holds no sealing keys of KMS yet: run `broker migrate`")
    await store.add(await asyncio.to_thread(_new_key, reference, profile))


async def move(
    old: KmsReference,
    old_profile: str | None,
    new: KmsReference,
    profile: str | None,
    store: SqlSealingKeys,
) -> None:
    """Wrap all keys by another key of KMS, and add a new one as the current: nothing needs the
    old key of KMS any more. Raises StartupError.
    """
    kept = await store.all()
    keys = await asyncio.to_thread(_unwrap, kept, old, old_profile)
    await store.replace(await asyncio.to_thread(_wrap_all, keys, new, profile))


async def move_file(
    path: Path, reference: KmsReference, profile: str | None, store: SqlSealingKeys
) -> None:
    """Wrap the keys of a ring in a file, and add a new one as the current. Raises StartupError."""
    _, keys = FileKeyRing.keys_in(path)
    await store.begin(await asyncio.to_thread(_wrap_all, keys, reference, profile))


def _wrap_all(
    keys: Mapping[str, bytes], reference: KmsReference, profile: str | None
) -> list[WrappedKey]:
    try:
        kms = KmsKey.open(reference, profile=profile)
        moved = [
            WrappedKey(key_id, str(reference), kms.wrap(key, _context(key_id)))
            for key_id, key in keys.items()
        ]
    except KmsFault as fault:
        raise _unusable(fault) from fault
    return [*moved, _new_key(reference, profile)]


def _new_key(reference: KmsReference, profile: str | None) -> WrappedKey:
    key_id = new_key_id()
    try:
        _, wrapped = KmsKey.open(reference, profile=profile).generate_data_key(_context(key_id))
    except KmsFault as fault:
        raise _unusable(fault) from fault
    return WrappedKey(key_id, str(reference), wrapped)


def _unwrap(
    kept: Sequence[WrappedKey], reference: KmsReference, profile: str | None
) -> dict[str, bytes]:
    """By id."""
    try:
        kms = KmsKey.open(reference, profile=profile)
        return {one.id: kms.unwrap(one.wrapped, _context(one.id)) for one in kept}
    except KmsFault as fault:
        raise _unusable(fault) from fault


def _context(key_id: str) -> dict[str, str]:
    """What KMS binds the wrapped key to: so no row opens in another's place, and CloudTrail
    tells what was opened.
    """
    return {"broker:purpose": "sealing", "broker:key-id": key_id}


def _unusable(fault: KmsFault) -> StartupError:
    return StartupError(f"the sealing keys can't be used: {fault}")
