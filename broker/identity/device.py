"""Logging in a machine that has no browser (RFC 8628, the device authorization grant).

Owns: what a user code is, what the machine's requests may say, the lifetimes and
the pace of polling, the verbs of its store, and the events of each. Does not own:
the proof of the second factor that approving takes (`second_factor`), HTTP and the
pages (`web`).

The code is typed by a person, and a person can be talked into typing somebody
else's. So nothing is approved by opening an address, the page says where the
login was started, and what comes of it is a login session of client `device`,
which never administers, approves, grants or breaks glass.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.identity.oauth import CLI_CLIENT_ID, OAuthError, single_valued
from broker.identity.oauth_token import DeviceExchange, TokenPair
from broker.identity.sessions import DEVICE_CLIENT, LoginSession, Token, TokenKind

DEVICE_LOGIN_LIFETIME = timedelta(minutes=10)
INTERVAL = timedelta(seconds=5)
# RFC 8628 section 3.5: `slow_down` adds five seconds, for this poll and those after it.
SLOWED_BY = timedelta(seconds=5)
LONGEST_INTERVAL = timedelta(seconds=60)
# A network may deliver one poll late and the next on time.
POLL_LEEWAY = timedelta(seconds=1)

# RFC 8628 section 6.1: capitals without vowels, so that no word comes of it, and without Y.
# Eight of twenty letters are 34.5 bits.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_LENGTH = 8
_TYPED_LIMIT = 64
_USER_CODE = re.compile(rf"[{ALPHABET}]{{{_USER_CODE_LENGTH}}}", re.ASCII)
# The code has no digits, so these can only be misread letters; spaces and dashes of every kind
# are how people and phones write groups.
_MISREAD = str.maketrans({"8": "B", "5": "S", "2": "Z", "1": "L", "6": "G"})
_SEPARATORS = re.compile("[\\s\\-_.\u2010-\u2015\u2212]")

_MAX_HOST_NAME = 64
_NOT_IN_HOST_NAMES = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)

# Attempts to find a free user code: with a million in use, four collide once in 10^17.
_ATTEMPTS = 4


class DeviceFlow(StrEnum):
    """Setting `sessions.device_flow`."""

    ON = "on"
    SAME_NETWORK = "same_network"  # the approving browser's network must be the machine's
    OFF = "off"


def new_user_code() -> str:
    """A fresh code as it is shown: `WDJB-MJHT`."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(_USER_CODE_LENGTH))
    return f"{letters[:4]}-{letters[4:]}"


def read_user_code(typed: str) -> str | None:
    """What a person typed, as it is shown; None where it can't be a code.

    Case, spaces, dashes and digits that look like a letter are forgiven.
    """
    if len(typed) > _TYPED_LIMIT:
        return None
    letters = _SEPARATORS.sub("", typed).upper().translate(_MISREAD)
    return f"{letters[:4]}-{letters[4:]}" if _USER_CODE.fullmatch(letters) else None


def hash_of_user_code(user_code: str) -> bytes:
    """What is stored of a code, as `read_user_code` gives it (32 bytes)."""
    return hashlib.sha256(f"broker user code|{user_code}".encode("ascii")).digest()


def hash_of_device_code(device_code: str) -> bytes:
    """What is stored of a device code (32 bytes)."""
    return hashlib.sha256(f"broker device code|{device_code}".encode("ascii")).digest()


def clean_host_name(claimed: str | None) -> str | None:
    """What the machine calls itself, made harmless: at most 64 of `A-Za-z0-9._-`, else `?`.

    It is a claim: whoever starts a login may write anything, so it never is a sentence either.
    """
    if not claimed:
        return None
    return _NOT_IN_HOST_NAMES.sub("?", claimed[: 4 * _MAX_HOST_NAME])[:_MAX_HOST_NAME]


def same_network(one: str | None, other: str | None) -> bool:
    """Whether two addresses are in one /24 (IPv4) or /64 (IPv6). False where one is unknown."""
    if one is None or other is None:
        return False
    try:
        return _network(one) == _network(other)
    except ValueError:
        return False


def _network(address: str) -> IPv4Network | IPv6Network:
    parsed = ip_address(address)
    return ip_network((parsed, 24 if parsed.version == 4 else 64), strict=False)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What `POST /oauth/device_authorization` asks (RFC 8628 section 3.1)."""

    host_name: str | None  # as the machine calls itself

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> DeviceRequest:
        """The request in the form's pairs. Raises OAuthError."""
        parameters = single_valued(pairs)
        if parameters.get("client_id") != CLI_CLIENT_ID:
            raise OAuthError("invalid_client", "The client_id is not known.")
        if "scope" in parameters:
            raise OAuthError("invalid_scope", "This server has no scopes.")
        return cls(clean_host_name(parameters.get("host_name")))


@dataclass(frozen=True, slots=True)
class NewDeviceLogin:
    """A login that a machine starts; `id` names it in records and is no secret."""

    id: str
    device_code_hash: bytes
    user_code_hash: bytes
    host_name: str | None
    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login that waits for a person: where it was started, and when (the database's clock)."""

    id: str
    host_name: str | None
    ip: str | None
    user_agent: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to the machine (RFC 8628 section 3.2)."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)

    def response(self, verification_uri: str) -> dict[str, object]:
        """Its JSON members."""
        return {
            "device_code": self.device_code,
            "user_code": self.user_code,
            "verification_uri": verification_uri,
            "verification_uri_complete": f"{verification_uri}?user_code={self.user_code}",
            "expires_in": int(DEVICE_LOGIN_LIFETIME.total_seconds()),
            "interval": int(INTERVAL.total_seconds()),
        }


class Polled(StrEnum):
    """What a poll finds. A login is pending, then approved or denied, then redeemed; in the
    first two states it expires.
    """

    OK = "ok"
    PENDING = "pending"
    SLOW_DOWN = "slow_down"
    DENIED = "denied"  # by the person, or what they approved with has ended
    EXPIRED = "expired"
    REFUSED = "refused"  # unknown, or redeemed and over
    REUSED = "reused"  # the session made from it was ended


class DeviceStore(Protocol):
    async def open_device_login(self, new: NewDeviceLogin) -> bool:
        """Pending for DEVICE_LOGIN_LIFETIME. False, and nothing stored, where the user code is
        in use.
        """
        ...

    async def find_device_login(self, user_code_hash: bytes) -> DeviceLogin | None:
        """The login if it still waits for a person."""
        ...

    async def decide_device_login(
        self, user_code_hash: bytes, *, approve: bool, login_session_id: str, event: Event
    ) -> bool:
        """One transaction, one winner: approve or deny for the person of that live browser
        session. False where it no longer waits, or the session ended, or the person is
        suspended, or, to approve, has shown no second factor.

        `event` is device.approved or device.denied; the store adds what the machine is to its
        detail, and its id to the subject.
        """
        ...

    async def poll_device_login(
        self,
        device_code_hash: bytes,
        *,
        access: Token,
        refresh: Token,
        ip: str | None,
        user_agent: str | None,
        event: Event,
        reuse_event: Event,
    ) -> tuple[Polled, LoginSession | None]:
        """One transaction, one winner: redeem what was approved for a login session of client
        `device`, which inherits the browser session's auth_time and expires_at, and the
        mfa_time that it had when it approved; store both tokens, append.

        What waits is told so, or to slow down where the last poll was under the interval ago,
        which grows then. Showing a redeemed code again ends the session made from it: two
        parties hold it.

        `event` is login.succeeded, `reuse_event` session.revoked, both filled in as in
        `oauth.CodeStore.redeem_code`.
        """
        ...


async def start(
    store: DeviceStore, request: DeviceRequest, *, ip: str | None, user_agent: str | None
) -> Started:
    """Begin a login for a machine at that address. Raises OAuthError where no code is free."""
    device_code = secrets.token_urlsafe(32)
    for _ in range(_ATTEMPTS):
        user_code = new_user_code()
        new = NewDeviceLogin(
            id=f"dl-{secrets.token_hex(10)}",
            device_code_hash=hash_of_device_code(device_code),
            user_code_hash=hash_of_user_code(user_code),
            host_name=request.host_name,
            ip=ip,
            user_agent=user_agent,
        )
        if await store.open_device_login(new):
            return Started(device_code, user_code)
    raise OAuthError("temporarily_unavailable", "No code is free; try again.")


async def decide(
    store: DeviceStore,
    user_code: str,
    *,
    approve: bool,
    login_session_id: str,
    actor: Actor,
    request_id: str,
) -> bool:
    """What the person clicked; False where there is nothing left to decide. `user_code` is as
    `read_user_code` gives it. To approve, the caller has just verified a second factor.
    """
    subject = {"principal": actor.id, "login_session": login_session_id}
    event = Event(
        EventType.DEVICE_APPROVED if approve else EventType.DEVICE_DENIED,
        actor,
        Outcome.SUCCESS if approve else Outcome.DENIED,
        subject=subject,
        detail={} if approve else {"reason": "denied_by_person"},
        request_id=request_id,
    )
    return await store.decide_device_login(
        hash_of_user_code(user_code),
        approve=approve,
        login_session_id=login_session_id,
        event=event,
    )


_REFUSALS = {
    Polled.PENDING: ("authorization_pending", "Nobody has allowed this yet."),
    Polled.SLOW_DOWN: ("slow_down", "Ask five seconds later from now on."),
    Polled.DENIED: ("access_denied", "The login was denied."),
    Polled.EXPIRED: ("expired_token", "The code has expired; start again."),
}


async def poll(
    store: DeviceStore,
    request: DeviceExchange,
    *,
    ip: str | None,
    user_agent: str | None,
    request_id: str,
) -> TokenPair:
    """Redeem a device code. Raises OAuthError: those of RFC 8628 section 3.5, or invalid_grant."""
    access, refresh = Token.new(TokenKind.ACCESS), Token.new(TokenKind.REFRESH)
    actor = Actor("anonymous", "anonymous", ip=ip, user_agent=user_agent)
    event = Event(
        EventType.LOGIN_SUCCEEDED,
        actor,
        Outcome.SUCCESS,
        detail={"client": DEVICE_CLIENT},
        request_id=request_id,
    )
    reused = replace(event, type=EventType.SESSION_REVOKED, detail={"reason": "code_reused"})
    polled, session = await store.poll_device_login(
        hash_of_device_code(request.device_code),
        access=access,
        refresh=refresh,
        ip=ip,
        user_agent=user_agent,
        event=event,
        reuse_event=reused,
    )
    if polled is Polled.OK and session is not None:
        return TokenPair(access, refresh, session)
    error, description = _REFUSALS.get(
        polled, ("invalid_grant", "The device_code is not valid, or was used.")
    )
    raise OAuthError(error, description)
