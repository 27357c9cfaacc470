"""Stores and limits that count what passes through them.

Each is the SQL one with the few verbs that an operator graphs counted by how they
ended. Owns which ending counts as what.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from broker.adapters.store.engine import Database
from broker.adapters.store.factors import SqlFactorStore
from broker.adapters.store.logins import SqlLoginStore
from broker.adapters.store.throttle import SqlThrottle
from broker.adapters.telemetry.instruments import FACTOR_FAILURES, OTHER, UNKNOWN, Instruments
from broker.audit.record import Event
from broker.errors import RateLimited, Suspended
from broker.identity.login import LoggedIn, ProviderIdentity
from broker.identity.throttle import Limit
from broker.identity.totp import Burned


class CountedThrottle(SqlThrottle):
    def __init__(self, database: Database, instruments: Instruments) -> None:
        super().__init__(database)
        self._limited = instruments.rate_limited

    async def admit(self, limit: Limit, key: str) -> None:
        """Raises RateLimited."""
        try:
            await super().admit(limit, key)
        except RateLimited:
            self._limited.labels(limit.name).inc()
            raise


class CountedLogins(SqlLoginStore):
    def __init__(
        self,
        database: Database,
        instruments: Instruments,
        *,
        deny: Callable[[Event], Awaitable[None]],
    ) -> None:
        super().__init__(database, deny=deny)
        self._logins = instruments.logins

    async def log_in(
        self,
        identity: ProviderIdentity,
        **asked: Any,  # noqa: ANN401 - as the store has it
    ) -> LoggedIn:
        """Raises Suspended for a suspended principal; login.failed is then recorded."""
        try:
            logged_in = await super().log_in(identity, **asked)
        except Suspended:
            self._logins.labels(identity.provider, "suspended").inc()
            raise
        self._logins.labels(identity.provider, "succeeded").inc()
        return logged_in

    async def record_login_failure(self, event: Event) -> None:
        """Append login.failed."""
        # The provider of the attempt that the store holds: a configured one, or none.
        provider = event.subject.get("provider", UNKNOWN)
        self._logins.labels(provider, "failed").inc()
        await super().record_login_failure(event)


class CountedFactors(SqlFactorStore):
    def __init__(self, database: Database, instruments: Instruments) -> None:
        super().__init__(database)
        self._shown = instruments.second_factors
        self._failures = instruments.second_factor_failures
        self._locks = instruments.second_factor_locks

    async def record_failure(self, event: Event, *, locked: Event | None) -> None:
        """Append mfa.failed, and mfa.locked where given."""
        reason = event.detail.get("reason")
        self._failures.labels(reason if reason in FACTOR_FAILURES else OTHER).inc()
        if locked is not None:
            self._locks.inc()
        await super().record_failure(event, locked=locked)

    async def burn_totp_step(
        self,
        factor_id: str,
        step: int,
        **asked: Any,  # noqa: ANN401 - as the store has it
    ) -> Burned:
        """Only ACCEPTED changes anything."""
        return self._counted(await super().burn_totp_step(factor_id, step, **asked))

    async def confirm_factor(
        self,
        factor_id: str,
        step: int,
        **asked: Any,  # noqa: ANN401 - as the store has it
    ) -> Burned:
        """GONE also where the person has a factor by now that this login session never showed."""
        return self._counted(await super().confirm_factor(factor_id, step, **asked))

    def _counted(self, burned: Burned) -> Burned:
        if burned is Burned.ACCEPTED:
            self._shown.inc()
        return burned
