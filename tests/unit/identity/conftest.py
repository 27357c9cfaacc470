"""An in-memory factor store with the rules its Protocol states, and people to try it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.adapters.sealing import FileKeyRing
from broker.audit.record import Actor, Event
from broker.identity import totp
from broker.identity.principal import AuthContext, Principal, PrincipalKind
from broker.identity.second_factor import SecondFactor
from broker.identity.sessions import Authenticated, Token, TokenKind
from broker.identity.totp import (
    ENROLMENT_CODE_LIFETIME,
    Attempt,
    Burned,
    Enrolment,
    Factor,
    Invitation,
    Sealed,
)

PERSON = "p-aaaaaaaaaaaaaaaa"
ACTOR = Actor(PERSON, "person")
START = datetime(2026, 11, 24, 12, 0, 5, tzinfo=UTC)


@dataclass
class MemoryFactorStore:
    now: datetime = START
    factors: list[Factor] = field(default_factory=list)
    failures: int = 0
    failed_at: datetime = START
    events: list[Event] = field(default_factory=list)
    enrolment_codes: set[bytes] = field(default_factory=set)
    recovery_codes: set[bytes] = field(default_factory=set)
    live_sessions: set[str] = field(default_factory=lambda: {"ls-1", "ls-2"})
    may_enrol: set[str] = field(default_factory=set)
    cookie: Token | None = None
    replaced: Token | None = None
    beaten: bool = False  # another process burns every step just before
    may_replace: bool = False  # whether the sessions showed the confirmed factor

    def _ask_for(self, principal_id: str) -> None:
        if principal_id != PERSON:
            raise LookupError(f"nobody here is {principal_id}")

    async def confirmed_factors(self, principal_id: str) -> tuple[Factor, ...]:
        self._ask_for(principal_id)
        return tuple(f for f in self.factors if f.confirmed_at is not None)

    async def pending_factor(self, principal_id: str) -> Factor | None:
        self._ask_for(principal_id)
        pending = [f for f in self.factors if f.confirmed_at is None]
        return pending[-1] if pending else None

    async def start_factor(self, principal_id: str, factor_id: str, secret: Sealed) -> Factor:
        self.factors = [f for f in self.factors if f.confirmed_at is not None]
        self.factors.append(Factor(factor_id, principal_id, secret, None, -1, self.now))
        return self.factors[-1]

    async def count_attempt(self, principal_id: str) -> Attempt:
        self._ask_for(principal_id)
        wait = totp.locked_for(self.failures, self.failed_at, self.now)
        if wait is not None:
            return Attempt(self.failures, wait, self.now)
        self.failures += 1
        self.failed_at = self.now
        return Attempt(self.failures, None, self.now)

    async def record_failure(self, event: Event, *, locked: Event | None) -> None:
        self.events += [event] if locked is None else [event, locked]

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
        factor = next((f for f in self.factors if f.id == factor_id), None)
        if factor is None or login_session_id not in self.live_sessions:
            return Burned.GONE
        if self.beaten or step <= factor.last_step:
            return Burned.REPLAYED
        self.factors[self.factors.index(factor)] = replace(factor, last_step=step)
        self.failures, self.cookie, self.replaced = 0, cookie, replaces
        self.events.append(event)
        return Burned.ACCEPTED

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
        if self.beaten:
            return Burned.REPLAYED
        if not self.may_replace and await self.confirmed_factors(PERSON):
            return Burned.GONE
        if login_session_id not in self.live_sessions:
            return Burned.GONE
        if enrolment_code_hash is not None:
            if enrolment_code_hash not in self.enrolment_codes:
                return Burned.GONE
            self.enrolment_codes.remove(enrolment_code_hash)
        factor = next(f for f in self.factors if f.id == factor_id)
        self.factors = [replace(factor, confirmed_at=self.now, last_step=step)]
        self.recovery_codes = set(recovery_code_hashes)
        self.failures, self.cookie, self.replaced = 0, cookie, replaces
        self.events.append(event)
        return Burned.ACCEPTED

    async def find_enrolment_code(self, code_hash: bytes, principal_id: str) -> bool:
        self._ask_for(principal_id)
        return code_hash in self.enrolment_codes

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
        self.enrolment_codes = {code_hash}
        return self.now + totp.ENROLMENT_CODE_LIFETIME

    async def spend_recovery_code(
        self, principal_id: str, code_hash: bytes, login_session_id: str, event: Event
    ) -> bool:
        self._ask_for(principal_id)
        if code_hash not in self.recovery_codes:
            return False
        self.recovery_codes.remove(code_hash)
        self.may_enrol.add(login_session_id)
        self.events.append(event)
        return True

    async def create_enrolment_codes(
        self, invitations: Sequence[Invitation], *, created_by: str
    ) -> datetime:
        self.enrolment_codes |= {invitation.code_hash for invitation in invitations}
        return self.now + ENROLMENT_CODE_LIFETIME

    async def reset_factors(self, principal_id: str, event: Event) -> bool:
        self.factors, self.recovery_codes, self.failures = [], set(), 0
        return True


@dataclass
class World:
    """A person in front of one broker; `who()` is what the session store would say now."""

    store: MemoryFactorStore
    sealer: FileKeyRing
    mfa_time: datetime | None = None
    may_enrol_until: datetime | None = None
    pinned_admin: bool = False
    actor: Actor = ACTOR

    def second_factor(self, enrolment: Enrolment = Enrolment.INVITED) -> SecondFactor:
        return SecondFactor(self.store, self.sealer, enrolment, "broker test")

    def who(self, login_session_id: str = "ls-1", handle: str = "ada@example.com") -> Authenticated:
        principal = Principal(
            "p-aaaaaaaaaaaaaaaa", PrincipalKind.PERSON, "https://idp", "s1", "corp", handle
        )
        context = AuthContext(
            principal, login_session_id, START, self.mfa_time, START + timedelta(hours=12)
        )
        return Authenticated(
            context=context,
            token_kind=TokenKind.BROWSER,
            token_hash=b"",
            role=None,
            has_confirmed_factor=any(f.confirmed_at for f in self.store.factors),
            pinned_admin=self.pinned_admin,
            may_enrol_until=self.may_enrol_until,
            access_version=0,
            now=self.store.now,
            client="browser",
        )


@pytest.fixture
def world(tmp_path) -> World:
    return World(MemoryFactorStore(), FileKeyRing.create(tmp_path / "sealing"))
