"""The second factor: time-based one-time codes (RFC 6238), recovery and enrolment codes.

Owns: what a code is, which step it belongs to, how failures are slowed, and the
verbs of the factors' store. Does not own: the order of a verification or an
enrolment (`second_factor`), sealing of secrets (`adapters/sealing`), pages
(`web`).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import pyotp

from broker.audit.record import Event
from broker.identity.sessions import Token

STEP_SECONDS = 30
# The neighbouring steps count too (RFC 6238 section 5.2): phones' clocks differ, people are slow.
WINDOW_STEPS = 1
FREE_FAILURES = 4
LONGEST_BACKOFF = timedelta(minutes=15)
HARD_STOP_FAILURES = 100
# What a client is told to wait after the hard stop, which only an admin's reset lifts: a day.
HARD_STOP_RETRY_AFTER = 86400
ENROLMENT_CODE_LIFETIME = timedelta(hours=24)
MAY_ENROL_FOR = timedelta(minutes=10)


# ASCII alone: `\d`, int() and pyotp itself would take full-width digits.
_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_SECRET_BYTES = 20  # 160 bits, as RFC 4226 section 4 recommends


def new_secret() -> str:
    """A fresh shared secret in base32, 32 characters without padding."""
    return pyotp.random_base32(_SECRET_BYTES * 8 // 5)


def otpauth_uri(secret: str, *, account: str, label: str) -> str:
    """What an authenticator app reads from the QR code. `label` names this broker."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=label)


def matching_step(secret: str, code: str, now: datetime, last_step: int) -> int | None:
    """The 30 s step whose code this is, within one step of `now` and later than `last_step`.

    None where there is none; a code of a step used before is no better than a wrong one.
    `secret` is base32; `code` must be six ASCII digits and nothing else.
    """
    if not _CODE.fullmatch(code):
        return None
    presented = code.encode("ascii")
    totp = pyotp.TOTP(secret, interval=STEP_SECONDS)
    current = totp.timecode(now)
    found: int | None = None
    # Every candidate is compared, so that the time taken does not tell which step was near.
    for step in range(max(current - WINDOW_STEPS, 0), current + WINDOW_STEPS + 1):
        same = hmac.compare_digest(totp.generate_otp(step).encode("ascii"), presented)
        if same and step > last_step and found is None:
            found = step
    return found


def backoff(failures: int) -> timedelta | None:
    """How long an account is locked from its `failures`-th failure in a row.

    None for the first four; then 1 s, doubling, up to 15 min; from the 100th on
    `timedelta.max`, which means: until an admin resets the factor.
    """
    if failures <= FREE_FAILURES:
        return None
    if failures >= HARD_STOP_FAILURES:
        return timedelta.max
    # The exponent is bounded: 2^94 seconds are more than a timedelta holds.
    doublings = min(failures - FREE_FAILURES - 1, 10)
    return min(timedelta(seconds=2**doublings), LONGEST_BACKOFF)


def locked_for(failures: int, last_failure_at: datetime, now: datetime) -> int | None:
    """Whole seconds, rounded up, that the lock of the last failure still lasts; None where
    there is none. After the hard stop always HARD_STOP_RETRY_AFTER.
    """
    wait = backoff(failures)
    if wait is None:
        return None
    if wait == timedelta.max:
        return HARD_STOP_RETRY_AFTER
    remaining = last_failure_at + wait - now
    return -(-remaining // timedelta(seconds=1)) if remaining > timedelta() else None


class Enrolment(StrEnum):
    """Setting `mfa.enrolment`: who may confirm a first factor. `open` never covers admins."""

    INVITED = "invited"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret under AES-256-GCM: the key's id and format version are in the clear beside it."""

    key_id: str
    version: int
    nonce: bytes
    ciphertext: bytes


class Sealer(Protocol):
    """Seals secrets; AAD is purpose|owner id|key id|version, so a copied row opens for nobody."""

    def seal(self, plaintext: bytes, *, purpose: str, owner: str) -> Sealed: ...

    def unseal(self, sealed: Sealed, *, purpose: str, owner: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Factor:
    """One authenticator of a person. `last_step` is the newest accepted 30 s step, or -1."""

    id: str
    principal_id: str
    sealed_secret: Sealed
    confirmed_at: datetime | None
    last_step: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted before its code was looked at.

    `retry_after` (seconds) is set where the account is locked: the code must then
    not be checked at all. `failures` includes this attempt.
    """

    failures: int
    retry_after: int | None
    now: datetime


class Burned(StrEnum):
    ACCEPTED = "accepted"
    REPLAYED = "replayed"  # the step, or a later one, was used before
    GONE = "gone"  # the factor or login session is no longer there


@dataclass(frozen=True, slots=True)
class Invitation:
    """An enrolment code for a principal: its hash, and its enrolment_code.created."""

    principal_id: str
    code_hash: bytes
    event: Event


class FactorStore(Protocol):
    async def confirmed_factors(self, principal_id: str) -> tuple[Factor, ...]: ...

    async def pending_factor(self, principal_id: str) -> Factor | None:
        """The newest unconfirmed factor started in the last MAY_ENROL_FOR, if any."""
        ...

    async def start_factor(self, principal_id: str, factor_id: str, secret: Sealed) -> Factor:
        """Replace any unconfirmed factor of the principal with this one."""
        ...

    async def count_attempt(self, principal_id: str) -> Attempt:
        """Count one attempt against the account, in its own transaction, before any check.

        The lock follows `totp.backoff(failures)`; an attempt while locked is not counted.
        """
        ...

    async def record_failure(self, event: Event, *, locked: Event | None) -> None:
        """Append mfa.failed, and mfa.locked where this failure began a lock."""
        ...

    async def burn_totp_step(
        self,
        factor_id: str,
        step: int,
        *,
        login_session_id: str,
        replaces: Token | None,
        cookie: Token | None,
        event: Event,
    ) -> Burned:
        """One transaction: burn the step (it must exceed last_step), raise the login session
        (mfa_time = now), clear the failures, swap the browser cookie `replaces` for `cookie`
        where given, append the event. Only ACCEPTED changes anything.
        """
        ...

    async def confirm_factor(
        self,
        factor_id: str,
        step: int,
        *,
        login_session_id: str,
        replaces: Token | None,
        cookie: Token | None,
        enrolment_code_hash: bytes | None,
        recovery_code_hashes: tuple[bytes, ...],
        event: Event,
    ) -> Burned:
        """One transaction: spend the enrolment code where given (GONE if it can't be), confirm
        the factor with its first step burned, drop the person's other factors, replace the
        recovery codes, raise the session, clear failures and may_enrol_until, append.

        GONE also where the person has a confirmed factor that this login session neither showed
        nor may replace: another browser enrolled since this one was let in without one.
        """
        ...

    async def find_enrolment_code(self, code_hash: bytes, principal_id: str) -> bool:
        """Whether this unspent, unexpired code is for this principal (by id, or provider and
        verified e-mail).
        """
        ...

    async def create_enrolment_code(
        self,
        code_hash: bytes,
        *,
        principal_id: str | None,
        provider: str | None,
        email: str | None,
        created_by: str,
        event: Event,
    ) -> datetime:
        """Returns when the code expires. One unspent code a person: a new one voids the older."""
        ...

    async def create_enrolment_codes(
        self, invitations: Sequence[Invitation], *, created_by: str
    ) -> datetime:
        """Several people's, in one transaction; when they expire. As `create_enrolment_code`."""
        ...

    async def spend_recovery_code(
        self, principal_id: str, code_hash: bytes, login_session_id: str, event: Event
    ) -> bool:
        """Spend the code and let this login session enrol for MAY_ENROL_FOR; False if unknown or
        spent. Clears nothing else: the session's factor stays pending.
        """
        ...

    async def reset_factors(self, principal_id: str, event: Event) -> bool:
        """Drop all factors, recovery codes and failures of the person, and end their sessions."""
        ...
