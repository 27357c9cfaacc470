"""Advice on an access policy that may be applied, beside what refuses it.

Owns: the judgement of rights wider than they look, of session policies that
grow past AWS's limit with the longest values, and of durations that serve
badly. Reads nothing but the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker.access.analysis import Analyse, Judgement, analysed
from broker.access.document import Findings, locate
from broker.access.finding import Finding, Level, Path, PolicyRefused
from broker.access.parameter import longest
from broker.access.parse import read_policy
from broker.access.policy import AccessPolicy, Organization, Role, WorkloadRef
from broker.access.session_policy import MAX_POLICY, assemble, denials, size
from broker.identity.presets import GITHUB
from broker.identity.trust import Workload

# Kept free for the Deny statements a caller adds.
RESTRICT_RESERVE = 256
# AWS packs policy and tags into an undocumented binary form with a limit of its own, tighter than
# MAX_POLICY. What was seen, and about what would take all of it:
_SEEN = "736 long with 3 tags"
PACKED_LENGTH = 736 * 100 // 82
# SDKs refresh credentials in the background below 15 minutes: with 900 s they do nothing else.
SENSIBLE_DURATION = 1800
# What a login may bring at most, for the reckoning: handles and claims have no limit of their own.
_LONGEST_LOGIN_VALUE = 64
# Claims of GitHub's that tell a repository's jobs apart by what had to be allowed first.
_GITHUB_WHICH_JOB = frozenset(
    {
        "environment",
        "environment_node_id",
        "job_workflow_ref",
        "job_workflow_sha",
        "ref",
        "ref_protected",
        "sha",
        "sub",
        "workflow_ref",
        "workflow_sha",
    }
)
_LONGEST_ISSUANCE_ID = 40


def lint_policy(
    text: str, providers: frozenset[str], analyse: Analyse | None = None
) -> tuple[Finding, ...]:
    """Every finding, errors and warnings, in the file's order. With an error, errors alone: they
    are `parse_policy`'s, and one more for a session policy that can never be short enough.
    `analyse` is an analyser of session policies, whose findings are warnings too.
    """
    try:
        policy, root = read_policy(text, providers=providers)
    except PolicyRefused as refused:
        return refused.findings
    findings = Findings()
    further = () if analyse is None else analysed(policy, analyse)
    for path, message, instead, level in (*_judge(policy), *further):
        findings.add(locate(root, path), path, message, instead, level)
    found = findings.sorted()
    errors = tuple(finding for finding in found if finding.level is Level.ERROR)
    return errors or found


def _judge(policy: AccessPolicy) -> Iterator[Judgement]:
    if not policy.admins:
        yield _warning(
            ("admins",),
            "the file names no admin: only a bootstrapped one administers",
            "write admins: [{group: corp/platform}]",
        )
    for workload in policy.workloads.values():
        yield from _workload(workload, policy)
    entitled = {entitlement.role for entitlement in policy.entitlements}
    for role in policy.roles.values():
        path: Path = ("roles", role.name)
        if role.name not in entitled and role.max_grant == 0:
            yield _warning(
                path,
                f"nobody can have role {role.name}: it has no entitlement, and no grants",
                "add an entitlement, or drop the role",
            )
        yield from _role(role, path)
        yield from _size(role, path, policy.organization)


def _workload(workload: Workload, policy: AccessPolicy) -> Iterator[Judgement]:
    path: Path = ("workloads", workload.name)
    subject = WorkloadRef(workload.name, workload.issuer)
    entitled = any(entitlement.to == subject for entitlement in policy.entitlements)
    # One that administers applies the policy, and needs no role.
    if not entitled and subject not in policy.admins:
        yield _warning(
            path,
            f"jobs of {workload.name} are let in and can have nothing: no entitlement names it",
            f"add an entitlement to: {{workload: {workload.name}}}, or drop the entry",
        )
    if workload.preset is GITHUB and not _GITHUB_WHICH_JOB & workload.claims.keys():
        yield _warning(
            (*path, "claims"),
            "every branch and every workflow of the repository is let in: whoever may push a "
            "branch to it can write a job",
            "add ref, environment or job_workflow_ref",
        )


def _role(role: Role, path: Path) -> Iterator[Judgement]:
    if role.default_duration < SENSIBLE_DURATION:
        yield _warning(
            (*path, "default_duration"),
            f"with {role.default_duration} s SDKs renew credentials nearly all the time",
            "write default_duration: 30m or more",
        )
    if role.unscoped:
        yield _warning(
            (*path, "unscoped"),
            f"role {role.name} gives all that its AWS role may do",
            "narrow it with a session_policy where you can",
        )
    if role.session_policy is not None:
        for where, statement in _statements(role.session_policy.source):
            yield from _statement(statement, (*path, "session_policy", *where), role)


def _statement(statement: Mapping[str, object], path: Path, role: Role) -> Iterator[Judgement]:
    if statement.get("Effect") != "Allow":
        return
    actions = _listed(statement.get("Action", []))
    for action in actions:
        if action == "*" or str(action).lower() in ("iam:*", "sts:*", "organizations:*"):
            yield _warning(
                (*path, "Action"),
                f"Action {action} narrows next to nothing",
                "name the actions that are needed",
            )
    for key in ("NotAction", "NotResource"):
        if key in statement:
            yield _warning(
                (*path, key),
                f"Allow with {key} allows whatever AWS adds later",
                f"name what is allowed, or use {key} in a Deny statement",
            )
    for resource in _listed(statement.get("Resource", [])):
        partition = str(resource).split(":")[1:2]
        if partition and partition[0] not in (role.account.partition, "*"):
            yield _warning(
                (*path, "Resource"),
                f"a resource in partition {partition[0]}: the role is in {role.account.partition}",
                f"write arn:{role.account.partition}:...",
            )


def _size(role: Role, path: Path, organization: Organization) -> Iterator[Judgement]:
    """The shortest and the longest session policy there can be, against AWS's limit."""
    shortest = _characters(role, organization, longest_values=False)
    most = _characters(role, organization, longest_values=True)
    where: Path = (*path, "session_policy" if role.session_policy else "managed_policies")
    advice = "shorten it with wildcards, or move statements to a managed policy"
    if shortest > MAX_POLICY:
        yield (
            where,
            f"the session policy has {shortest} characters at least; AWS takes {MAX_POLICY}",
            advice,
            Level.ERROR,
        )
    elif most + RESTRICT_RESERVE > MAX_POLICY:
        yield _warning(
            where,
            f"with the longest values the session policy has {most} characters, and callers may "
            f"add {RESTRICT_RESERVE} with --restrict; AWS takes {MAX_POLICY}",
            advice,
        )
    elif most > PACKED_LENGTH:
        yield _warning(
            where,
            f"the session policy may be {most} long: AWS also packs it with the tags into a "
            f"tighter limit of its own, of which a policy {_SEEN} took 82 %",
            f"keep it under {PACKED_LENGTH}, or watch packed_policy_percent in the records",
        )


def _characters(role: Role, organization: Organization, *, longest_values: bool) -> int:
    own = None
    if role.session_policy is not None:
        values = {
            name: "x" * (_longest(role, name) if longest_values else 1)
            for name in role.session_policy.placeholders
        }
        own = role.session_policy.render(values)
    policy = assemble(role, own, denials(role, organization))
    return size(policy, role.managed_policies)


def _longest(role: Role, name: str) -> int:
    if name in role.parameters:
        return longest(role.parameters[name])
    return _LONGEST_ISSUANCE_ID if name == "issuance.id" else _LONGEST_LOGIN_VALUE


def _statements(source: Mapping[str, object]) -> Iterator[tuple[Path, Mapping[str, object]]]:
    statements = source["Statement"]
    if isinstance(statements, list):
        for index, statement in enumerate(statements):
            yield ("Statement", index), statement
    elif isinstance(statements, dict):
        yield ("Statement",), statements


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _warning(path: Path, message: str, instead: str) -> Judgement:
    return path, message, instead, Level.WARNING
