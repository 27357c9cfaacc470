"""Each role of the access policy: whether the broker gets in, and for how long.

A role in the broker's own account is read from IAM and judged, where that is
permitted. What reading can't settle is tried: with the very calls that issuing
makes, for 900 s, under a policy that denies everything; what AWS gives is
dropped at once. CloudTrail shows these tries under the source identity of
nobody, `p-` and sixteen zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.access.policy import Role
from broker.adapters.iam import FoundRole, RoleUnreadable
from broker.cli.terminal import for_people
from broker.errors import Conflict
from broker.issuance.duration import CHAINED_MAXIMUM
from broker.issuance.rehearsal import rehearse, varying_tags
from broker.issuance.sts import AssumeRole, CallerIdentity, Minted, StsFailure
from broker.issuance.trust_judgement import Verdict, judge
from broker.issuance.trust_policy import principal_behind
from broker.server_cli.checks.aws import Footing
from broker.server_cli.checks.check import Check, fail, ok, warn, within
from broker.server_cli.checks.refusal import refused_call

ROLE_SECONDS = 60.0
_SLOW = "run `broker doctor` again; what hangs shows in the checks above"


@dataclass(slots=True)
class _Way:
    """One role on the way, and what reading said of it. `unread` is why it could not be read."""

    call: AssumeRole
    principal: str
    found: FoundRole | None = None
    unread: str | None = None
    verdict: Verdict | None = None

    @property
    def wants_a_try(self) -> bool:
        return self.verdict is None or bool(self.verdict.open)


async def role_checks(role: Role, footings: Mapping[str, Footing], *, may_try: bool) -> list[Check]:
    found = await _of_role(role, footings, may_try=may_try)
    return [replace(check, role=role.name) for check in found]


async def _of_role(role: Role, footings: Mapping[str, Footing], *, may_try: bool) -> list[Check]:
    name = f"role {role.name}"
    if role.generates_external_id and role.external_id is None:
        message = "not checked: its external id is made when the access policy is applied"
        return [warn(name, message, "`broker access apply FILE`, then `broker doctor` again")]
    footing = footings.get(role.account.partition)
    if footing is None:
        cure = f'add an [[aws]] section with partition = "{role.account.partition}"'
        return [fail(name, f"no [[aws]] is set for partition {role.account.partition}", cure)]
    if footing.identity is None:
        return [
            warn(
                name,
                "not checked: who the broker is at AWS is not known",
                f"see {role.account.partition} identity above",
            )
        ]
    checks = _checks(name, role, footing, footing.identity, may_try=may_try)
    return await within(ROLE_SECONDS, name, checks, cure=_SLOW)


async def _checks(
    name: str, role: Role, footing: Footing, identity: CallerIdentity, *, may_try: bool
) -> list[Check]:
    try:
        broker, _ = principal_behind(identity)
    except Conflict as refusal:
        return [fail(name, refusal.detail, "run the broker as an IAM role")]
    ways = [
        _Way(call, broker if call.after is None else call.after.role_arn)
        for call in rehearse(role).calls
    ]
    findings: list[Check] = []
    for way in ways:
        findings += await _read(_named(name, way, ways), role, way, footing, identity)
    if not any(finding.level == "fail" for finding in findings):
        findings += await _enter(name, role, ways, footing, may_try=may_try)
    findings += _external_id(name, role, identity)
    return findings


def _named(name: str, way: _Way, ways: list[_Way]) -> str:
    """A finding about a hop names it."""
    return name if way is ways[-1] else f"{name} via {way.call.role_arn}"


# Reading.


async def _read(
    name: str, role: Role, way: _Way, footing: Footing, identity: CallerIdentity
) -> list[Check]:
    """Warnings and failures alone: that the broker gets in is said once, at the end."""
    arn = way.call.role_arn
    account, short = arn.split(":")[4], arn.rpartition("/")[2]
    if account != identity.account:
        way.unread = f"it is in account {account}, the broker in {identity.account}"
        return []
    try:
        way.found = await footing.iam.role(short)
    except RoleUnreadable as fault:
        way.unread = "the broker may not do iam:GetRole" if fault.denied else str(fault)
        return []
    if way.found is None:
        cure = "create it, or correct role_arn in the access policy"
        return [fail(name, f"account {account} has no role {short}", cure)]
    if way.found.arn != arn:
        message = f"the access policy says {arn}, AWS says {way.found.arn}"
        return [fail(name, message, "write what AWS says")]
    way.verdict = judge(
        way.found.trust_policy,
        way.call,
        identity,
        principal=way.principal,
        varying=varying_tags(role),
        role_name=role.name,
    )
    found = [Check(name, j.level, j.message, j.cure) for j in way.verdict.judgements]
    return found if arn != role.role_arn else [*found, *_duration(name, role, way.found)]


def _duration(name: str, role: Role, found: FoundRole) -> list[Check]:
    written, actual = role.role_maximum, found.max_session_duration
    what = f"MaxSessionDuration is {for_people(actual)}, role_maximum {for_people(written)}"
    if actual < written:
        return [
            fail(
                f"{name} duration",
                f"{what}: AWS refuses what is over its own",
                f"write role_maximum: {for_people(actual)}, or raise it in AWS: `aws iam "
                f"update-role --role-name {found.arn.rpartition('/')[2]} "
                f"--max-session-duration {written}`",
            )
        ]
    if actual > written:
        return [
            warn(
                f"{name} duration",
                f"{what}: the broker gives no more than that",
                f"write role_maximum: {for_people(actual)}, or lower it in AWS",
            )
        ]
    return []


# Trying.


async def _enter(
    name: str, role: Role, ways: list[_Way], footing: Footing, *, may_try: bool
) -> list[Check]:
    if not any(way.wants_a_try for way in ways):
        return [
            ok(
                name,
                f"lets the broker in, as its trust policy says{_ending(role, ways[-1], footing)}",
            )
        ]
    if not may_try:
        return [_not_tried(name, ways)]
    minted: Minted | None = None
    for way in ways:
        try:
            minted = await footing.sts.assume_role(
                way.call, None if minted is None else minted.credentials
            )
        except StsFailure as failure:
            readable = way.verdict is not None
            return [
                refused_call(
                    _named(name, way, ways),
                    failure,
                    way.call,
                    way.principal,
                    role_name=role.name,
                    trust_is_right=readable,
                )
            ]
    unread = ways[-1].unread
    limits = "" if unread is None else _unchecked(unread)
    return [
        ok(name, f"let the broker in when it was tried{_ending(role, ways[-1], footing)}{limits}")
    ]


def _unchecked(unread: str) -> str:
    return (
        f"; not checked, since {unread}: whom else it lets in, whether it asks for the ExternalId, "
        "MaxSessionDuration"
    )


def _not_tried(name: str, ways: list[_Way]) -> Check:
    reasons = [way.unread for way in ways if way.unread is not None]
    for way in ways:
        if way.verdict is not None:
            reasons += [f"it depends on {question}" for question in way.verdict.open]
    message = f"whether the broker gets in was not tried, and can't be read: {reasons[0]}"
    return warn(name, message, "run `broker doctor` without --no-try")


def _ending(role: Role, last: _Way, footing: Footing) -> str:
    """With what it is let in, and for how long at most."""
    with_id = "" if role.external_id is None else "ExternalId, "
    written = for_people(role.role_maximum)
    longest = f"{written} at most"
    if (footing.chained or role.via) and role.role_maximum > CHAINED_MAXIMUM:
        longest = f"{for_people(CHAINED_MAXIMUM)} at most, since chained"
    found = last.found
    if found is not None and found.max_session_duration == role.role_maximum:
        longest += f" (MaxSessionDuration is {written}, as written)"
    return f", with {with_id}TagSession and SetSourceIdentity; {longest}"


def _external_id(name: str, role: Role, identity: CallerIdentity) -> list[Check]:
    """Across accounts another customer of the same broker's could name this role as theirs."""
    if role.external_id is not None or role.account.id == identity.account:
        return []
    return [
        warn(
            f"{name} external id",
            f"it is in another account ({role.account.id}), and the access policy has no external "
            "id for it",
            "write external_id: {generate: true}, and paste the trust policy that "
            f"`broker access trust-policy {role.name}` prints then",
        )
    ]
