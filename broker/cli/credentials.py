"""Credentials as the broker gives them: asked for, and read strictly.

Owns the request body of `POST /v1/credentials` and the parsed answer. Does not
own how they are shown (`formats`) or kept (`cached`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from broker.cli import answers, witness
from broker.cli.cached import Wanted
from broker.cli.server import Server

# Printable ASCII: what AWS gives is narrower, and no shell or header takes offence at it.
_VALUE = re.compile(r"[!-~]{1,16384}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


class Credentials(NamedTuple):
    """The secret triple, and what the broker said of it. Never shown by repr."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: datetime
    account_id: str | None
    region: str | None
    granted_seconds: int | None
    bound_by: str | None
    issuance_id: str | None

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def expiration(self) -> str:
        """With its zone, as SDKs demand: `2026-01-02T03:04:05Z`."""
        return self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Api(Protocol):
    """A person's session, or a CI job's. `server`: whose log the receipts are of."""

    @property
    def server(self) -> Server: ...

    def post(self, target: str, value: dict[str, object]) -> dict[str, object]: ...


def issue(
    session: Api, wanted: Wanted, *, client: str, restrict: list[object] | None = None
) -> Credentials:
    """Ask for credentials; `client` names the command for the record. The receipt is kept.

    Raises what the broker refuses with, and LogMistrusted for a false receipt.
    """
    request: dict[str, object] = {"role": wanted.role, "client": f"broker {client}"}
    if wanted.duration is not None:
        request["duration"] = wanted.duration
    if wanted.reason is not None:
        request["reason"] = wanted.reason
    if wanted.parameters:
        request["parameters"] = wanted.parameters
    if restrict:
        request["restrict"] = restrict
    answer = session.post("/v1/credentials", request)
    issued = parse(answer)
    witness.keep_receipt(session.server, answer.get("receipt"), issued.issuance_id)
    return issued


def parse(value: dict[str, object]) -> Credentials:
    """Raises Unreachable for any other shape, without quoting it: it may hold secrets."""
    secret = value.get("credentials")
    if not isinstance(secret, dict):
        raise answers.not_a_broker("no credentials in it")
    duration = value.get("duration")
    granted = duration.get("granted") if isinstance(duration, dict) else None
    bound_by = duration.get("bound_by") if isinstance(duration, dict) else None
    issuance_id = value.get("issuance_id")
    return Credentials(
        _matching(secret, "access_key_id", _VALUE),
        _matching(secret, "secret_access_key", _VALUE),
        _matching(secret, "session_token", _VALUE),
        _moment(_matching(secret, "expiration", _TIME)),
        _optional(value, "account_id", _ACCOUNT),
        _optional(value, "region", _REGION),
        granted if type(granted) is int and granted > 0 else None,
        bound_by if isinstance(bound_by, str) else None,
        issuance_id if isinstance(issuance_id, str) else None,
    )


def _matching(value: dict[str, object], name: str, pattern: re.Pattern[str]) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise answers.not_a_broker(f"{name} is not one")
    return found


def _optional(value: dict[str, object], name: str, pattern: re.Pattern[str]) -> str | None:
    return None if value.get(name) is None else _matching(value, name, pattern)


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise answers.not_a_broker("expiration is not a time") from None
