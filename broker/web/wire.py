"""How values look in the API's JSON: times as RFC 3339 with `Z`, snake_case, integers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from pydantic import AfterValidator, AwareDatetime
from starlette.responses import Response


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time within the years 1 to 9999 of UTC") from None


# A time that a caller sends: RFC 3339 with its zone, in UTC from here on. At either end of the
# calendar a zone leads beyond it.
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


def instant(moment: datetime | None) -> str | None:
    """Whole seconds: `2026-01-02T03:04:05Z`."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_response(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
