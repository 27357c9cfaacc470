"""All that AWS must have for an access policy: the broker's role, the roles, and those on the way.

Owns: which role is in which account, what it trusts and may do, and what is
made of one that serves several entries. The trust policies are
`trust_policy`'s, so that they are what doctor judges by. Pure. Does not own:
how it is written down (`server_cli/aws_formats`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.access.policy import AccessPolicy, Role
from broker.errors import Conflict
from broker.issuance import permissions
from broker.issuance.hub_trust import HubTrust
from broker.issuance.rehearsal import rehearse
from broker.issuance.sts import AssumeRole
from broker.issuance.trust_policy import TrustPolicy, length_note, trust_policies_for, united

Document = Mapping[str, object]

_SMALLEST_MAXIMUM = 3600  # IAM's default of MaxSessionDuration, for what is only passed through
_MAX_DESCRIPTION = 500
# AWS's own, whose trust policies nobody else can change.
_RESERVED_PATHS = ("/aws-reserved/", "/aws-service-role/")
# IAM API reference, CreateRole: Description.
_NOT_IN_DESCRIPTION = re.compile(r"[^ -~\u00a1-\u00ff]")
# CloudFormation puts a parameter or a secret for {{resolve:...}} in any text; it has no escape.
_REFERENCE = re.compile(r"\{(?=\{)")


@dataclass(frozen=True, slots=True)
class Hub:
    """The broker's own role. `trust` is None where the role exists already and stays as it is."""

    arn: str
    trust: HubTrust | None


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator wants beside the roles themselves. `existing`: ARNs of roles that are
    there already. The keys are ARNs of KMS keys.
    """

    existing: frozenset[str] = frozenset()
    revocation: bool = False
    doctor: bool = False
    sealing_key: str | None = None
    signing_key: str | None = None


@dataclass(frozen=True, slots=True)
class IamRole:
    """One role as it should be. `trust`, `description` and `max_session_duration` (seconds) are
    None for a hub that exists already. `policies` are its own, by name: inline, or managed
    policies that are made for it where they are too long for that. `attached` are ARNs of managed
    policies. `after` are the roles that its trust policy names: AWS wants them to exist.
    """

    arn: str
    trust: Document | None
    existing: bool
    description: str | None = None
    max_session_duration: int | None = None
    policies: Mapping[str, Document] = field(default_factory=dict)
    policies_are_managed: bool = False
    attached: tuple[str, ...] = ()
    instance_profile: bool = False
    after: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()  # names of the access policy's roles
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def path(self) -> str:
        return self.arn.split(":", 5)[5].removeprefix("role").rpartition("/")[0] + "/"

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class AccountSetup:
    """`roles` are in the order in which they can be made."""

    id: str
    name: str | None  # in the access policy; None for an account that only hops are in
    roles: tuple[IamRole, ...]


@dataclass(frozen=True, slots=True)
class AwsSetup:
    """`accounts`: the hub's first, the others so that what is named exists. `left_out`: roles of
    other partitions, which need a hub there. `notes` concern the whole.
    """

    partition: str
    hub_arn: str
    accounts: tuple[AccountSetup, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def aws_setup(policy: AccessPolicy, hub: Hub, choices: Choices) -> AwsSetup:
    """Raises Conflict, with what to change, where AWS could not be set up so."""
    partition = hub.arn.split(":")[1]
    roles = [role for role in policy.roles.values() if role.account.partition == partition]
    _refuse_unknown_external_ids(roles)
    ways = _Ways.of(roles, hub.arn)
    made = [_hub(hub, ways, roles, choices), *(ways.role(arn, choices) for arn in ways.arns)]
    _refuse_clashes(made)
    names = {account.id: account.name for account in policy.accounts.values()}
    accounts = _by_account(_in_order(made), names)
    return AwsSetup(
        partition=partition,
        hub_arn=hub.arn,
        accounts=accounts,
        left_out=tuple(
            role.name for role in policy.roles.values() if role.account.partition != partition
        ),
        notes=(*_notes(hub, roles, choices), *_twice(accounts)),
    )


@dataclass(frozen=True, slots=True)
class _Ways:
    """Every role on the way of any entry: whom it trusts, and where it leads on."""

    targets: Mapping[str, Sequence[Role]]
    trusts: Mapping[str, Sequence[TrustPolicy]]
    onward: Mapping[str, Sequence[str]]  # who calls -> the roles it assumes, sorted

    @classmethod
    def of(cls, roles: Sequence[Role], hub_arn: str) -> _Ways:
        targets: dict[str, list[Role]] = defaultdict(list)
        trusts: dict[str, list[TrustPolicy]] = defaultdict(list)
        onward: dict[str, set[str]] = defaultdict(set)
        for role in roles:
            targets[role.role_arn].append(role)
            scoped = rehearse(role)
            if hub_arn in {call.role_arn for call in scoped.calls}:
                raise Conflict(
                    f"role {role.name} names the broker's own role {hub_arn}: leave it out of via, "
                    "or write another role_arn"
                )
            for trust in trust_policies_for(scoped, hub_arn):
                trusts[trust.role_arn].append(trust)
            for call in scoped.calls:
                onward[_caller(call, hub_arn)].add(call.role_arn)
        return cls(targets, trusts, {arn: sorted(led) for arn, led in onward.items()})

    @property
    def arns(self) -> list[str]:
        return sorted(self.trusts)

    def role(self, arn: str, choices: Choices) -> IamRole:
        served = self.targets.get(arn, ())
        existing = arn in choices.existing
        trust = united(one.document for one in self.trusts[arn])
        onward = permissions.documents_over(
            self.onward.get(arn, ()),
            lambda arns: permissions.assume_statements(arns, after_hop=True),
        )
        policies, managed = _named(arn, {"assume-roles": onward})
        attached = () if existing else _attached(served)
        return IamRole(
            arn=arn,
            trust=trust,
            existing=existing,
            description=_description(served),
            max_session_duration=max(
                (role.role_maximum for role in served), default=_SMALLEST_MAXIMUM
            ),
            policies=policies,
            policies_are_managed=managed,
            attached=attached,
            after=tuple(sorted({one.principal for one in self.trusts[arn]})),
            serves=tuple(role.name for role in served),
            notes=(*length_note(trust), *_of_target(served, attached, existing=existing)),
        )


def _caller(call: AssumeRole, hub_arn: str) -> str:
    return hub_arn if call.after is None else call.after.role_arn


def _hub(hub: Hub, ways: _Ways, roles: Sequence[Role], choices: Choices) -> IamRole:
    account = hub.arn.split(":")[4]
    near = [arn for arn in ways.arns if arn.split(":")[4] == account]
    deniable = _deniable(roles, account) if choices.revocation else []
    kinds = {
        "assume-roles": permissions.documents_over(
            ways.onward.get(hub.arn, ()),
            lambda arns: permissions.assume_statements(arns, after_hop=False),
        ),
        "read-roles": permissions.documents_over(
            near if choices.doctor else [], permissions.reading_statements
        ),
        "deny-sessions": permissions.documents_over(deniable, permissions.denying_statements),
        "use-keys": _one(permissions.key_statements(choices.sealing_key, choices.signing_key)),
    }
    if hub.trust is not None:
        kinds["never"] = _never(deniable)
    policies, managed = _named(hub.arn, kinds)
    return IamRole(
        arn=hub.arn,
        trust=None if hub.trust is None else hub.trust.document,
        existing=hub.trust is None,
        description=None if hub.trust is None else "The credential broker itself",
        max_session_duration=None if hub.trust is None else _SMALLEST_MAXIMUM,
        policies=policies,
        policies_are_managed=managed,
        instance_profile=hub.trust is not None and hub.trust.instance_profile,
        notes=() if hub.trust is None else hub.trust.notes,
    )


def _one(statements: list[permissions.Statement]) -> list[dict[str, object]]:
    return [permissions.document(statements)] if statements else []


def _never(deniable: Sequence[str]) -> list[dict[str, object]]:
    document = permissions.document(permissions.never_statements(deniable))
    if permissions.characters(document) > permissions.MAX_MANAGED_CHARACTERS:
        # Too many to be excepted by name; what is not allowed is denied anyway.
        first, *_ = permissions.never_statements(deniable)
        document = permissions.document([first])
    return [document]


def _deniable(roles: Iterable[Role], account: str) -> list[str]:
    """Roles that say `revocable`, as far as IAM lets this account's roles write to them."""
    return sorted({r.role_arn for r in roles if r.revocable and r.account.id == account})


def _named(arn: str, kinds: Mapping[str, Sequence[Document]]) -> tuple[dict[str, Document], bool]:
    """Names for the documents, and whether they are too long together to be inline policies."""
    role = arn.rpartition("/")[2]
    found: dict[str, Document] = {}
    for kind, documents in kinds.items():
        for number, one in enumerate(documents, 1):
            found[f"{role}-{kind}{'' if number == 1 else f'-{number}'}"] = one
    size = sum(map(permissions.characters, found.values()))
    managed = size > permissions.MAX_INLINE_CHARACTERS
    if managed and len(found) > permissions.MAX_ATTACHED:
        raise Conflict(
            f"{arn} would need {len(found)} policies, and AWS attaches {permissions.MAX_ATTACHED} "
            "to a role: give other roles to a second broker, or behind a hop (via)"
        )
    return found, managed


def _attached(served: Sequence[Role]) -> tuple[str, ...]:
    found = tuple(sorted({arn for role in served for arn in role.managed_policies}))
    if len(found) > permissions.MAX_ATTACHED:
        raise Conflict(
            f"{served[0].role_arn} has {len(found)} managed policies by several entries, and AWS "
            f"attaches {permissions.MAX_ATTACHED} to a role: give one of the entries another role"
        )
    return found


def _of_target(
    served: Sequence[Role], attached: Sequence[str], *, existing: bool
) -> tuple[str, ...]:
    if not served or existing:
        return ()
    if attached:
        note = (
            "It may do what the access policy's managed_policies allow; what a session_policy "
            "allows beside them, attach yourself: a session gets what both allow."
        )
    else:
        note = (
            "It may do nothing until you attach permissions: a session gets what these and its "
            "session policy both allow."
        )
    return (note,)


def _description(served: Sequence[Role]) -> str:
    if not served:
        return "Passed through by the credential broker"
    names = ", ".join(role.name for role in served)
    written = "; ".join(role.description for role in served if role.description)
    text = f"Through the credential broker as {names}" + (f": {written}" if written else "")
    shown = _REFERENCE.sub("{ ", " ".join(text.split()))
    return _NOT_IN_DESCRIPTION.sub("?", shown)[:_MAX_DESCRIPTION]


def _refuse_unknown_external_ids(roles: Iterable[Role]) -> None:
    unknown = [r.name for r in roles if r.generates_external_id and r.external_id is None]
    if unknown:
        raise Conflict(
            f"the external id of role {unknown[0]} is made when the access policy is applied: "
            "apply it, and run this with the server's settings (--config), which lead to the "
            "database that keeps it"
        )


def _refuse_clashes(made: Sequence[IamRole]) -> None:
    names: dict[tuple[str, str], str] = {}
    for role in made:
        if role.path.startswith(_RESERVED_PATHS):
            raise Conflict(
                f"{role.arn} is AWS's own, whose trust policy nobody can change: name a role of "
                "yours in the access policy"
            )
        first = names.setdefault((role.account, role.name.lower()), role.arn)
        if first != role.arn:
            raise Conflict(
                f"{first} and {role.arn} can't both exist: an account has a role's name once, "
                "whatever its path or case"
            )


def _in_order(made: Sequence[IamRole]) -> list[IamRole]:
    """Each after the roles that it names. Hops that name each other in a ring can't be made."""
    waiting, done, ordered = list(made), set[str](), list[IamRole]()
    known = {role.arn for role in made}
    while waiting:
        ready = [role for role in waiting if not (set(role.after) & known) - done - {role.arn}]
        if not ready:
            raise Conflict(
                f"{waiting[0].arn} and {waiting[-1].arn} lead to each other by way of their hops: "
                "neither can be made before the other"
            )
        ordered += ready
        done |= {role.arn for role in ready}
        waiting = [role for role in waiting if role.arn not in done]
    return ordered


def _by_account(ordered: Sequence[IamRole], names: Mapping[str, str]) -> tuple[AccountSetup, ...]:
    accounts: dict[str, list[IamRole]] = {}
    for role in ordered:
        accounts.setdefault(role.account, []).append(role)
    return tuple(
        AccountSetup(number, names.get(number), tuple(roles)) for number, roles in accounts.items()
    )


def _twice(accounts: Sequence[AccountSetup]) -> tuple[str, ...]:
    """Where one account's roles name another's and the other way round, no order is enough."""
    notes: list[str] = []
    done: set[str] = set()
    made = {role.arn for account in accounts for role in account.roles if not role.existing}
    for account in accounts:
        done |= {role.arn for role in account.roles}
        for role in account.roles:
            later = sorted((set(role.after) & made) - done)
            if later and not role.existing:
                notes.append(
                    f"{role.arn} names {later[0]}, which is made after its account: leave it out "
                    f"of account {account.id} at first, and add it when {later[0]} exists."
                )
    return tuple(notes)


def _notes(hub: Hub, roles: Sequence[Role], choices: Choices) -> tuple[str, ...]:
    account = hub.arn.split(":")[4]
    notes: list[str] = []
    if choices.revocation:
        far = [r.name for r in roles if r.revocable and r.account.id != account]
        if far:
            notes.append(
                "IAM lets nobody write to another account's roles: the sessions of "
                f"{', '.join(far)} are denied from within theirs, by what `broker suspend` prints."
            )
        if _deniable(roles, account):
            notes.append(
                "Whoever has the broker's role can write any inline policy on its account's "
                "revocable roles: IAM has no condition on what a policy says. A permissions "
                "boundary on those roles bounds it."
            )
        elif not far:
            notes.append("No role says revocable: true: the permission to revoke is left out.")
    for what, key in (("sealing", choices.sealing_key), ("signing", choices.signing_key)):
        if key is not None and key.split(":")[4] != account:
            notes.append(f"The {what} key is in another account: its key policy must name the hub.")
    return tuple(notes)
