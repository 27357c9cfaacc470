"""Reading what STS answered, and refusing to believe an odd answer.

An answer decides who gets which credentials, so it is believed only where it is
exactly about the role, the session and the person that were asked for; anything
else is `OddAnswer`, which raises an alarm. Shapes: AWS STS API reference,
AssumeRole and GetCallerIdentity.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted

_NS = "{https://sts.amazonaws.com/doc/2011-06-15/}"
# AWS refuses a signature whose time is more than five minutes from its own.
_CLOCK_SLACK = timedelta(minutes=5)

_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_]{16,128}", re.ASCII)
_SECRET_KEY = re.compile(r"[\x21-\x7e]{16,1024}", re.ASCII)
_SESSION_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}", re.ASCII)
_ROLE_ID = re.compile(r"[A-Z0-9]{4,128}", re.ASCII)
_ARN = re.compile(r"arn:[a-z-]+:(iam|sts)::[0-9]{12}:[\x21-\x7e]{1,1600}", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,128}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_PERCENT = re.compile(r"[0-9]{1,6}", re.ASCII)
_MAX_MESSAGE = 1000


class OddAnswer(Exception):
    """An answer AWS's documentation does not explain. The text never quotes the answer."""

    def __init__(
        self, reason: str, *, may_have_minted: bool, request_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_minted = may_have_minted
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. `date` and `request_id` are headers, as received."""

    status: int
    body: bytes
    request_id: str | None
    date: str | None

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Refusal:
    """STS's own `Error`. `message` is cleaned: one printable line, bounded."""

    status: int
    code: str
    message: str
    request_id: str | None
    date: str | None


def minted(reply: Reply, call: AssumeRole, now: datetime) -> Minted:
    """Raises OddAnswer unless `reply` is the answer to `call`."""
    answer = _Answer(reply, "AssumeRoleResponse")
    result = answer.child(answer.root, "AssumeRoleResult")
    keys = answer.child(result, "Credentials")
    user = answer.child(result, "AssumedRoleUser")
    answer.carries(result, call)
    answer.equal("assumed role", answer.text(user, "Arn"), _session_arn(call))
    role_id, _, session_name = answer.text(user, "AssumedRoleId").partition(":")
    answer.matches("role id", role_id, _ROLE_ID)
    answer.equal("session name", session_name, call.role_session_name)
    return Minted(
        credentials=Credentials(
            access_key_id=answer.matching(keys, "AccessKeyId", _ACCESS_KEY_ID),
            secret_access_key=answer.matching(keys, "SecretAccessKey", _SECRET_KEY),
            session_token=answer.matching(keys, "SessionToken", _SESSION_TOKEN),
            expiration=answer.expiration(keys, call.duration_seconds, now),
        ),
        assumed_role_arn=_session_arn(call),
        assumed_role_id=f"{role_id}:{session_name}",
        request_id=answer.request_id,
        packed_policy_percent=answer.percent(result, "SessionTokenUtilization", "PackedPolicySize"),
    )


def caller_identity(reply: Reply) -> CallerIdentity:
    """Raises OddAnswer."""
    answer = _Answer(reply, "GetCallerIdentityResponse")
    result = answer.child(answer.root, "GetCallerIdentityResult")
    return CallerIdentity(
        account=answer.matching(result, "Account", _ACCOUNT),
        arn=answer.matching(result, "Arn", _ARN),
        answered_at=_when(reply.date),
    )


def _when(date: str | None) -> datetime | None:
    """An HTTP Date; None where there is none, or none that can be read."""
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment


def refusal(reply: Reply) -> Refusal:
    """Raises OddAnswer unless `reply` is an `Error` of STS, code and message included."""
    answer = _Answer(reply, "ErrorResponse")
    error = answer.child(answer.root, "Error")
    message = answer.text(error, "Message")
    return Refusal(
        status=reply.status,
        code=answer.matching(error, "Code", _CODE),
        message=" ".join("".join(c if c.isprintable() else " " for c in message).split())[
            :_MAX_MESSAGE
        ],
        request_id=answer.request_id,
        date=reply.date,
    )


def _session_arn(call: AssumeRole) -> str:
    """`arn:P:iam::A:role/path/Name` assumed under a session name. The path is not part of it."""
    account, role = call.role_arn.split(":", 5)[4:]
    name = role.rpartition("/")[2]
    return f"arn:{call.partition}:sts::{account}:assumed-role/{name}/{call.role_session_name}"


class _Answer:
    """One parsed answer, with checks that name what was odd and never its value."""

    def __init__(self, reply: Reply, root: str) -> None:
        self._may_have_minted = reply.status < 300
        self.request_id = _request_id(reply.request_id)
        if not reply.body:
            raise self.odd(f"an empty body with status {reply.status}")
        try:
            self.root = ET.fromstring(reply.body, ET.XMLParser(target=_NoDoctype()))  # noqa: S314
        except (ET.ParseError, ValueError, LookupError) as error:
            raise self.odd(f"no well-formed XML with status {reply.status}") from error
        if self.root.tag != _NS + root:
            raise self.odd(f"no {root} in AWS's namespace with status {reply.status}")
        ids = self.root.findtext(f"{_NS}ResponseMetadata/{_NS}RequestId")
        self.request_id = _request_id(ids or self.root.findtext(f"{_NS}RequestId")) or (
            self.request_id
        )

    def odd(self, reason: str) -> OddAnswer:
        return OddAnswer(reason, may_have_minted=self._may_have_minted, request_id=self.request_id)

    def child(self, parent: ET.Element, name: str) -> ET.Element:
        found = parent.findall(_NS + name)
        if len(found) != 1:
            raise self.odd(f"{len(found)} elements {name} instead of one")
        return found[0]

    def text(self, parent: ET.Element, name: str) -> str:
        text = self.child(parent, name).text
        if not text or not text.strip():
            raise self.odd(f"an empty {name}")
        return text

    def matching(self, parent: ET.Element, name: str, pattern: re.Pattern[str]) -> str:
        text = self.text(parent, name)
        self.matches(name, text, pattern)
        return text

    def matches(self, what: str, text: str, pattern: re.Pattern[str]) -> None:
        if not pattern.fullmatch(text):
            raise self.odd(f"a {what} of unknown form")

    def equal(self, what: str, actual: str, asked: str) -> None:
        if actual != asked:
            raise self.odd(f"another {what} than was asked for")

    def carries(self, result: ET.Element, call: AssumeRole) -> None:
        """What was asked for comes back; what a session carries on may be left out."""
        asked = call.source_identity or (None if call.after is None else call.after.source_identity)
        if asked is not None and (
            call.source_identity is not None or result.find(_NS + "SourceIdentity") is not None
        ):
            self.equal("source identity", self.text(result, "SourceIdentity"), asked)

    def expiration(self, keys: ET.Element, duration_seconds: int, now: datetime) -> datetime:
        try:
            moment = datetime.fromisoformat(self.text(keys, "Expiration"))
        except ValueError as error:
            raise self.odd("an Expiration that is no time") from error
        if moment.tzinfo is None:
            raise self.odd("an Expiration without a time zone")
        if moment <= now:
            raise self.odd("an Expiration that is past")
        if moment > now + timedelta(seconds=duration_seconds) + _CLOCK_SLACK:
            raise self.odd("an Expiration beyond the duration that was asked for")
        return moment

    def percent(self, result: ET.Element, *names: str) -> int | None:
        """Optional by contract (PackedPolicySize is being replaced): absent is None."""
        for name in names:
            text = result.findtext(_NS + name)
            if text is not None and _PERCENT.fullmatch(text):
                return int(text)
        return None


class _NoDoctype(ET.TreeBuilder):
    """A document type declaration is where entities come from; AWS never sends one."""

    def doctype(self, *_: str | None) -> None:
        raise ValueError("a document type declaration")


def _request_id(text: str | None) -> str | None:
    return text if text is not None and _REQUEST_ID.fullmatch(text) else None
