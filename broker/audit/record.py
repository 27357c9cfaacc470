"""What happened, as a fact (`Event`), and as its canonical bytes in the log.

Owns the list of event types and the record's format, version 1. The bytes are
RFC 8785 canonical JSON by construction: only ASCII keys, strings, booleans,
null, lists, objects and integers below 2^53 are admitted, for which sorted
msgspec output is the canonical form (the test oracle is `rfc8785`).

An event becomes a record in three steps: `clean` makes text from outside
storable, `prepare` refuses what is not JSON-ready and encodes everything but
the sequence number and time, `Prepared.record` fills those in and cannot fail.
So nothing a caller sends can stop a transaction that carries others' records.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

import msgspec

from broker.audit.chain import MAX_RECORD_BYTES

FORMAT_VERSION = 1
_MAX_SAFE_INTEGER = 2**53 - 1
_MAX_DEPTH = 32
# Texts that stay in the record itself, where `detail` can be stored beside it.
_MAX_ACTOR_TEXT = 512
_MAX_SUBJECT_TEXT = 1024
# The longest `"seq":` and `"time":` values: 19 digits, and 27 characters of time.
_SEQ_AND_TIME_BYTES = 19 + 27

_TEXT = frozenset({str})
_SCALARS = frozenset({str, bool, type(None)})
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

_encoder = msgspec.json.Encoder(order="sorted")


class EventType(StrEnum):
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    DEVICE_APPROVED = "device.approved"
    DEVICE_DENIED = "device.denied"
    MFA_ENROLLED = "mfa.enrolled"
    MFA_VERIFIED = "mfa.verified"
    MFA_FAILED = "mfa.failed"
    MFA_LOCKED = "mfa.locked"
    MFA_RESET = "mfa.reset"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REVOKED = "session.revoked"
    CI_EXCHANGED = "ci.exchanged"
    CI_OBSERVED = "ci.observed"
    CI_REJECTED = "ci.rejected"
    ISSUANCE_REQUESTED = "issuance.requested"
    ISSUANCE_ISSUED = "issuance.issued"
    ISSUANCE_FAILED = "issuance.failed"
    ISSUANCE_WITHHELD = "issuance.withheld"
    ISSUANCE_DENIED = "issuance.denied"
    ISSUANCE_ORPHANED = "issuance.orphaned"
    AUDIT_SUPPRESSED = "audit.suppressed"
    AUDIT_CHECKPOINT = "audit.checkpoint"
    AUDIT_ROLLBACK_ACCEPTED = "audit.rollback_accepted"
    AUDIT_SINKS_CHANGED = "audit.sinks_changed"
    ACCESS_APPLIED = "access.applied"
    ACCESS_PROPOSED = "access.proposed"
    ACCESS_APPROVED = "access.approved"
    ACCESS_WITHDRAWN = "access.withdrawn"
    GRANT_CREATED = "grant.created"
    GRANT_REVOKED = "grant.revoked"
    GRANT_EXPIRED = "grant.expired"
    REVOCATION_REQUESTED = "revocation.requested"
    REVOCATION_LIFTED = "revocation.lifted"
    ENROLMENT_CODE_CREATED = "enrolment_code.created"
    ADMIN_BOOTSTRAPPED = "admin.bootstrapped"
    KEYS_ROTATED = "keys.rotated"
    KEYS_RESEALED = "keys.resealed"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted. `id` is a principal id, or "anonymous", or "system" for the broker itself."""

    id: str
    kind: str  # person, workload, anonymous, system
    handle: str | None = None
    ip: str | None = None
    user_agent: str | None = None


SYSTEM = Actor("system", "system")


@dataclass(frozen=True, slots=True)
class Event:
    """A fact to be recorded. `seq` and `time` are given by the log when it is appended.

    `subject` and `detail` are JSON-ready; what is too large for one record is
    stored beside it by the log and named by its hash.
    """

    type: EventType
    actor: Actor
    outcome: Outcome
    subject: Mapping[str, object] = field(default_factory=dict)
    detail: Mapping[str, object] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event went: its sequence number (from 1) and leaf hash (32 bytes)."""

    seq: int
    leaf: bytes


def rfc3339(moment: datetime) -> str:
    """UTC with `Z` and microseconds: `2026-01-02T03:04:05.000006Z`."""
    # isoformat, as strftime takes four times as long; what it adds last is "+00:00".
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class NotStorable(ValueError):
    """An event that is not JSON-ready: a fault of the code that made it, not of its user."""


def clean_text(text: str, limit: int | None = None) -> str:
    """Text from outside, made storable: NUL and lone surrogates become U+FFFD, and what is
    over `limit` characters is cut and ends in an ellipsis.

    PostgreSQL takes neither NUL in text nor surrogates in UTF-8; JSON escapes could
    smuggle in both.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if type(text) is not str:
        text = str.__str__(text)  # of a subclass, the plain text
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def clean(event: Event) -> Event:
    """The event with every text in it through `clean_text`; actor and subject also bounded.

    Raises NotStorable for values that are not JSON-ready.
    """
    actor = event.actor
    return Event(
        event.type,
        Actor(
            clean_text(actor.id, _MAX_ACTOR_TEXT),
            clean_text(actor.kind, _MAX_ACTOR_TEXT),
            _clean_optional(actor.handle),
            _clean_optional(actor.ip),
            _clean_optional(actor.user_agent),
        ),
        event.outcome,
        _object(event.subject, _MAX_SUBJECT_TEXT, 0),
        _object(event.detail, None, 0),
        _clean_optional(event.request_id),
    )


@dataclass(frozen=True, slots=True)
class Attachment:
    """A `detail` too large for its record: canonical JSON, named by its SHA-256 in hex."""

    sha256: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event, checked and encoded up to its place in the log. Holds what the log indexes."""

    type: str
    actor_id: str
    principal_id: str | None
    attachment: Attachment | None
    before_seq: bytes
    before_time: bytes
    after_time: bytes

    def record(self, seq: int, time: str) -> bytes:
        """The canonical bytes. `time` as of `rfc3339`: a batch shares one.

        Sorted order puts seq, subject, time, type and v last.
        """
        return b"%b%d%b%b%b" % (
            self.before_seq,
            seq,
            self.before_time,
            time.encode("ascii"),
            self.after_time,
        )


def prepare(event: Event) -> Prepared:
    """Check and encode the event; an oversize `detail` becomes an attachment.

    Raises NotStorable for floats, integers of 2^53 and over, keys that are not ASCII, lone
    surrogates and NUL, nesting over 32 levels, and an actor and subject over 60 KiB.
    """
    _require_types(event.subject, 0)
    _require_types(event.detail, 0)
    prepared = _encode(event, None)
    if _size(prepared) > MAX_RECORD_BYTES:
        event, attachment = split_detail(event)
        prepared = _encode(event, attachment)
        if _size(prepared) > MAX_RECORD_BYTES:
            raise NotStorable("the record is over 60 KiB even without its detail")
    return prepared


def clean_and_prepare(event: Event) -> tuple[Event, Prepared]:
    """Both. Raises NotStorable."""
    prepared = _usual(event)
    if prepared is None:
        event = clean(event)
        prepared = prepare(event)
    return event, prepared


def _usual(event: Event) -> Prepared | None:
    """What nearly every event is: short, ASCII, nothing in it to clean or to refuse. That shows in
    the types and in the encoded bytes, at a third of what `clean` and `prepare` cost, which see
    every text. None says only that they must.
    """
    actor = event.actor
    texts = (actor.id, actor.kind, actor.handle, actor.ip, actor.user_agent, event.request_id)
    if any(text is not None and len(text) > _MAX_ACTOR_TEXT for text in texts):
        return None
    if not (_has_usual_types(event.subject, 0) and _has_usual_types(event.detail, 0)):
        return None
    try:
        prepared = _encode(event, None)
    except NotStorable:
        return None
    encoded = prepared.before_seq + prepared.before_time
    clean = encoded.isascii() and b"\\u0000" not in encoded
    short = len(prepared.before_time) <= _MAX_SUBJECT_TEXT and _size(prepared) <= MAX_RECORD_BYTES
    return prepared if clean and short else None


def _has_usual_types(value: object, depth: int) -> bool:
    """By exact types, so that sets can compare them, without a look at each text."""
    if depth >= _MAX_DEPTH:
        return False
    if type(value) is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        members: Collection[object] = value.values()
    elif type(value) is list:
        members = value
    else:
        return False
    if _SCALARS.issuperset(map(type, members)):
        return True
    for member in members:
        kind = type(member)
        if kind is int:
            if abs(cast("int", member)) > _MAX_SAFE_INTEGER:
                return False
        elif kind not in _SCALARS and not _has_usual_types(member, depth + 1):
            return False
    return True


def split_detail(event: Event) -> tuple[Event, Attachment]:
    """The event with `detail` = {"attachment": {"sha256", "bytes"}}, and what that names."""
    body = _json(event.detail)
    sha256 = hashlib.sha256(body).hexdigest()
    named = {"attachment": {"sha256": sha256, "bytes": len(body)}}
    return replace(event, detail=named), Attachment(sha256, body)


def to_record(event: Event, seq: int, time: datetime) -> bytes:
    """The event's canonical bytes at its place in the log. Raises NotStorable."""
    return prepare(event).record(seq, rfc3339(time))


def _encode(event: Event, attachment: Attachment | None) -> Prepared:
    actor = event.actor
    principal = event.subject.get("principal")
    texts = {
        "id": actor.id,
        "kind": actor.kind,
        "handle": actor.handle,
        "ip": actor.ip,
        "user_agent": actor.user_agent,
    }
    return Prepared(
        type=event.type.value,
        actor_id=actor.id,
        principal_id=principal if isinstance(principal, str) else None,
        attachment=attachment,
        before_seq=b'{"actor":%b,"detail":%b,"outcome":"%b","request_id":%b,"seq":'
        % (
            _json(texts),
            _json(event.detail),
            event.outcome.value.encode("ascii"),
            _json(event.request_id),
        ),
        before_time=b',"subject":%b,"time":"' % _json(event.subject),
        after_time=b'","type":"%b","v":%d}' % (event.type.value.encode("ascii"), FORMAT_VERSION),
    )


def _json(value: object) -> bytes:
    """Canonical JSON of a value whose types are right. Raises NotStorable for its texts."""
    try:
        encoded = _encoder.encode(value)
    except UnicodeEncodeError as error:
        raise NotStorable("a text holds a lone surrogate") from error
    except TypeError as error:
        raise NotStorable(str(error)) from error
    # A NUL, or an escaped backslash before the same five characters.
    if b"\\u0000" in encoded and "\0" in "".join(_texts(msgspec.json.decode(encoded))):
        raise NotStorable("a text holds NUL")
    return encoded


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _size(prepared: Prepared) -> int:
    return (
        len(prepared.before_seq)
        + len(prepared.before_time)
        + len(prepared.after_time)
        + _SEQ_AND_TIME_BYTES
    )


def _clean_optional(text: str | None) -> str | None:
    return None if text is None else clean_text(text, _MAX_ACTOR_TEXT)


def _object(value: Mapping[str, object], limit: int | None, depth: int) -> dict[str, object]:
    return {key: _clean_value(member, limit, depth + 1) for key, member in value.items()}


def _clean_value(value: object, limit: int | None, depth: int) -> object:
    if isinstance(value, str):
        return clean_text(value, limit)
    if value is None or isinstance(value, int):
        return value
    if depth > _MAX_DEPTH:
        raise NotStorable(f"nested over {_MAX_DEPTH} levels deep")
    # dict first: asking the abstract class takes ten times as long.
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101
        return _object(value, limit, depth)
    if isinstance(value, list | tuple):
        return [_clean_value(member, limit, depth + 1) for member in value]
    return value


def _require_types(value: object, depth: int) -> None:
    """All but texts, which the encoder judges. Raises NotStorable."""
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > _MAX_SAFE_INTEGER:
            raise NotStorable("an integer is 2^53 or over")
    elif depth >= _MAX_DEPTH:
        raise NotStorable(f"nested over {_MAX_DEPTH} levels deep")
    elif isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - as above
        for key, member in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise NotStorable("a key is not an ASCII string")
            _require_types(member, depth + 1)
    elif isinstance(value, list | tuple):
        for member in value:
            _require_types(member, depth + 1)
    else:
        raise NotStorable(f"a {type(value).__name__} is not JSON-ready")
