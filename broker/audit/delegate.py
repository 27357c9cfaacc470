"""Delegates: keys that sign receipts for a day, because a key of the log says so.

Owns the certificate, a signed note of five lines, and what it is good for:

    broker-log-delegate/v1
    origin broker.example.com
    key broker.example.com/delegate+1b2c3d4e+AQ...
    from 2026-11-24T12:00:00Z
    until 2026-11-25T12:00:00Z

A log whose key is far away (KMS) can't ask it for every receipt. The delegate
signs heads in receipts and nothing else: it is named apart from the log, and no
verifier takes its signature for a checkpoint's, a succession's or a
certificate's. The first line keeps a certificate apart from all else that a
log's key signs: a checkpoint's second line is a number, a succession has another
first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.audit.note import BadNote, Note, Signer, VerifierKey, sign

# The longest that a certificate may be good for.
LONGEST = timedelta(hours=24)

_STATEMENT = "broker-log-delegate/v1"
_LABELS = ("origin ", "key ", "from ", "until ")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_RECORD_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Certificate:
    """`key` may sign the heads of receipts of records from `begins` on, before `ends` (whole
    seconds, UTC).
    """

    origin: str
    key: VerifierKey
    begins: datetime
    ends: datetime

    def __post_init__(self) -> None:
        if self.key.name != delegate_name(self.origin):
            raise BadNote("a delegate is named after its log, and this one is not")
        if not timedelta() < self.ends - self.begins <= LONGEST:
            raise BadNote("a delegate is certified for at most 24 hours")

    @property
    def text(self) -> str:
        """What is signed."""
        values = (self.origin, str(self.key), _written(self.begins), _written(self.ends))
        lines = (f"{label}{value}\n" for label, value in zip(_LABELS, values, strict=True))
        return f"{_STATEMENT}\n{''.join(lines)}"

    def signed(self, signer: Signer) -> str:
        """As a signed note, by a key of the log."""
        return sign(self.text, signer)

    def covers(self, moment: datetime) -> bool:
        return self.begins <= moment < self.ends


def delegate_name(origin: str) -> str:
    """The key name of every delegate of that log."""
    return f"{origin}/delegate"


def certified(note: str, keys: Iterable[VerifierKey]) -> Certificate:
    """The certificate of a note that a key of its own log has signed. Raises BadNote."""
    parsed = Note.parse(note)
    certificate = _parse(parsed.text)
    parsed.signed_by([key for key in keys if key.name == certificate.origin])
    return certificate


def claimed(note: str) -> Certificate:
    """The certificate of a note whose signatures nobody has checked. Raises BadNote."""
    return _parse(Note.parse(note).text)


def time_of(value: object) -> datetime:
    """A record's `time`. Raises BadNote for what is none."""
    if isinstance(value, str) and _RECORD_TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise BadNote("the record has no time to hold a certificate against")


def _parse(text: str) -> Certificate:
    statement, *lines = text.split("\n")
    labelled = len(lines) == 5 and all(
        line.startswith(label) for line, label in zip(lines, _LABELS, strict=False)
    )
    if statement != _STATEMENT or not labelled:
        raise BadNote("not a delegate's certificate")
    origin, vkey, begins, ends = (
        line.removeprefix(label) for line, label in zip(lines, _LABELS, strict=False)
    )
    certificate = Certificate(origin, VerifierKey.parse(vkey), _read(begins), _read(ends))
    if certificate.text != text:
        raise BadNote("not a delegate's certificate in its one spelling")
    return certificate


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_TIME)


def _read(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise BadNote("a certificate's time is not YYYY-MM-DDTHH:MM:SSZ") from None
