"""What a caller may say when asking for credentials.

Owns: the body of `POST /v1/credentials`, parsed strictly into one value, and
new issuance ids. Whatever decides about rights (role ARN, external id, tags,
session name, source identity) is not among its fields: those come from the
access policy and the login alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.access.finding import dotted, nearest
from broker.access.grammar import statement_faults
from broker.access.parameter import MAX_VALUE
from broker.access.policy import PARAMETER_NAME, ROLE_NAME
from broker.access.session_policy import compact
from broker.errors import InvalidRequest

MAX_REASON = 500
MAX_CLIENT = 128
MAX_PARAMETERS = 32
MAX_RESTRICT_STATEMENTS = 10
MAX_RESTRICT_CHARACTERS = 2048

_FIELDS = ("role", "duration", "reason", "parameters", "restrict", "client")


# Stands for an id where nothing is issued: no real one has a zero, which base32 lacks.
PLACEHOLDER_ID = "iss-" + "0" * 26


# Of each byte its lowest five bits, as a character of RFC 4648's alphabet.
_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567" * 8


def new_issuance_id() -> str:
    """`iss-` and 26 base32 characters: 130 random bits, since session names are made of it."""
    # One call for random bytes, not one a character: this is on the hot path.
    return "iss-" + secrets.token_bytes(26).translate(_BASE32).decode("ascii")


_NAME = re.compile(r"[A-Za-z][A-Za-z_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """`duration` in seconds as asked, not yet judged. `restrict`: Deny statements, parsed JSON.
    `client` names the program that asks, for the record alone.
    """

    role: str
    duration: int | None = None
    reason: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    restrict: tuple[Mapping[str, object], ...] = ()
    client: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> CredentialRequest:
        """Types are exact: nothing is coerced, and an unknown field is refused.

        Raises InvalidRequest.
        """
        for name in body:
            if name not in _FIELDS:
                instead = _ended(nearest(name, _FIELDS))
                raise InvalidRequest(f"{_shown(name)} is no field here; {instead}")
        return cls(
            role=_role(body.get("role")),
            duration=_duration(body.get("duration")),
            reason=_line(body.get("reason"), "reason", MAX_REASON),
            parameters=_parameters(body.get("parameters")),
            restrict=_restrict(body.get("restrict")),
            client=_line(body.get("client"), "client", MAX_CLIENT),
        )


def _shown(name: object) -> str:
    """The name where it looks like one. What does not may be a secret in the wrong place, and
    error bodies end up in logs.
    """
    looks_like_one = isinstance(name, str) and _NAME.fullmatch(name)
    return f"{name!r}" if looks_like_one else "A name that is left out here"


def _ended(advice: str) -> str:
    return advice if advice.endswith("?") else f"{advice}."


def _role(value: object) -> str:
    if not isinstance(value, str) or not ROLE_NAME.fullmatch(value):
        raise InvalidRequest("role is needed: a role's short name, as `broker roles` lists it.")
    return value


def _duration(value: object) -> int | None:
    # True is an int to Python, not to the person who wrote it.
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidRequest("duration is a whole number of seconds.")
    return value


def _line(value: object, name: str, longest: int) -> str | None:
    """One printable line; control characters would forge lines in terminals and logs."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise InvalidRequest(f"{name} is one line of text without control characters.")
    if len(value) > longest:
        raise InvalidRequest(f"{name} is at most {longest} characters long.")
    return value.strip() or None


def _parameters(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest('parameters is an object, such as {"bucket": "reports"}.')
    if len(value) > MAX_PARAMETERS:
        raise InvalidRequest(f"There are more than {MAX_PARAMETERS} parameters.")
    for name, text in value.items():
        if not isinstance(name, str) or not PARAMETER_NAME.fullmatch(name):
            raise InvalidRequest(f"{_shown(name)} is no name of a parameter.")
        if not isinstance(text, str) or len(text) > MAX_VALUE:
            raise InvalidRequest(f"Parameter {name} is a string of at most {MAX_VALUE} characters.")
    return dict(value)


def _restrict(value: object) -> tuple[Mapping[str, object], ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InvalidRequest("restrict is a list of Deny statements.")
    if len(value) > MAX_RESTRICT_STATEMENTS:
        raise InvalidRequest(f"restrict has more than {MAX_RESTRICT_STATEMENTS} statements.")
    for index, statement in enumerate(value):
        for fault in statement_faults(statement, ("restrict", index), deny_only=True):
            raise InvalidRequest(f"{dotted(fault.path)}: {fault.message}; {_ended(fault.instead)}")
    if len(compact(value)) > MAX_RESTRICT_CHARACTERS:
        raise InvalidRequest(f"restrict is longer than {MAX_RESTRICT_CHARACTERS} characters.")
    return tuple(value)
