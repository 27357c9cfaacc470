"""Secrets at rest: AES-256-GCM under a key ring in a file of mode 0600.

Owns: the key file's format and its rotation, and what the ciphertext is bound
to. Does not own: which secrets are sealed and where they are stored.

The file is one JSON object: `{"version": 1, "current": ID, "keys": {ID: base64
of 32 bytes}}`. New secrets are sealed under the current key; the others still
open what they sealed. To retire a key: rotate, seal every stored value again,
then drop the key from the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import StartupError
from broker.identity.totp import Sealed

_FORMAT = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 64 * 1024
_KEY_ID = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


class UnsealFailed(Exception):
    """A sealed value did not open: its key is not in the ring, or it is not the value that was
    sealed for this purpose and owner. Says which; never holds the value.
    """


@dataclass(frozen=True, slots=True, repr=False)
class FileKeyRing:
    """Implements `totp.Sealer`. Values of this class have no useful repr, on purpose."""

    current: str
    _keys: Mapping[str, AESGCM]

    def __repr__(self) -> str:
        return f"FileKeyRing(current={self.current})"

    @classmethod
    def create(cls, path: Path) -> FileKeyRing:
        """A new ring with one key. Raises StartupError where the file is there already."""
        current = _new_key_id()
        content = _encode(current, {current: secrets.token_bytes(_KEY_BYTES)})
        staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _staged(staging) as file:
                file.write(content)
                _flush(file)
                # A link, unlike a rename, never replaces what is there.
                os.link(staging, path)
            staging.unlink()
        except FileExistsError:
            raise StartupError(f"The sealing key file {path} exists already.") from None
        except OSError as error:
            raise StartupError(f"Can't write the sealing key file {path}: {error}.") from error
        _sync_directory(path.parent)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> FileKeyRing:
        """Raises StartupError, which names the cure, for a file that is absent, readable by
        others or not a key ring.
        """
        current, keys = _read(path)
        return cls(current, {key_id: AESGCM(key) for key_id, key in keys.items()})

    @classmethod
    def rotate(cls, path: Path) -> FileKeyRing:
        """Add a key and make it the current one: all or nothing, even if the host dies meanwhile.

        Raises StartupError as `load`, or while another rotation is under way.
        """
        staging = path.with_name(f"{path.name}.new")
        try:
            # The staging file is the lock: the ring is read while it is held, or of two
            # rotations the later would drop the earlier one's key.
            with _staged(staging) as file:
                _, keys = _read(path)
                current = _new_key_id()
                keys[current] = secrets.token_bytes(_KEY_BYTES)
                file.write(_encode(current, keys))
                _flush(file)
                staging.replace(path)
        except FileExistsError:
            raise StartupError(
                f"Another rotation is under way; if none is, remove {staging} and try again."
            ) from None
        except OSError as error:
            raise StartupError(f"Can't write {staging}: {error}.") from error
        _sync_directory(path.parent)
        return cls.load(path)

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


def _associated_data(purpose: str, owner: str, key_id: str, version: int) -> bytes:
    """purpose|owner|key id|version, each with its length, so that no two tuples read alike."""
    fields = (purpose, owner, key_id, str(version))
    parts = [part.encode("utf-8") for part in fields]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _new_key_id() -> str:
    return f"k-{secrets.token_hex(6)}"


def _encode(current: str, keys: Mapping[str, bytes]) -> bytes:
    encoded = {key_id: base64.b64encode(key).decode("ascii") for key_id, key in keys.items()}
    document = {"version": _FORMAT, "current": current, "keys": encoded}
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def _read(path: Path) -> tuple[str, dict[str, bytes]]:
    try:
        # Not blocking: a pipe in its place would hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StartupError(
            f"The sealing key file {path} is not there. For a new installation, create it with"
            " `broker keys init`; else restore it from your backup: without it, every enrolled"
            " second factor is lost."
        ) from None
    except OSError as error:
        raise StartupError(f"Can't read the sealing key file {path}: {error}.") from error
    try:
        # Of the open file, not of the path: nobody can swap it in between.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StartupError(f"The sealing key file {path} is not a regular file.")
        if status.st_mode & 0o077:
            raise StartupError(
                f"The sealing key file {path} can be read by others (mode"
                f" {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}"
            )
        content = os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    try:
        return _decode(content)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # Without the cause: a parser's message may quote the file.
        raise StartupError(
            f"The sealing key file {path} is damaged; restore it from your backup."
        ) from None


def _decode(content: bytes) -> tuple[str, dict[str, bytes]]:
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError("too large")
    document = json.loads(content)
    if document["version"] != _FORMAT:
        raise ValueError("unknown version")
    keys = {
        key_id: base64.b64decode(key, validate=True) for key_id, key in document["keys"].items()
    }
    current = document["current"]
    if current not in keys:
        raise ValueError("no current key")
    if any(not _KEY_ID.fullmatch(key_id) or len(key) != _KEY_BYTES for key_id, key in keys.items()):
        raise ValueError("bad key")
    return current, keys


@contextmanager
def _staged(path: Path) -> Iterator[BinaryIO]:
    """A new file, never readable by others, that is removed again where the block fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        # Not on success: renamed by then, and the name may be another rotation's lock.
        path.unlink(missing_ok=True)
        raise


def _flush(file: BinaryIO) -> None:
    """What was written is on the disk before this returns."""
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
