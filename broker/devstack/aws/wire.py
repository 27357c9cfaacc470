"""What passes between the HTTP server and the services: requests, answers, errors.

Owns the shapes and AWS's XML envelopes. Does not own sockets (server.py) nor
any rule (sts.py, gate.py).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape as escape_markup

STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
IAM_NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire; `headers` has lower-case names."""

    method: str
    path: str  # still percent-encoded
    query: str  # still percent-encoded, without the question mark
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    source_ip: str

    @property
    def query_pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


class AwsError(Exception):
    """A refusal with AWS's code, text and HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def request_id() -> str:
    return str(uuid.uuid4())


def timestamp(at: float) -> str:
    """ISO 8601 in UTC, to the second, as the Query protocol writes times."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def query_answer(
    action: str, members: Mapping[str, object], *, namespace: str | None = STS_NAMESPACE
) -> Response:
    """A Query protocol answer: <ActionResponse><ActionResult>…</ActionResult>…."""
    rid = request_id()
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    text = (
        f"<{action}Response{xmlns}><{action}Result>{_members(members)}</{action}Result>"
        f"<ResponseMetadata><RequestId>{rid}</RequestId></ResponseMetadata></{action}Response>"
    )
    return _xml(200, text, rid)


def query_error(error: AwsError, *, namespace: str | None = STS_NAMESPACE) -> Response:
    """A Query protocol error (sts, iam)."""
    rid = request_id()
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    fault = "Sender" if error.status < 500 else "Receiver"
    text = (
        f"<ErrorResponse{xmlns}><Error><Type>{fault}</Type><Code>{escape(error.code)}</Code>"
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{rid}</RequestId>"
        "</ErrorResponse>"
    )
    return _xml(error.status, text, rid)


def s3_error(error: AwsError) -> Response:
    """A REST XML error: S3 wraps it in nothing."""
    rid = secrets.token_hex(8).upper()
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{rid}</RequestId><HostId>{secrets.token_urlsafe(32)}</HostId></Error>"
    )
    headers = (("Content-Type", "application/xml"), ("x-amz-request-id", rid))
    return Response(error.status, headers, text.encode())


def _xml(status: int, text: str, rid: str) -> Response:
    headers = (("Content-Type", "text/xml"), ("x-amzn-RequestId", rid))
    return Response(status, headers, text.encode())


def escape(text: str) -> str:
    """Text for an XML answer; what XML 1.0 can't hold at all is a question mark."""
    return escape_markup("".join(c if _in_xml(c) else "?" for c in text))


def _in_xml(c: str) -> bool:
    return c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"


def _members(members: Mapping[str, object]) -> str:
    parts = []
    for name, value in members.items():
        if value is None:
            continue
        inner = _members(value) if isinstance(value, Mapping) else escape(str(value))
        parts.append(f"<{name}>{inner}</{name}>")
    return "".join(parts)
