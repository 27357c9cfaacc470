"""Reading what the broker answers, strictly: a shape that is not the broker's is not believed."""

from __future__ import annotations

import re

from broker.cli.failure import Failure, Unreachable, refusal
from broker.cli.terminal import clean
from broker.cli.transport import Answer

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,80}")


def members(answer: Answer) -> dict[str, object]:
    """The JSON object of a 2xx answer. Raises the failure that any other answer is."""
    if not 200 <= answer.status < 300:
        raise failure_of(answer)
    value = _json_object(answer)
    if answer.content_type != "application/json" or value is None:
        raise not_a_broker(f"{answer.status} without a JSON object")
    return value


def failure_of(answer: Answer) -> Failure:
    """The failure that a problem (RFC 9457) states; Unreachable where it is no problem."""
    value = _json_object(answer) if answer.content_type == "application/problem+json" else None
    code = value.get("code") if value else None
    if value is None or not isinstance(code, str) or not _CODE.fullmatch(code):
        return not_a_broker(f"status {answer.status} without a problem of the broker's")
    detail = value.get("detail") or value.get("title") or ""
    request_id = value.get("request_id")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        request_id = None
    return refusal(code, clean(detail), request_id, value)


def not_a_broker(what: str) -> Unreachable:
    return Unreachable(
        f"the answer is not a broker's ({what}): check the address, and what stands before it"
    )


def _json_object(answer: Answer) -> dict[str, object] | None:
    try:
        value = answer.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def text(value: dict[str, object], name: str) -> str:
    """A string member that must be there."""
    found = value.get(name)
    if not isinstance(found, str):
        raise not_a_broker(f"{name} is not a string")
    return found


def objects(value: dict[str, object], name: str) -> list[dict[str, object]]:
    """A list of objects that must be there."""
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise not_a_broker(f"{name} is not a list of objects")
    return found
