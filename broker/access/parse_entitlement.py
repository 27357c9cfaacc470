"""Who gets what, read from the access policy file: subjects, entitlements, conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from broker.access.document import Findings, Node, Scalar, plain, sound
from broker.access.finding import nearest
from broker.access.hours import EXAMPLE as HOURS_EXAMPLE
from broker.access.hours import Hours, HoursError
from broker.access.policy import (
    MAX_DURATION,
    MIN_DURATION,
    Conditions,
    Entitlement,
    Group,
    Mode,
    Role,
    Subject,
    User,
)
from broker.access.reading import NOT_YET, Section, duration, entries, flag, listed, text, texts
from broker.identity.people import email_key

_PRINCIPAL_ID = re.compile(r"[pw]-[a-z2-7]{16}", re.ASCII)
_EMAIL = re.compile(r"[!-.0-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}", re.ASCII)
_MAX_GROUP = 256


class EntitlementReader:
    """`providers` are the configured OpenID providers' names, which qualify groups and users."""

    def __init__(self, findings: Findings, providers: frozenset[str]) -> None:
        self._findings = findings
        self._providers = providers

    def subjects(self, node: Node | None, what: str) -> tuple[Subject, ...]:
        subjects: list[Subject] = []
        for child in listed(self._findings, node, what, f"{what}: [{{group: corp/platform}}]"):
            subject = self._subject(child)
            if subject is None:
                continue
            if subject in subjects:
                self._findings.at(child, f"{subject.name} stands here twice", "keep one of them")
            subjects.append(subject)
        return tuple(subjects)

    def _subject(self, node: Node) -> Subject | None:
        f = self._findings
        example = '{group: corp/sre} or {user: "corp/grace@example.com"}'
        section = Section(f, node, ("group", "user"), example, ("workload",))
        group, user = section.get("group"), section.get("user")
        if section.get("workload") is not None:
            return None
        if (group is None) == (user is None):
            f.at(node, "a subject is one group or one user", f"write {example}")
            return None
        if group is not None:
            return self._group(group)
        return None if user is None else self._user(user)

    def _group(self, node: Node) -> Group | None:
        name = text(self._findings, node, "group", "group: corp/sre")
        if name is None:
            return None
        if not name or len(name) > _MAX_GROUP or name != name.strip():
            self._findings.at(node, "this is no name of a group", "write group: corp/sre")
            return None
        qualified = self._qualified(node, name, "group")
        return None if qualified is None else Group(qualified)

    def _user(self, node: Node) -> User | None:
        example = '"corp/grace@example.com" or a principal id'
        name = text(self._findings, node, "user", example)
        if name is None:
            return None
        if _PRINCIPAL_ID.fullmatch(name):
            return User(name)
        if not _EMAIL.fullmatch(name.rpartition("/")[2]):
            self._findings.at(
                node, f"{name[:80]!r} is no principal id and no e-mail", f"write {example}"
            )
            return None
        qualified = self._qualified(node, name, "user")
        if qualified is None:
            return None
        provider, _, email = qualified.partition("/")
        return User(f"{provider}/{email_key(email)}")

    def _qualified(self, node: Node, name: str, kind: str) -> str | None:
        """`provider/name`; a bare name means the one provider there is."""
        provider, slash, rest = name.partition("/")
        if slash and provider in self._providers and rest:
            return name
        known = sorted(self._providers)
        if not slash and len(known) == 1:
            return f"{known[0]}/{name}"
        if not known:
            self._findings.at(
                node, f"{kind} {name[:80]!r}: no provider is configured", "configure [[oidc]] first"
            )
        elif slash:
            self._findings.at(
                node,
                f"{kind} {name[:80]!r} begins with no configured provider ({', '.join(known)})",
                f"write {known[0]}/{name[:80] if rest else 'name'}, or configure that provider",
            )
        else:
            ways = " or ".join(f"{provider}/{name[:80]}" for provider in known)
            self._findings.at(
                node,
                f"{kind} {name[:80]!r} is ambiguous with {len(known)} providers",
                f"write {ways}",
            )
        return None

    def entitlements(
        self, node: Node | None, roles: Mapping[str, Role], roles_node: Node | None
    ) -> tuple[Entitlement, ...]:
        example = "[{role: data-reader, to: {group: analysts}, mode: standing}]"
        # A role that was refused is no unknown role.
        names = tuple(entries(Findings(), roles_node, ""))
        seen: dict[object, int] = {}
        entitlements: list[Entitlement] = []
        for child in listed(self._findings, node, "entitlements", example):
            entitlement = self._entitlement(child, names, roles)
            if entitlement is None:
                continue
            same = (entitlement.role, entitlement.to, entitlement.mode)
            terms = (*same, entitlement.max_duration, entitlement.require)
            if first := seen.get(terms):
                self._findings.at(
                    child, f"the same entitlement stands in line {first}", "keep one of them"
                )
            seen.setdefault(terms, entitlement.line)
            entitlements.append(entitlement)
        return tuple(entitlements)

    def _entitlement(
        self, node: Node, names: tuple[str, ...], roles: Mapping[str, Role]
    ) -> Entitlement | None:
        f = self._findings
        section = Section(
            f,
            node,
            ("role", "to", "mode", "max_duration", "require"),
            "{role: data-reader, to: {group: analysts}, mode: standing}",
            ("max_grant", "approval", "break_glass"),
        )
        role_node = section.need("role", "role: data-reader")
        role = text(f, role_node, "role", "role: data-reader")
        if role is not None and role_node is not None and role not in names:
            instead = nearest(role, names) if names else "add it under roles"
            f.at(role_node, f"there is no role {role[:80]!r}", instead)
        to = section.need("to", "to: {group: analysts}")
        subject = None if to is None else self._subject(to)
        self._mode(section)
        longest = self._longest(section.get("max_duration"), roles.get(role or ""))
        require = self._conditions(section.get("require"))
        if role is None or subject is None:
            return None
        return Entitlement(role, subject, Mode.STANDING, longest, require, node.place.line)

    def _longest(self, node: Node | None, role: Role | None) -> int | None:
        longest = duration(self._findings, node, "max_duration", MIN_DURATION, MAX_DURATION, "1h")
        if node is None or longest is None or role is None or longest <= role.role_maximum:
            return longest
        self._findings.at(
            node,
            f"max_duration is longer than the {role.role_maximum} s of role {role.name}",
            "lower it, or raise role_maximum where the IAM role allows it",
        )
        return None

    def _mode(self, section: Section) -> None:
        node = section.need("mode", "mode: standing")
        mode = text(self._findings, node, "mode", "mode: standing")
        if node is None or mode is None or mode == Mode.STANDING:
            return
        if mode == Mode.ON_REQUEST:
            self._findings.at(node, f"mode: on_request {NOT_YET}", "leave the entitlement out")
        else:
            self._findings.at(node, f"{mode[:80]!r} is no mode", "write mode: standing")

    def _conditions(self, node: Node | None) -> Conditions:
        if node is None:
            return Conditions()
        f = self._findings
        example = "{mfa_within: 8h, networks: [10.0.0.0/8], reason: true}"
        section = Section(f, node, ("mfa_within", "networks", "hours", "reason"), example)
        return Conditions(
            mfa_within=duration(f, section.get("mfa_within"), "mfa_within", 60, 30 * 86400, "8h"),
            networks=self._networks(section.get("networks")),
            hours=self._hours(section.get("hours")),
            reason=flag(f, section.get("reason"), "reason"),
        )

    def _networks(self, node: Node | None) -> tuple[IPv4Network | IPv6Network, ...]:
        networks: list[IPv4Network | IPv6Network] = []
        if node is not None and plain(node) == []:
            self._findings.at(node, "an empty list names no network", "write [10.0.0.0/8]")
        for child, written in texts(self._findings, node, "networks", "[10.0.0.0/8]"):
            try:
                network = ip_network(written, strict=True)
            except ValueError:
                self._findings.at(
                    child, f"{written[:80]!r} is no network", _network_instead(written)
                )
                continue
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
                self._findings.at(
                    child, f"{written} is an IPv4 network in IPv6 notation", "write it as IPv4"
                )
                continue
            networks.append(network)
        return tuple(networks)

    def _hours(self, node: Node | None) -> Hours | None:
        if node is None or not sound(node):
            return None
        if isinstance(node, Scalar):
            written = text(self._findings, node, "hours", HOURS_EXAMPLE)
            windows = [] if written is None else [written]
        else:
            windows = [one for _, one in texts(self._findings, node, "hours", f"[{HOURS_EXAMPLE}]")]
            if not windows:
                self._findings.at(node, "hours names no window", f"write {HOURS_EXAMPLE}")
        try:
            return Hours.parse(windows) if windows else None
        except HoursError as error:
            self._findings.at(node, error.message, error.instead)
            return None


def _network_instead(written: str) -> str:
    """The network that was meant, where only host bits are in the way."""
    try:
        return f"write {ip_network(written, strict=False)}"
    except ValueError:
        return "write one such as 10.0.0.0/8 or 2001:db8::/32"
