"""The access policy file, read: frozen values, or every finding at once.

Owns: the file's accounts, subjects, entitlements and organization rules, and
that its parts agree with one another. All or nothing: an entry that is unknown,
ambiguous, contradictory or of a later version refuses the file; nothing is
ignored. Roles are read by `parse_role`; YAML by `document`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from broker.access.document import (
    Findings,
    ListNode,
    Node,
    Scalar,
    Unreadable,
    locate,
    plain,
    read,
    sound,
)
from broker.access.finding import PolicyRefused, nearest
from broker.access.grammar import statement_faults
from broker.access.parse_admins import read_admins
from broker.access.parse_entitlement import EntitlementReader
from broker.access.parse_role import read_role
from broker.access.parse_workload import read_workloads
from broker.access.policy import (
    MAX_DURATION,
    MIN_DURATION,
    AccessPolicy,
    Account,
    Organization,
    Role,
)
from broker.access.reading import (
    Section,
    duration,
    entries,
    listed,
    text,
    texts,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_ACCOUNT_ID = re.compile(r"[0-9]{12}", re.ASCII)
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,16}){1,3}-[0-9]{1,2}", re.ASCII)
_ROLE_EXAMPLE = "reader: {account: prod, role_arn: ..., session_policy: ...}"

# Partition: the region that stands where none is written, and how its regions begin.
_PARTITIONS = {
    "aws": ("us-east-1", ()),
    "aws-cn": ("cn-north-1", ("cn-",)),
    "aws-us-gov": ("us-gov-west-1", ("us-gov-",)),
    "aws-eusc": ("eusc-de-east-1", ("eusc-",)),
    "aws-iso": ("us-iso-east-1", ("us-iso-",)),
    "aws-iso-b": ("us-isob-east-1", ("us-isob-",)),
    "aws-iso-e": ("eu-isoe-west-1", ("eu-isoe-",)),
    "aws-iso-f": ("us-isof-south-1", ("us-isof-",)),
}
_OF_OTHERS = tuple(start for _, starts in _PARTITIONS.values() for start in starts)
_TOP = (
    "version",
    "accounts",
    "admins",
    "auditors",
    "roles",
    "workloads",
    "entitlements",
    "organization",
)


def parse_policy(text: str, *, providers: frozenset[str], number: int = 0) -> AccessPolicy:
    """The policy in `text`, YAML or JSON.

    `providers` are the configured OpenID providers' names: groups and users
    are qualified by them. `number` is the stored version. Raises PolicyRefused
    with every finding, and nothing else.
    """
    return read_policy(text, providers=providers, number=number)[0]


def read_policy(
    text: str, *, providers: frozenset[str], number: int = 0
) -> tuple[AccessPolicy, Node]:
    """The policy and the tree it was read from. Raises PolicyRefused."""
    findings = Findings()
    try:
        root = read(text, findings)
    except Unreadable as stop:
        raise PolicyRefused(findings.sorted()) from stop
    policy = _PolicyReader(findings, providers).policy(root, number)
    if found := findings.sorted():
        raise PolicyRefused(found)
    return policy, root


class _PolicyReader:
    def __init__(self, findings: Findings, providers: frozenset[str]) -> None:
        self._findings = findings
        self._providers = providers

    def policy(self, root: Node, number: int) -> AccessPolicy:
        example = "version: 1, accounts: ..., roles: ..., entitlements: ..."
        top = Section(self._findings, root, _TOP, example)
        self._version(top)
        accounts = self._accounts(top.get("accounts"))
        # An account that was refused is no unknown account.
        known = tuple(entries(Findings(), top.get("accounts"), ""))
        organization = self._organization(top.get("organization"), accounts, known)
        roles = self._roles(top.get("roles"), accounts, known)
        self._forbidden_accounts(top.get("roles"), roles, organization)
        workloads = read_workloads(self._findings, top.get("workloads"))
        subjects = EntitlementReader(
            self._findings,
            self._providers,
            workloads,
            # A workload that was refused is no unknown workload.
            tuple(entries(Findings(), top.get("workloads"), "")),
        )
        admins, delegated = read_admins(
            self._findings,
            subjects,
            top.get("admins"),
            accounts=known,
            roles=tuple(entries(Findings(), top.get("roles"), "")),
        )
        return AccessPolicy(
            number=number,
            accounts=accounts,
            admins=admins,
            auditors=subjects.subjects(top.get("auditors"), "auditors"),
            roles=roles,
            entitlements=subjects.entitlements(top.get("entitlements"), roles, top.get("roles")),
            organization=organization,
            delegated=delegated,
            workloads=workloads,
        )

    def _version(self, top: Section) -> None:
        node = top.need("version", "version: 1")
        value = node.value if isinstance(node, Scalar) else None
        if node is not None and (value != 1 or isinstance(value, bool)):
            self._findings.at(node, "this broker reads version 1", "write version: 1")

    def _accounts(self, node: Node | None) -> dict[str, Account]:
        example = 'prod: {id: "111122223333", region: us-east-1}'
        accounts: dict[str, Account] = {}
        by_id: dict[str, str] = {}
        for name, child in entries(self._findings, node, example).items():
            if not _NAME.fullmatch(name):
                self._findings.at(
                    child, f"{name[:80]!r} is no name of an account", "use letters, digits, . _ -"
                )
            account = self._account(name, child, example)
            if account is None:
                continue
            if first := by_id.get(account.id):
                self._findings.at(child, f"account {account.id} is {first} already", "keep one")
            by_id[account.id] = name
            accounts[name] = account
        return accounts

    def _account(self, name: str, node: Node, example: str) -> Account | None:
        f = self._findings
        section = Section(f, node, ("id", "name", "region", "partition"), example)
        number = section.need("id", 'id: "111122223333"')
        account_id = text(f, number, "account id", 'the 12 digits: "111122223333"', _ACCOUNT_ID)
        title = text(f, section.get("name"), "name", "name: Production")
        partition_node = section.get("partition")
        partition = text(f, partition_node, "partition", "partition: aws") or "aws"
        if partition not in _PARTITIONS and partition_node is not None:
            f.at(
                partition_node,
                f"{partition[:80]!r} is no partition of AWS",
                nearest(partition, tuple(_PARTITIONS)),
            )
            return None
        default, starts = _PARTITIONS[partition]
        region_node = section.get("region")
        region = text(f, region_node, "region", f"region: {default}", _REGION) or default
        ours = region.startswith(starts) if starts else not region.startswith(_OF_OTHERS)
        if not ours and region_node is not None:
            f.at(
                region_node,
                f"{region} is no region of partition {partition}",
                f"write region: {default}, or the partition it belongs to",
            )
        if account_id is None:
            return None
        return Account(name, account_id, title or name, region, partition)

    def _roles(
        self, node: Node | None, accounts: Mapping[str, Account], known: tuple[str, ...]
    ) -> dict[str, Role]:
        return {
            name: role
            for name, child in entries(self._findings, node, _ROLE_EXAMPLE).items()
            if (role := read_role(self._findings, name, child, accounts, known)) is not None
        }

    def _forbidden_accounts(
        self, node: Node | None, roles: Mapping[str, Role], organization: Organization
    ) -> None:
        if organization.allowed_accounts is None:
            return
        children = entries(self._findings, node, _ROLE_EXAMPLE)
        for name, role in roles.items():
            if role.account.id not in organization.allowed_accounts:
                self._findings.at(
                    children[name],
                    f"role {name} is in account {role.account.name}, "
                    "which organization.allowed_accounts leaves out",
                    "add the account there, or drop the role",
                )

    def _organization(
        self, node: Node | None, accounts: Mapping[str, Account], known: tuple[str, ...]
    ) -> Organization:
        if node is None:
            return Organization()
        f = self._findings
        example = "{maximum_duration: 8h}"
        section = Section(f, node, ("maximum_duration", "allowed_accounts", "deny"), example)
        return Organization(
            maximum_duration=duration(
                f,
                section.get("maximum_duration"),
                "maximum_duration",
                MIN_DURATION,
                MAX_DURATION,
                "8h",
            ),
            allowed_accounts=self._allowed_accounts(
                section.get("allowed_accounts"), accounts, known
            ),
            deny=self._deny(section.get("deny")),
        )

    def _allowed_accounts(
        self, node: Node | None, accounts: Mapping[str, Account], known: tuple[str, ...]
    ) -> frozenset[str] | None:
        if node is None:
            return None
        example = "allowed_accounts: [prod]"
        if plain(node) == []:
            self._findings.at(node, "an empty list allows no account", "leave it out")
        allowed: set[str] = set()
        for child, written in texts(self._findings, node, "allowed_accounts", example):
            if written in accounts:
                allowed.add(accounts[written].id)
            elif _ACCOUNT_ID.fullmatch(written):
                allowed.add(written)
            elif written not in known:
                instead = nearest(written, known) if known else "write its 12 digits"
                self._findings.at(child, f"there is no account {written[:80]!r}", instead)
        # With an entry that was refused it is not known which accounts are left out.
        complete = isinstance(node, ListNode) and len(allowed) == len(node.items)
        return frozenset(allowed) if allowed and complete else None

    def _deny(self, node: Node | None) -> tuple[Mapping[str, object], ...]:
        example = 'deny: [{Effect: Deny, Action: "iam:*", Resource: "*"}]'
        statements: list[Mapping[str, object]] = []
        for child in listed(self._findings, node, "deny", example):
            if not sound(child):
                continue
            statement = plain(child)
            faults = list(statement_faults(statement, deny_only=True))
            for fault in faults:
                self._findings.add(
                    locate(child, fault.path),
                    (*child.path, *fault.path),
                    fault.message,
                    fault.instead,
                )
            if "{{" in str(statement):
                self._findings.at(
                    child, "organization.deny takes no placeholders", "write the text itself"
                )
            if isinstance(statement, dict) and not faults:
                statements.append(statement)
        return tuple(statements)
