"""The log's key in AWS KMS: it signs checkpoints, delegates' certificates and its successor.

Owns signing by KMS, and what must fit together before a server may use the key:
the private half is in KMS, the public history of the log's keys in the database
(`store/log_keys`). Does not own the calls (`kms`) nor delegates (`delegates`).

The history is public, and whoever holds the database can change it; but a false
predecessor would need a succession signed by the key in KMS, and a successor
one by its predecessor, which clients have pinned.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from broker.adapters.key_place import KmsReference
from broker.adapters.kms import KmsFault, KmsKey
from broker.adapters.signing import SigningKeys
from broker.adapters.store.log_keys import LogKeyHistory, SqlLogKeys
from broker.audit.checkpoint import LogKeys, follow, succession
from broker.audit.note import BadNote, CannotSign, Signer, VerifierKey
from broker.errors import StartupError


@dataclass(frozen=True, slots=True)
class KmsSigner:
    """Implements `note.Signer`. `sign` blocks for a call to KMS."""

    key: VerifierKey
    _kms: KmsKey = field(repr=False)

    @classmethod
    async def open(cls, origin: str, reference: KmsReference, profile: str | None) -> KmsSigner:
        """Raises StartupError where the key can't be asked for, or is of another kind."""
        try:
            kms = await asyncio.to_thread(KmsKey.open, reference, profile=profile)
            public_key = await asyncio.to_thread(kms.public_key)
        except KmsFault as fault:
            raise StartupError(f"the log's signing key can't be used: {fault}") from fault
        return cls(VerifierKey(origin, public_key), kms)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes), known to be good. Raises CannotSign."""
        try:
            return self._kms.sign(message, self.key.public_key)
        except KmsFault as fault:
            raise CannotSign(str(fault)) from fault


async def load(reference: KmsReference, profile: str | None, store: SqlLogKeys) -> SigningKeys:
    """Raises StartupError, which names the cure, where the key is not the log's newest."""
    history = await store.history()
    if history is None:
        raise StartupError(
            "the database does not know the log's key yet: run `broker migrate`, or, where the"
            f" log was signed by a key file so far, `broker keys rotate --signing --to {reference}`"
        )
    log = read_history(history)
    signer = await KmsSigner.open(log.origin, reference, profile)
    require_newest(history, signer.key)
    return SigningKeys(signer, log)


def read_history(history: LogKeyHistory) -> LogKeys:
    """Raises StartupError where the keys do not follow each other."""
    try:
        keys = tuple(VerifierKey.parse(vkey) for vkey in history.vkeys)
        log = LogKeys(history.origin, keys, history.successions)
        if follow(log.origin, keys[:1], log.successions) == list(keys):
            return log
    except BadNote:
        pass
    raise StartupError(
        "the log's keys in the database do not follow each other: somebody changed them;"
        " restore the table audit_log_keys"
    )


def require_newest(history: LogKeyHistory, key: VerifierKey) -> None:
    """Raises StartupError where another key is the log's by now, or the key never was."""
    if history.vkeys[-1] == str(key):
        return
    if str(key) in history.vkeys:
        raise StartupError(
            f"the log's key was handed over: set [keys] signing to {history.references[-1]!r}"
        )
    raise StartupError(
        f"the key {key} is not the log's, whose newest is {history.vkeys[-1]}"
        f" ({history.references[-1]}): to replace it, `broker keys rotate --signing --to` the new"
    )


async def adopt(
    reference: KmsReference, profile: str | None, origin: str, store: SqlLogKeys
) -> VerifierKey:
    """Make it the first key of a log that nothing has signed yet. Raises StartupError."""
    signer = await KmsSigner.open(origin, reference, profile)
    await store.begin(origin, str(signer.key), str(reference))
    return signer.key


async def hand_over(
    old: SigningKeys,
    old_reference: str,
    reference: KmsReference,
    profile: str | None,
    store: SqlLogKeys,
) -> VerifierKey:
    """Let the log's key name the one in KMS its successor, for good, and keep that.

    `old`: the log's keys so far, of a file or of KMS. Raises StartupError.
    """
    new = await KmsSigner.open(old.log.origin, reference, profile)
    if new.key in old.log.keys:
        raise StartupError(f"{reference} is, or was, the log's key already")
    try:
        note = await asyncio.to_thread(succession, old.log.origin, old.signer, new)
    except CannotSign as fault:
        raise StartupError(f"the key was not replaced: {fault}") from fault
    await store.succeed(old.log, old_reference, str(new.key), str(reference), note)
    return new.key


def is_kms(signer: Signer) -> bool:
    """Whether the key is far away, so that a delegate must sign receipts."""
    return isinstance(signer, KmsSigner)
