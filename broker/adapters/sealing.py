"""Secrets at rest: AES-256-GCM under a key ring, which a file of mode 0600 may hold.

Owns: what the ciphertext is bound to; the file's format and its rotation. Does
not own: which secrets are sealed and where they are stored, how a key file is
written (`key_file`), nor rings whose keys KMS wraps (`kms_sealing`).

The file is one JSON object: `{"version": 1, "current": ID, "keys": {ID: base64
of 32 bytes}}`. New secrets are sealed under the current key; the others still
open what they sealed. To retire a key: rotate, seal every stored value again
(`store/resealing`), then drop the key from the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.adapters.key_file import KeyFile
from broker.identity.totp import Sealed

_FORMAT = 1
KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


class UnsealFailed(Exception):
    """A sealed value did not open: its key is not in the ring, or it is not the value that was
    sealed for this purpose and owner. Says which; never holds the value.
    """


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """Implements `totp.Sealer`. Values of this class have no useful repr, on purpose."""

    current: str
    _keys: Mapping[str, AESGCM]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(current={self.current})"

    def seal(self, plaintext: bytes, *, purpose: str, owner: str) -> Sealed:
        """Seal under the current key, for this purpose and owner alone."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        data = _associated_data(purpose, owner, self.current, _FORMAT)
        ciphertext = self._keys[self.current].encrypt(nonce, plaintext, data)
        return Sealed(self.current, _FORMAT, nonce, ciphertext)

    def unseal(self, sealed: Sealed, *, purpose: str, owner: str) -> bytes:
        """Raises UnsealFailed."""
        if sealed.version != _FORMAT:
            raise UnsealFailed(f"sealed in format {sealed.version}, which this broker can't read")
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise UnsealFailed(
                f"sealed under key {sealed.key_id[:32]!r}, which is not in the key ring;"
                " restore the key file that has it"
            )
        data = _associated_data(purpose, owner, sealed.key_id, sealed.version)
        try:
            return key.decrypt(sealed.nonce, sealed.ciphertext, data)
        except (InvalidTag, ValueError) as error:
            raise UnsealFailed(
                f"not what was sealed under key {sealed.key_id} for this {purpose} and owner"
            ) from error

    def is_current(self, sealed: Sealed) -> bool:
        """False for a value that should be sealed again, under the current key."""
        return sealed.key_id == self.current and sealed.version == _FORMAT

    def reseal(self, sealed: Sealed, *, purpose: str, owner: str) -> Sealed:
        """The same secret under the current key. Raises UnsealFailed."""
        plaintext = self.unseal(sealed, purpose=purpose, owner=owner)
        return self.seal(plaintext, purpose=purpose, owner=owner)


@dataclass(frozen=True, slots=True, repr=False)
class FileKeyRing(KeyRing):
    """The ring in a file."""

    @classmethod
    def create(cls, path: Path) -> FileKeyRing:
        """A new ring with one key. Raises StartupError where the file is there already."""
        current = new_key_id()
        _file(path).create(_encode(current, {current: secrets.token_bytes(KEY_BYTES)}))
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> FileKeyRing:
        """Raises StartupError, which names the cure, for a file that is absent, readable by
        others or not a key ring.
        """
        file = _file(path)
        current, keys = _read(file, file.read())
        return cls(current, {key_id: AESGCM(key) for key_id, key in keys.items()})

    @classmethod
    def keys_in(cls, path: Path) -> tuple[str, dict[str, bytes]]:
        """The current key's id, and the keys themselves: for the one move to another store.

        Raises StartupError as `load`.
        """
        file = _file(path)
        return _read(file, file.read())

    @classmethod
    def rotate(cls, path: Path) -> FileKeyRing:
        """Add a key and make it the current one: all or nothing, even if the host dies meanwhile.

        Raises StartupError as `load`, or while another rotation is under way.
        """
        file = _file(path)

        def add(content: bytes) -> bytes:
            _, keys = _read(file, content)
            current = new_key_id()
            return _encode(current, keys | {current: secrets.token_bytes(KEY_BYTES)})

        file.rewrite(add)
        return cls.load(path)


def _associated_data(purpose: str, owner: str, key_id: str, version: int) -> bytes:
    """purpose|owner|key id|version, each with its length, so that no two tuples read alike."""
    fields = (purpose, owner, key_id, str(version))
    parts = [part.encode("utf-8") for part in fields]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def new_key_id() -> str:
    """No two rings give the same."""
    return f"k-{secrets.token_hex(6)}"


def _encode(current: str, keys: Mapping[str, bytes]) -> bytes:
    encoded = {key_id: base64.b64encode(key).decode("ascii") for key_id, key in keys.items()}
    document = {"version": _FORMAT, "current": current, "keys": encoded}
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def _file(path: Path) -> KeyFile:
    return KeyFile(
        path,
        "sealing key file",
        "For a new installation, create it with `broker keys init`; else restore it from your"
        " backup: without it, every enrolled second factor is lost.",
    )


def _read(file: KeyFile, content: bytes) -> tuple[str, dict[str, bytes]]:
    try:
        return _decode(content)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise file.damaged() from None


def _decode(content: bytes) -> tuple[str, dict[str, bytes]]:
    document = json.loads(content)
    if document["version"] != _FORMAT:
        raise ValueError("unknown version")
    keys = {
        key_id: base64.b64decode(key, validate=True) for key_id, key in document["keys"].items()
    }
    current = document["current"]
    if current not in keys:
        raise ValueError("no current key")
    if any(not _KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES for key_id, key in keys.items()):
        raise ValueError("bad key")
    return current, keys
