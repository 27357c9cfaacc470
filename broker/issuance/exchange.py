"""The use case: from a CI job's OIDC token to a job that is let in, or a refusal on record.

Read `JobGate.admit` top to bottom. What is compared is pure (`identity/trust`,
`identity/ci_token`); what is used up is the store's, in one transaction.
Claims that are not verified yet are called so, and decide nothing but which
configured issuer's keys to verify them with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.access.decide import Address
from broker.access.policy import AccessPolicy, WorkloadRef
from broker.audit.record import Actor, Event, EventType, Outcome
from broker.errors import (
    BrokerError,
    CiTokenRejected,
    CiTokenReplayed,
    RateLimited,
    Suspended,
    Unauthenticated,
)
from broker.identity.ci_token import (
    ALGORITHMS,
    CiToken,
    IssuerKeys,
    KeysUnavailable,
    check_ci_token,
    token_sha256,
    unverified_issuer,
)
from broker.identity.id_token import TokenRejected, UnverifiedToken
from broker.identity.job import Job, job_context
from broker.identity.job_store import Exchange, JobStore, NotExchanged, Standing, TokenIds
from broker.identity.principal import AuthContext
from broker.identity.sessions import Authenticated, Token, TokenKind, new_login_session_id
from broker.identity.throttle import CI_PER_WORKLOAD, Throttle
from broker.identity.trust import (
    NearEntry,
    Scalar,
    Workload,
    admits,
    closest,
    decisive,
    facts_of,
)
from broker.identity.verification_keys import NoSuitableKey
from broker.issuance.journal import Journal
from broker.issuance.observe import observed, only_observed
from broker.issuance.request import CredentialRequest
from broker.issuance.sts import Sts

_MAX_CLAIMED = 256
_RETRY_KEYS = 60


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """What a job showed. `request` is for which role, None where that is said later. `role` alone
    chooses among entries that admit the same job.
    """

    unverified_token: str
    role: str | None
    request: CredentialRequest | None
    wants_token: bool
    address: Address | None
    ip: str | None
    user_agent: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that is let in, as who it is to the rest of the broker."""

    context: AuthContext
    actor: Actor
    policy_version: int
    job_token: Token | None = field(repr=False)


class Rejection(Exception):
    """Why a token is not accepted. `reason` is a constant sentence for the record; it is told to
    the caller where it is about the token and not about the access policy (`may_tell`).
    """

    def __init__(
        self,
        reason: str,
        *,
        may_tell: bool = True,
        facts: Mapping[str, Scalar] | None = None,
        near: tuple[NearEntry, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_tell = may_tell
        self.facts = facts or {}
        self.near = near
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Matched:
    """The entries that admit a job. At most one of `entry` and a Rejection is the answer;
    `observers` are the matching entries that only observe.
    """

    entry: Workload | None
    observers: tuple[Workload, ...]
    facts: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class JobGate:
    """Lets CI jobs in. Made once; the access policy and the clock come with each call."""

    keys: IssuerKeys
    jobs: JobStore
    token_ids: TokenIds
    throttle: Throttle
    journal: Journal
    sts: Sts

    async def admit(
        self, presented: Presented, policy: AccessPolicy, standing: Standing
    ) -> Admitted:
        """Raises CiTokenRejected, CiTokenReplayed, RateLimited or Suspended, on record by then;
        AuditUnavailable where something could not be recorded: then nobody was let in.
        """
        # 1. Verify: whose word is it, and is it in force?
        try:
            token = await self.verify(presented.unverified_token, policy, standing)
            # 2. Which entry admits the job?
            matched = match(token, policy, presented.role)
        except Rejection as rejection:
            await self._reject(presented, rejection)
            raise _error_of(rejection) from None

        for workload in matched.observers:
            await self._observe(workload, matched.facts, presented, policy, standing)
        if matched.entry is None:
            raise only_observed()

        # 3. Use the token up, and open the job's session, at once and on record.
        workload = matched.entry
        job = job_of(workload, matched.facts)
        principal = job.principal(await self.jobs.workload_id(workload), workload)
        actor = Actor(
            principal.id,
            principal.kind.value,
            principal.handle,
            presented.ip,
            presented.user_agent,
        )
        try:
            await self.throttle.admit(CI_PER_WORKLOAD, principal.id)
        except RateLimited as refusal:
            await self._refused(presented, refusal, workload, actor)
            raise
        exchange = Exchange(
            token_key=token.key,
            token_forgotten_at=token.forgotten_at,
            reuse=workload.reuse,
            principal_id=principal.id,
            login_session_id=new_login_session_id(),
            lifetime=workload.max_job,
            job=job.as_text(),
            job_token=Token.new(TokenKind.JOB) if presented.wants_token else None,
            ip=presented.ip,
            user_agent=presented.user_agent,
            event=_exchanged(presented, workload, job, token, actor, policy.number),
        )
        outcome = await self.token_ids.claim_token_id(exchange)
        if isinstance(outcome, NotExchanged):
            error = Suspended() if outcome.reason == "suspended" else CiTokenReplayed()
            await self._refused(presented, error, workload, actor)
            raise error

        # 4. From here on the job is a principal like any other.
        context = job_context(
            principal,
            login_session_id=exchange.login_session_id,
            began_at=outcome.began_at,
            ends_at=outcome.ends_at,
        )
        return Admitted(context, actor, policy.number, exchange.job_token)

    async def verify(
        self, unverified_token: str, policy: AccessPolicy, standing: Standing
    ) -> CiToken:
        """The token, verified. Nothing is fetched for an issuer that no entry names.

        Raises Rejection.
        """
        try:
            token = UnverifiedToken.parse(unverified_token, ALGORITHMS)
            issuer = unverified_issuer(token)
            entries = entries_of(policy, issuer)
            if not entries:
                raise Rejection("its issuer is not configured here")
            if not any(token.algorithm in entry.algorithms for entry in entries):
                raise Rejection("its algorithm is not one configured for its issuer")
            return check_ci_token(
                await self._verified_claims(token, issuer),
                signing_input=token.signing_input,
                issuer=issuer,
                lifetime=max(entry.lifetime for entry in entries),
                now=standing.now,
            )
        except (TokenRejected, NoSuitableKey) as error:
            raise Rejection(error.reason) from error
        except KeysUnavailable as error:
            raise Rejection(
                f"its issuer's keys can't be fetched: {error.reason}", retry_after=_RETRY_KEYS
            ) from error

    async def _verified_claims(self, token: UnverifiedToken, issuer: str) -> Mapping[str, object]:
        key = await self.keys.key(issuer, token.key_id, token.algorithm)
        try:
            return token.verify(key)
        except TokenRejected:
            rotated = await self.keys.key_after_rotation(issuer, key, token.algorithm)
            if rotated is None:
                raise
            return token.verify(rotated)

    async def _observe(
        self,
        workload: Workload,
        facts: Mapping[str, Scalar],
        presented: Presented,
        policy: AccessPolicy,
        standing: Standing,
    ) -> None:
        job = job_of(workload, facts)
        principal = job.principal(await self.jobs.workload_id(workload), workload)
        event = observed(
            presented.request,
            workload=workload,
            principal=principal,
            policy=policy,
            address=presented.address,
            now=standing.now,
            chained=self.sts.chained,
        )
        actor = Actor(
            principal.id, principal.kind.value, principal.handle, presented.ip, presented.user_agent
        )
        detail = {
            **event,
            "claims": decisive(workload, job.facts),
            "token_sha256": token_sha256(presented.unverified_token),
            "policy_version": policy.number,
        }
        subject = {"principal": principal.id, "workload": workload.name}
        if presented.role is not None:
            subject["role"] = presented.role
        await self.journal.deny(
            Event(
                EventType.CI_OBSERVED,
                actor,
                Outcome.DENIED,
                subject,
                detail,
                presented.request_id,
            )
        )

    async def _reject(self, presented: Presented, rejection: Rejection) -> None:
        near = rejection.near[:1]
        claims = {
            mismatch.claim: mismatch.found
            for entry in near
            for mismatch in entry.mismatches
            if mismatch.found is not None
        }
        await self.journal.deny(
            Event(
                EventType.CI_REJECTED,
                Actor("anonymous", "anonymous", None, presented.ip, presented.user_agent),
                Outcome.DENIED,
                {} if presented.role is None else {"role": presented.role},
                {
                    "code": CiTokenRejected.code,
                    "reason": rejection.reason,
                    "token_sha256": token_sha256(presented.unverified_token),
                    "claims": {**_identifying(rejection.facts), **claims},
                    "near": [entry.as_json() for entry in rejection.near],
                },
                presented.request_id,
            )
        )

    async def _refused(
        self, presented: Presented, error: BrokerError, workload: Workload, actor: Actor
    ) -> None:
        subject = {"principal": actor.id, "workload": workload.name}
        if presented.role is not None:
            subject["role"] = presented.role
        detail = {
            "code": error.code,
            "reason": error.message,
            "token_sha256": token_sha256(presented.unverified_token),
        }
        await self.journal.deny(
            Event(
                EventType.CI_REJECTED,
                actor,
                Outcome.DENIED,
                subject,
                detail,
                presented.request_id,
            )
        )


def entries_of(policy: AccessPolicy, issuer: str) -> tuple[Workload, ...]:
    """The entries that trust this issuer."""
    return tuple(entry for entry in policy.workloads.values() if entry.issuer == issuer)


def match(token: CiToken, policy: AccessPolicy, role: str | None) -> Matched:
    """The one entry that admits the job; where several do, the one of them that has `role`.

    Raises Rejection.
    """
    entries = entries_of(policy, token.issuer)
    addressed = [entry for entry in entries if entry.audience == token.audience]
    if not addressed:
        raise Rejection("its audience is not the one that the access policy names")
    facts = facts_of(token.claims, addressed[0].preset)
    admitting = [entry for entry in addressed if admits(entry, facts)]
    if not admitting:
        near = closest(addressed, facts)
        # The claims' names are the policy's own words, so that there are few such reasons: each
        # is a kind of its own to the log, which counts repeated ones.
        failed = ", ".join(one.claim for one in near[0].mismatches)
        raise Rejection(
            f"no workload entry admits it; {near[0].workload} fails by {failed}",
            may_tell=False,
            facts=facts,
            near=near,
        )
    observers = tuple(entry for entry in admitting if entry.observe)
    active = [entry for entry in admitting if not entry.observe]
    if len(active) > 1:
        active = [entry for entry in active if _has_role(policy, entry, role)]
        if len(active) != 1:
            names = sorted(entry.name for entry in admitting if not entry.observe)
            raise Rejection(
                f"{len(names)} workload entries admit it",
                may_tell=False,
                facts=facts,
                near=tuple(NearEntry(name, ()) for name in names[:5]),
            )
    return Matched(active[0] if active else None, observers, facts)


def job_of(workload: Workload, facts: Mapping[str, Scalar]) -> Job:
    """Entries of one issuer have one preset, so that the facts are every entry's."""
    return Job(workload.name, workload.issuer, workload.audience, facts)


def still_admitted(who: Authenticated, policy: AccessPolicy) -> AuthContext:
    """Who a job token stands for under the policy of now: an entry that was narrowed ends the
    jobs it no longer admits. Raises Unauthenticated.
    """
    job = who.job
    workload = None if job is None else policy.workloads.get(job.workload)
    if (
        job is None
        or workload is None
        or workload.observe
        or (workload.issuer, workload.audience) != (job.issuer, job.audience)
        or not admits(workload, job.facts)
    ):
        raise Unauthenticated("The access policy no longer admits this job.")
    context = who.context
    return job_context(
        job.principal(context.principal.id, workload),
        login_session_id=context.login_session_id,
        began_at=context.auth_time,
        ends_at=context.login_session_expires_at,
    )


def _has_role(policy: AccessPolicy, workload: Workload, role: str | None) -> bool:
    subject = WorkloadRef(workload.name, workload.issuer)
    return any(one.role == role and one.to == subject for one in policy.entitlements)


def _identifying(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Enough of a stranger's claims to find the job."""
    return {
        name: value if not isinstance(value, str) else value[:_MAX_CLAIMED]
        for name, value in facts.items()
        if name.endswith(("repository", "ref", "project_path", "sub", "event_name", "_id"))
    }


def _exchanged(
    presented: Presented,
    workload: Workload,
    job: Job,
    token: CiToken,
    actor: Actor,
    policy_version: int,
) -> Event:
    return Event(
        EventType.CI_EXCHANGED,
        actor,
        Outcome.SUCCESS,
        {"principal": actor.id, "workload": workload.name},
        {
            "issuer": token.issuer,
            "audience": token.audience,
            "claims": decisive(workload, job.facts),
            "token_sha256": token_sha256(presented.unverified_token),
            "token_has_id": token.has_id,
            "reuse_allowed": workload.reuse,
            "reused": False,
            "job_token": presented.wants_token,
            "max_job": workload.max_job,
            "policy_version": policy_version,
        },
        presented.request_id,
    )


def _error_of(rejection: Rejection) -> CiTokenRejected:
    if not rejection.may_tell:
        # Anybody can have a token of a public platform: what the policy asks for is not theirs.
        detail = "The access policy admits no job with these claims; the broker's log says more."
        return CiTokenRejected(detail)
    retry = {} if rejection.retry_after is None else {"retry_after": rejection.retry_after}
    return CiTokenRejected(f"The CI job's token was not accepted: {rejection.reason}.", extra=retry)
