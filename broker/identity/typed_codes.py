"""Codes that people type once: recovery codes, and enrolment codes from an admin.

Owns: how they look, how what was typed is read, and the hash that is stored.
Does not own: who may spend them (`second_factor`).

A code is 120 random bits, so a fast hash is enough: nobody can search them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from enum import StrEnum

_CODE_BYTES = 15
_GROUP = 6
_TYPED = re.compile(r"[A-Za-z0-9 \-]{24,64}", re.ASCII)
_CODE = re.compile(r"[a-z2-7]{24}", re.ASCII)
# Base32 has no 0, 1 or 8, so these can only be misread letters.
_MISREAD = str.maketrans({"0": "o", "1": "l", "8": "b", "-": None, " ": None})


class TypedCodeKind(StrEnum):
    """The kind goes into the hash: a recovery code can't be spent as an enrolment code."""

    RECOVERY = "recovery"
    ENROLMENT = "enrolment"


def new_code(kind: TypedCodeKind) -> tuple[str, bytes]:
    """A fresh code as text, shown once, and the hash (32 bytes) that is stored."""
    code = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode("ascii").lower()
    text = "-".join(code[i : i + _GROUP] for i in range(0, len(code), _GROUP))
    return text, _hash(kind, code)


def hash_of_typed(kind: TypedCodeKind, typed: str) -> bytes | None:
    """The hash of what a person typed: case, dashes, spaces and 0/O, 1/L, 8/B are forgiven.

    None where it can't be a code at all.
    """
    typed = typed.strip(" \t\r\n")
    if not _TYPED.fullmatch(typed):
        return None
    code = typed.lower().translate(_MISREAD)
    return _hash(kind, code) if _CODE.fullmatch(code) else None


def new_enrolment_code() -> tuple[str, bytes]:
    """What an admin hands to a person: the text, and the hash for `create_enrolment_code`."""
    return new_code(TypedCodeKind.ENROLMENT)


def _hash(kind: TypedCodeKind, code: str) -> bytes:
    return hashlib.sha256(f"broker {kind.value} code|{code}".encode("ascii")).digest()
