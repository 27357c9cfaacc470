"""URL-encoded form bodies, read strictly.

A name given twice is refused (RFC 6749 section 3.2 demands it, and two readers
of one body must never disagree on which one counts); so is any other body type.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from broker.errors import InvalidRequest

_MEDIA_TYPE = "application/x-www-form-urlencoded"
_MAX_FIELDS = 40


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of the body. Raises InvalidRequest."""
    return single_values(await form_pairs(request))


async def form_pairs(request: Request) -> list[tuple[str, str]]:
    """The fields as they came. Raises InvalidRequest."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise InvalidRequest(f"Send a form as {_MEDIA_TYPE}.")
    try:
        return decode_pairs((await request.body()).decode("ascii"))
    except UnicodeDecodeError:
        raise InvalidRequest("The form is not URL-encoded.") from None


def decode_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of a query or form as they came. Raises InvalidRequest for undecodable text."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidRequest("The query or form is not URL-encoded UTF-8.") from None


def query_pairs(request: Request) -> list[tuple[str, str]]:
    return decode_pairs(request.scope["query_string"].decode("latin-1"))


def single_values(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Raises InvalidRequest for a name that stands twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidRequest("A parameter is given more than once.")
        values[name] = value
    return values
