"""What the log's keys sign: checkpoints (C2SP tlog-checkpoint), and their successors.

A checkpoint is a note of three lines: the log's origin, the number of records,
and the base64 of the tree's root over them. Extension lines are refused: this
log writes none.

A succession is how one key of the log hands over to the next, a note of three
lines that both have signed: `broker-log-key/v1`, the origin, the new verifier
key. Its first line keeps it apart from checkpoints, whose first line is the
origin and whose second is a number.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.audit.merkle import HASH_BYTES
from broker.audit.note import BadNote, Note, Signer, VerifierKey, sign

_SUCCESSION = "broker-log-key/v1"
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log `origin` held `size` records, and their tree had this root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    def signed(self, signer: Signer) -> str:
        """As a signed note."""
        return sign(self.text, signer)

    def __str__(self) -> str:
        return f"{self.origin} {self.size} {base64.b64encode(self.root).decode('ascii')}"


def opened(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that one of the keys has signed. Raises BadNote."""
    parsed = Note.parse(note)
    parsed.signed_by(keys)
    return _parse(parsed.text)


def unverified(note: str) -> Checkpoint:
    """The checkpoint of a note whose signatures nobody has checked: a claim. Raises BadNote."""
    return _parse(Note.parse(note).text)


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or not _SIZE.fullmatch(lines[1]) or not lines[0]:
        raise BadNote("not a checkpoint: origin, size and root are its three lines")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        root = b""
    checkpoint = Checkpoint(lines[0], int(lines[1]), root)
    if len(root) != HASH_BYTES or checkpoint.text != text:
        raise BadNote("not a checkpoint: its root is not the base64 of 32 bytes")
    return checkpoint


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The public side of the log's keys, oldest first, and the notes that lead from each to the
    next.
    """

    origin: str
    keys: tuple[VerifierKey, ...]
    successions: tuple[str, ...]


# --- From one key to the next --------------------------------------------------------------


def succession(origin: str, old: Signer, new: Signer) -> str:
    """The note by which `old` names `new` its successor, and `new` shows that it exists."""
    return sign(f"{_SUCCESSION}\n{origin}\n{new.key}\n", old, new)


def follow(origin: str, trusted: Sequence[VerifierKey], notes: Iterable[str]) -> list[VerifierKey]:
    """The trusted keys and all that follow from them by successions, in order of discovery.

    Notes of other logs, and of keys nobody trusts yet, are passed over. Raises BadNote for
    what is no succession at all, or is falsely signed.
    """
    keys = list(trusted)
    waiting = [Note.parse(note) for note in notes]
    while True:
        followed = [note for note in waiting if _extend(origin, keys, note)]
        if not followed:
            return keys
        waiting = [note for note in waiting if note not in followed]


def _extend(origin: str, keys: list[VerifierKey], note: Note) -> bool:
    lines = note.text.split("\n")
    if len(lines) != 4 or lines[0] != _SUCCESSION:
        raise BadNote("not a succession of the log's key")
    if lines[1] != origin:
        return False
    successor = VerifierKey.parse(lines[2])
    named = {(one.name, one.key_id) for one in note.signatures}
    if not any((key.name, key.key_id) in named for key in keys if key != successor):
        return False
    note.signed_by([key for key in keys if key != successor])
    note.signed_by([successor])
    if successor not in keys:
        keys.append(successor)
    return True
