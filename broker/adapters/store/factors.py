"""The verbs of the second factor: counting attempts, burning steps, enrolling.

Owns: that a step is accepted once, that attempts are counted before codes are
looked at, and what each success changes. Enrolment and recovery codes are in
`enrolment`. Does not own: whether a code is right (`identity.totp`), who may
enrol (`identity.second_factor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.adapters.store.engine import Database
from broker.adapters.store.enrolment import (
    create_code,
    find_code,
    replace_recovery_codes,
    spend_enrolment_code,
    spend_recovery_code,
)
from broker.adapters.store.login_sessions import end_sessions, find_live, swap_cookie
from broker.adapters.store.principals import lock_person
from broker.adapters.store.records import append
from broker.adapters.store.schema import (
    factors,
    login_sessions,
    mfa_failures,
    recovery_codes,
    tokens,
)
from broker.audit.record import Event
from broker.errors import NotFound
from broker.identity.sessions import LoginSession, Token
from broker.identity.totp import (
    ENROLMENT_CODE_LIFETIME,
    MAY_ENROL_FOR,
    Attempt,
    Burned,
    Factor,
    Invitation,
    Sealed,
    locked_for,
)


class SqlFactorStore:
    """Implements `identity.totp.FactorStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def confirmed_factors(self, principal_id: str) -> tuple[Factor, ...]:
        """The person's authenticators, oldest first."""
        async with self._database.read() as conn:
            return await _factors(
                conn, factors.c.principal_id == principal_id, factors.c.confirmed_at.is_not(None)
            )

    async def pending_factor(self, principal_id: str) -> Factor | None:
        """The unconfirmed one, if it was started in the last MAY_ENROL_FOR."""
        async with self._database.read() as conn:
            now = await self._database.now(conn)
            found = await _factors(
                conn,
                factors.c.principal_id == principal_id,
                factors.c.confirmed_at.is_(None),
                factors.c.created_at > now - MAY_ENROL_FOR,
            )
        return found[-1] if found else None

    async def start_factor(self, principal_id: str, factor_id: str, secret: Sealed) -> Factor:
        """Replace any unconfirmed factor with this one. Raises NotFound for no such principal."""
        async with self._database.begin() as conn:
            if await lock_person(conn, principal_id) is None:
                raise NotFound
            now = await self._database.now(conn)
            await conn.execute(
                delete(factors).where(
                    factors.c.principal_id == principal_id, factors.c.confirmed_at.is_(None)
                )
            )
            await conn.execute(
                insert(factors).values(
                    id=factor_id,
                    principal_id=principal_id,
                    kind="totp",
                    key_id=secret.key_id,
                    version=secret.version,
                    nonce=secret.nonce,
                    ciphertext=secret.ciphertext,
                    created_at=now,
                    last_step=-1,
                )
            )
        return Factor(factor_id, principal_id, secret, None, -1, now)

    async def count_attempt(self, principal_id: str) -> Attempt:
        """Raises NotFound for no such principal."""
        async with self._database.begin() as conn:
            if await lock_person(conn, principal_id) is None:
                raise NotFound
            now = await self._database.now(conn)
            query = select(mfa_failures).where(mfa_failures.c.principal_id == principal_id)
            row = (await conn.execute(query)).one_or_none()
            if row is None:
                await conn.execute(
                    insert(mfa_failures).values(
                        principal_id=principal_id, failures=1, last_failure_at=now
                    )
                )
                return Attempt(1, None, now)
            wait = locked_for(row.failures, row.last_failure_at, now)
            if wait is not None:
                return Attempt(row.failures, wait, now)
            await conn.execute(
                update(mfa_failures)
                .where(mfa_failures.c.principal_id == principal_id)
                .values(failures=row.failures + 1, last_failure_at=now)
            )
            return Attempt(row.failures + 1, None, now)

    async def record_failure(self, event: Event, *, locked: Event | None) -> None:
        """Append mfa.failed, and mfa.locked where given."""
        async with self._database.begin() as conn:
            await append(conn, [event] if locked is None else [event, locked])

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
        """Only ACCEPTED changes anything."""
        async with self._database.begin() as conn:
            found = await self._lock(conn, factor_id, login_session_id, replaces)
            if found is None or found.factor.confirmed_at is None:
                return Burned.GONE
            if step <= found.factor.last_step:
                return Burned.REPLAYED
            await conn.execute(
                update(factors).where(factors.c.id == factor_id).values(last_step=step)
            )
            await _raise_session(conn, found, replaces, cookie, enrolled=False)
            await append(conn, [event])
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
        """GONE also where the person has a factor by now that this login session never showed."""
        async with self._database.begin() as conn:
            found = await self._lock(conn, factor_id, login_session_id, replaces)
            if found is None or found.factor.confirmed_at is not None:
                return Burned.GONE
            if step <= found.factor.last_step:
                return Burned.REPLAYED
            if not found.may_replace and await _factors(
                conn,
                factors.c.principal_id == found.person.id,
                factors.c.confirmed_at.is_not(None),
            ):
                return Burned.GONE
            if enrolment_code_hash is not None and not await spend_enrolment_code(
                conn, enrolment_code_hash, found.person, found.now
            ):
                return Burned.GONE
            await _make_only_factor(conn, found, step)
            await replace_recovery_codes(conn, found.person.id, recovery_code_hashes, found.now)
            await _raise_session(conn, found, replaces, cookie, enrolled=True)
            await append(conn, [event])
            return Burned.ACCEPTED

    async def find_enrolment_code(self, code_hash: bytes, principal_id: str) -> bool:
        """Whether this live code is for this principal."""
        async with self._database.read() as conn:
            return await find_code(conn, code_hash, principal_id, await self._database.now(conn))

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
        """When it expires. Raises NotFound for no such principal; ValueError unless the code is
        for either a principal or a provider and address.
        """
        async with self._database.begin() as conn:
            expires_at = await create_code(
                conn,
                self._database,
                code_hash,
                principal_id=principal_id,
                provider=provider,
                email=email,
                created_by=created_by,
            )
            await append(conn, [event])
            return expires_at

    async def create_enrolment_codes(
        self, invitations: Sequence[Invitation], *, created_by: str
    ) -> datetime:
        """Raises NotFound where one of the principals is not there: then none is stored."""
        async with self._database.begin() as conn:
            expires_at = await self._database.now(conn) + ENROLMENT_CODE_LIFETIME
            # In one order everywhere, so that two of these can't wait for each other.
            for one in sorted(invitations, key=lambda one: one.principal_id):
                expires_at = await create_code(
                    conn,
                    self._database,
                    one.code_hash,
                    principal_id=one.principal_id,
                    provider=None,
                    email=None,
                    created_by=created_by,
                )
            await append(conn, [one.event for one in invitations])
            return expires_at

    async def spend_recovery_code(
        self, principal_id: str, code_hash: bytes, login_session_id: str, event: Event
    ) -> bool:
        """The login session may enrol for MAY_ENROL_FOR; its second factor stays pending."""
        async with self._database.begin() as conn:
            if await lock_person(conn, principal_id) is None:
                return False
            now = await self._database.now(conn)
            session = await find_live(conn, login_session_id, now)
            if session is None or session.principal_id != principal_id:
                return False
            if not await spend_recovery_code(conn, principal_id, code_hash):
                return False
            await conn.execute(
                update(login_sessions)
                .where(login_sessions.c.id == login_session_id)
                .values(may_enrol_until=now + MAY_ENROL_FOR)
            )
            await append(conn, [event])
            return True

    async def reset_factors(self, principal_id: str, event: Event) -> bool:
        """False where there is no such principal."""
        async with self._database.begin() as conn:
            if await lock_person(conn, principal_id) is None:
                return False
            await end_sessions(conn, await self._database.now(conn), principal_id=principal_id)
            for table in (factors, recovery_codes, mfa_failures):
                await conn.execute(delete(table).where(table.c.principal_id == principal_id))
            await append(conn, [event])
            return True

    async def _lock(
        self,
        conn: AsyncConnection,
        factor_id: str,
        login_session_id: str,
        replaces: Token | None,
    ) -> _Locked | None:
        """The person locked, with their factor and login session as they are under that lock.

        None unless both are there, of one person who is not suspended, and the session's
        cookie `replaces` too.
        """
        query = select(factors.c.principal_id).where(factors.c.id == factor_id)
        principal_id = (await conn.execute(query)).scalar_one_or_none()
        if principal_id is None:
            return None
        person = await lock_person(conn, principal_id)
        now = await self._database.now(conn)
        factor = await _factors(conn, factors.c.id == factor_id)
        session = await find_live(conn, login_session_id, now)
        if person is None or person.suspended_at is not None or not factor or session is None:
            return None
        if session.principal_id != principal_id:
            return None
        if replaces is not None and not await _has_cookie(conn, session, replaces):
            return None
        return _Locked(person, factor[0], session, now)


@dataclass(frozen=True, slots=True)
class _Locked:
    person: Row[Any]
    factor: Factor
    session: LoginSession
    now: datetime

    @property
    def may_replace(self) -> bool:
        """Whether this login session showed the present factor, or a recovery code instead."""
        until = self.session.may_enrol_until
        return self.session.mfa_time is not None or (until is not None and until > self.now)


async def _factors(conn: AsyncConnection, *conditions: ColumnElement[bool]) -> tuple[Factor, ...]:
    query = select(factors).where(*conditions).order_by(factors.c.created_at, factors.c.id)
    return tuple(
        Factor(
            id=row.id,
            principal_id=row.principal_id,
            sealed_secret=Sealed(row.key_id, row.version, row.nonce, row.ciphertext),
            confirmed_at=row.confirmed_at,
            last_step=row.last_step,
            created_at=row.created_at,
        )
        for row in (await conn.execute(query)).all()
    )


async def _has_cookie(conn: AsyncConnection, session: LoginSession, cookie: Token) -> bool:
    query = select(tokens.c.hash).where(
        tokens.c.hash == cookie.hash, tokens.c.login_session_id == session.id
    )
    return (await conn.execute(query)).first() is not None


async def _make_only_factor(conn: AsyncConnection, found: _Locked, step: int) -> None:
    await conn.execute(
        delete(factors).where(
            factors.c.principal_id == found.person.id, factors.c.id != found.factor.id
        )
    )
    await conn.execute(
        update(factors)
        .where(factors.c.id == found.factor.id)
        .values(confirmed_at=found.now, last_step=step)
    )


async def _raise_session(
    conn: AsyncConnection,
    found: _Locked,
    replaces: Token | None,
    cookie: Token | None,
    *,
    enrolled: bool,
) -> None:
    """The factor was shown in this login session now; failures are forgotten."""
    values: dict[str, Any] = {"mfa_time": found.now}
    if enrolled:
        values["may_enrol_until"] = None
    await conn.execute(
        update(login_sessions).where(login_sessions.c.id == found.session.id).values(**values)
    )
    await conn.execute(delete(mfa_failures).where(mfa_failures.c.principal_id == found.person.id))
    await swap_cookie(conn, found.session, replaces, cookie, found.now)
