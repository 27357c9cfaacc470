"""The keys that the settings refer to: in files, or in AWS KMS.

Owns which store a reference leads to. Does not own the stores (`signing`,
`sealing`, `kms_signing`, `kms_sealing`).
"""

from __future__ import annotations

from broker.adapters import kms_sealing, kms_signing
from broker.adapters.key_place import KeyPlace, KmsReference
from broker.adapters.sealing import FileKeyRing, KeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from broker.adapters.store.log_keys import SqlLogKeys
from broker.adapters.store.sealing_keys import SqlSealingKeys
from broker.errors import StartupError


async def load_sealing(place: KeyPlace, database: Database) -> KeyRing:
    """Raises StartupError, which names the cure; also for a file whose keys were moved to KMS."""
    store = SqlSealingKeys(database)
    if isinstance(place.at, KmsReference):
        return await kms_sealing.load(place.at, place.profile, store)
    ring = FileKeyRing.load(place.at)
    moved = await store.all()
    if moved:
        raise StartupError(
            f"the sealing keys were moved to KMS: set [keys] sealing to {moved[-1].reference!r}"
        )
    return ring


async def load_signing(place: KeyPlace, database: Database) -> SigningKeys:
    """Raises StartupError, which names the cure; also for a key that handed the log over."""
    store = SqlLogKeys(database)
    if isinstance(place.at, KmsReference):
        return await kms_signing.load(place.at, place.profile, store)
    signing = SigningKeys.load(place.at)
    history = await store.history()
    if history is not None:
        kms_signing.require_newest(history, signing.signer.key)
    return signing
