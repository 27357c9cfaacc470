"""Showing the second factor, and enrolling one, as ordered steps.

Owns: the order (count, then look at the code, then burn it), who may enrol, and
what each refusal says. Does not own: the arithmetic of codes (`totp`,
`typed_codes`), storage, pages.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from broker.audit.record import Actor, Event, EventType, Outcome
from broker.errors import Conflict, InvalidRequest, MfaLocked, Unauthenticated
from broker.identity import totp
from broker.identity.sessions import Authenticated, Token
from broker.identity.totp import (
    HARD_STOP_FAILURES,
    Attempt,
    Burned,
    Enrolment,
    Factor,
    FactorStore,
    Sealer,
)
from broker.identity.typed_codes import TypedCodeKind, hash_of_typed, new_code

TOTP_PURPOSE: Final = "totp"
RECOVERY_CODES: Final = 10


class WrongCode(InvalidRequest):
    """Wrong, malformed and replayed codes look the same to whoever tries them."""

    message = "That code is not right."


@dataclass(frozen=True, slots=True)
class Enrolling:
    """What the enrolment page shows. The secret stays the same until it is confirmed or old."""

    factor_id: str
    secret: str = field(repr=False)  # base32
    otpauth_uri: str = field(repr=False)
    needs_code: bool  # an enrolment code from an admin must be typed too


class SecondFactor:
    """TOTP for one broker. `label` names the broker in authenticator apps."""

    def __init__(
        self, store: FactorStore, sealer: Sealer, enrolment: Enrolment, label: str
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._enrolment = enrolment
        self._label = label

    async def verify(
        self,
        who: Authenticated,
        code: str,
        *,
        actor: Actor,
        request_id: str,
        replaces: Token | None,
        cookie: Token | None,
    ) -> None:
        """Raise the login session by a code. Its cookie `replaces` becomes `cookie`, if given.

        Raises WrongCode; MfaLocked while too many were wrong, whatever the code; InvalidRequest
        where no factor is enrolled; Unauthenticated where the login session ended meanwhile.
        """
        if not who.has_confirmed_factor:
            raise InvalidRequest("No second factor is enrolled yet; enrol one first.")
        attempt = await self._count(who)
        factors = await self._store.confirmed_factors(who.context.principal.id)
        match = self._match(factors, code, attempt)
        if match is None:
            raise await self._failed(who, attempt, "wrong_code", actor, request_id)
        factor, step = match
        burned = await self._store.burn_totp_step(
            factor.id,
            step,
            login_session_id=who.context.login_session_id,
            replaces=replaces,
            cookie=cookie,
            event=_event(EventType.MFA_VERIFIED, who, actor, request_id, factor=factor.id),
        )
        if burned is Burned.REPLAYED:
            raise await self._failed(who, attempt, "replayed", actor, request_id)
        if burned is Burned.GONE:
            raise Unauthenticated("This login session has ended; sign in again.")

    async def begin_enrolment(self, who: Authenticated, *, is_admin: bool) -> Enrolling:
        """The secret to put into an authenticator app; a reload shows the same one.

        `is_admin`: an admin, auditor or approver by the access policy. Raises MfaRequired or
        MfaStale where a factor is enrolled and was not shown just now.
        """
        needs_code = self._needs_enrolment_code(who, is_admin)
        principal = who.context.principal
        factor = await self._pending(who)
        if factor is None:
            secret = totp.new_secret()
            sealed = self._sealer.seal(
                secret.encode("ascii"), purpose=TOTP_PURPOSE, owner=principal.id
            )
            factor = await self._store.start_factor(principal.id, _new_factor_id(who), sealed)
        secret = self._secret(factor)
        uri = totp.otpauth_uri(secret, account=principal.handle, label=self._label)
        return Enrolling(factor.id, secret, uri, needs_code)

    async def confirm_enrolment(
        self,
        who: Authenticated,
        code: str,
        enrolment_code: str | None,
        *,
        is_admin: bool,
        actor: Actor,
        request_id: str,
        replaces: Token | None,
        cookie: Token | None,
    ) -> tuple[str, ...]:
        """Make the pending factor the person's one factor, raise the login session, and return
        ten recovery codes, which are never shown again.

        Raises as `verify`; WrongCode also for the enrolment code where one is needed; Conflict
        where somebody was first.
        """
        needs_code = self._needs_enrolment_code(who, is_admin)
        principal_id = who.context.principal.id
        factor = await self._pending(who)
        if factor is None:
            raise InvalidRequest("This enrolment is too old; reload the page for a new secret.")
        attempt = await self._count(who)
        enrolment_hash: bytes | None = None
        if needs_code:
            enrolment_hash = hash_of_typed(TypedCodeKind.ENROLMENT, enrolment_code or "")
            if enrolment_hash is None or not await self._store.find_enrolment_code(
                enrolment_hash, principal_id
            ):
                reason, detail = "wrong_enrolment_code", "That enrolment code is not right."
                raise await self._failed(who, attempt, reason, actor, request_id, detail)
        match = self._match((factor,), code, attempt)
        if match is None:
            raise await self._failed(who, attempt, "wrong_code", actor, request_id)
        codes = [new_code(TypedCodeKind.RECOVERY) for _ in range(RECOVERY_CODES)]
        burned = await self._store.confirm_factor(
            factor.id,
            match[1],
            login_session_id=who.context.login_session_id,
            replaces=replaces,
            cookie=cookie,
            enrolment_code_hash=enrolment_hash,
            recovery_code_hashes=tuple(code_hash for _, code_hash in codes),
            event=_event(EventType.MFA_ENROLLED, who, actor, request_id, factor=factor.id),
        )
        if burned is Burned.REPLAYED:
            raise await self._failed(who, attempt, "replayed", actor, request_id)
        if burned is Burned.GONE:
            raise Conflict
        return tuple(text for text, _ in codes)

    async def spend_recovery_code(
        self, who: Authenticated, typed: str, *, actor: Actor, request_id: str
    ) -> None:
        """Let this login session enrol a new factor. The second factor itself stays pending.

        Raises WrongCode, MfaLocked.
        """
        attempt = await self._count(who)
        code_hash = hash_of_typed(TypedCodeKind.RECOVERY, typed)
        spent = code_hash is not None and await self._store.spend_recovery_code(
            who.context.principal.id,
            code_hash,
            who.context.login_session_id,
            _event(EventType.MFA_VERIFIED, who, actor, request_id, method="recovery_code"),
        )
        if not spent:
            raise await self._failed(who, attempt, "wrong_recovery_code", actor, request_id)

    def _needs_enrolment_code(self, who: Authenticated, is_admin: bool) -> bool:
        """Whether the first factor alone is all that is known of the person (design: it must
        not be able to enrol the second).
        """
        if who.may_enrol_until is not None and who.may_enrol_until > who.now:
            return False
        if who.has_confirmed_factor:
            who.context.require_fresh_factor(who.now)
            return False
        privileged = is_admin or who.pinned_admin
        return privileged or self._enrolment is not Enrolment.OPEN

    async def _pending(self, who: Authenticated) -> Factor | None:
        """The pending factor of this very login session.

        Never another session's: who has stolen the first factor could otherwise open the page
        first, learn the secret, and wait for its owner to confirm it with an enrolment code.
        """
        factor = await self._store.pending_factor(who.context.principal.id)
        if factor is None or not factor.id.startswith(_factor_prefix(who)):
            return None
        return factor

    async def _count(self, who: Authenticated) -> Attempt:
        attempt = await self._store.count_attempt(who.context.principal.id)
        if attempt.retry_after is not None:
            raise _locked(attempt.failures, attempt.retry_after)
        return attempt

    def _match(
        self, factors: tuple[Factor, ...], code: str, attempt: Attempt
    ) -> tuple[Factor, int] | None:
        found: tuple[Factor, int] | None = None
        for factor in factors:
            step = totp.matching_step(self._secret(factor), code, attempt.now, factor.last_step)
            if step is not None and found is None:
                found = factor, step
        return found

    def _secret(self, factor: Factor) -> str:
        return self._sealer.unseal(
            factor.sealed_secret, purpose=TOTP_PURPOSE, owner=factor.principal_id
        ).decode("ascii")

    async def _failed(
        self,
        who: Authenticated,
        attempt: Attempt,
        reason: str,
        actor: Actor,
        request_id: str,
        detail: str | None = None,
    ) -> WrongCode:
        """Record the failure; the caller raises what comes back."""
        event = replace(
            _event(
                EventType.MFA_FAILED,
                who,
                actor,
                request_id,
                reason=reason,
                failures=attempt.failures,
            ),
            outcome=Outcome.FAILURE,
        )
        wait = totp.locked_for(attempt.failures, attempt.now, attempt.now)
        locked = (
            None
            if wait is None
            else replace(
                event,
                type=EventType.MFA_LOCKED,
                detail={"failures": attempt.failures, "seconds": wait},
            )
        )
        await self._store.record_failure(event, locked=locked)
        return WrongCode(detail, extra={} if wait is None else {"retry_after": wait})


def _locked(failures: int, retry_after: int) -> MfaLocked:
    detail = (
        "Too many wrong codes; an admin must reset your second factor."
        if failures >= HARD_STOP_FAILURES
        else None
    )
    return MfaLocked(detail, retry_after=retry_after)


def _new_factor_id(who: Authenticated) -> str:
    """Names a factor in records, and the login session that started it; not a secret."""
    return f"{_factor_prefix(who)}{secrets.token_hex(6)}"


def _factor_prefix(who: Authenticated) -> str:
    return f"f-{hashlib.sha256(who.context.login_session_id.encode()).hexdigest()[:12]}"


def _event(
    event_type: EventType, who: Authenticated, actor: Actor, request_id: str, **detail: object
) -> Event:
    return Event(
        event_type,
        actor,
        Outcome.SUCCESS,
        subject={
            "principal": who.context.principal.id,
            "login_session": who.context.login_session_id,
        },
        detail=detail,
        request_id=request_id,
    )
