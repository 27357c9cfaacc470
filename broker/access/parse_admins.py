"""Who administers, read from the access policy file: admins without limits, and delegated ones."""

from __future__ import annotations

from broker.access.document import Findings, MapNode, Node, plain
from broker.access.finding import nearest
from broker.access.parse_entitlement import EntitlementReader
from broker.access.policy import DelegatedAdmin, Subject
from broker.access.reading import listed, texts

MAX_ADMINS = 1000
_LIMITS = ("accounts", "roles")
_EXAMPLE = "admins: [{group: corp/platform}]"


def read_admins(
    findings: Findings,
    people: EntitlementReader,
    node: Node | None,
    *,
    accounts: tuple[str, ...],
    roles: tuple[str, ...],
) -> tuple[tuple[Subject, ...], tuple[DelegatedAdmin, ...]]:
    """Admins without limits, and those of some accounts or roles.

    `accounts` and `roles` are the names of all that the file has, also of those that were
    refused.
    """
    children = listed(findings, node, "admins", _EXAMPLE)
    if node is not None and len(children) > MAX_ADMINS:
        message = f"there are {len(children)} entries"
        findings.at(node, message, f"write {MAX_ADMINS} at most, and groups for the rest")
    admins: list[Subject] = []
    delegated: list[DelegatedAdmin] = []
    seen: set[Subject] = set()
    for child in children:
        subject = people.subject(child, also=_LIMITS)
        limits = child.items if isinstance(child, MapNode) else {}
        in_accounts = _names(findings, limits.get("accounts"), "account", accounts)
        of_roles = _names(findings, limits.get("roles"), "role", roles)
        if subject is None:
            continue
        if subject in seen:
            findings.at(child, f"{subject.name} stands here twice", "keep one of them")
        seen.add(subject)
        if limits.keys() & set(_LIMITS):
            delegated.append(DelegatedAdmin(subject, in_accounts, of_roles))
        else:
            admins.append(subject)
    return tuple(admins), tuple(delegated)


def _names(
    findings: Findings, node: Node | None, kind: str, known: tuple[str, ...]
) -> frozenset[str]:
    found: set[str] = set()
    if node is not None and plain(node) == []:
        findings.at(node, f"an empty list names no {kind}", f"name the {kind}s, or leave it out")
    for child, name in texts(findings, node, f"{kind}s", f"{kind}s: [{kind}-name]"):
        if name not in known:
            instead = nearest(name, known) if known else f"add it under {kind}s"
            findings.at(child, f"there is no {kind} {name[:80]!r}", instead)
        found.add(name)
    return frozenset(found)
