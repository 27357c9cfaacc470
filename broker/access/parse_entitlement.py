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
    MAX_QUORUM,
    MIN_DURATION,
    Approval,
    Conditions,
    Entitlement,
    Group,
    Mode,
    Role,
    Subject,
    User,
    WorkloadRef,
)
from broker.access.reading import Section, duration, entries, flag, listed, text, texts
from broker.identity.people import email_key
from broker.identity.trust import Workload

_PRINCIPAL_ID = re.compile(r"[pw]-[a-z2-7]{16}", re.ASCII)
_EMAIL = re.compile(r"[!-.0-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}", re.ASCII)
_MAX_GROUP = 256
MAX_GRANT_MOST = 366 * 86400
_ON_REQUEST_KEYS = ("max_grant", "approval", "break_glass")


class EntitlementReader:
    """`providers` are the configured OpenID providers' names, which qualify groups and users.
    `workloads` are the file's, `workload_names` also those of them that were refused.
    """

    def __init__(
        self,
        findings: Findings,
        providers: frozenset[str],
        workloads: Mapping[str, Workload],
        workload_names: tuple[str, ...],
    ) -> None:
        self._findings = findings
        self._providers = providers
        self._workloads = workloads
        self._workload_names = workload_names

    def subjects(self, node: Node | None, what: str) -> tuple[Subject, ...]:
        subjects: list[Subject] = []
        for child in listed(self._findings, node, what, f"{what}: [{{group: corp/platform}}]"):
            subject = self.subject(child)
            if subject is None:
                continue
            if isinstance(subject, WorkloadRef):
                self._findings.at(child, f"a workload can't be among {what}", "name a person")
            if subject in subjects:
                self._findings.at(child, f"{subject.name} stands here twice", "keep one of them")
            subjects.append(subject)
        return tuple(subjects)

    def subject(self, node: Node, *, also: tuple[str, ...] = ()) -> Subject | None:
        """`also` are keys that may stand beside the subject's own."""
        f = self._findings
        example = '{group: corp/sre}, {user: "corp/grace@example.com"} or {workload: deploy}'
        section = Section(f, node, ("group", "user", "workload", *also), example)
        given = [key for key in ("group", "user", "workload") if section.get(key) is not None]
        if len(given) != 1:
            f.at(node, "a subject is one group, one user or one workload", f"write {example}")
            return None
        child = section.get(given[0])
        if child is None:
            return None
        read = {"group": self._group, "user": self._user, "workload": self._workload}[given[0]]
        return read(child)

    def _workload(self, node: Node) -> WorkloadRef | None:
        name = text(self._findings, node, "workload", "workload: deploy")
        if name is None:
            return None
        if name not in self._workload_names:
            known = self._workload_names
            instead = nearest(name, known) if known else "add it under workloads"
            self._findings.at(node, f"there is no workload {name[:80]!r}", instead)
            return None
        workload = self._workloads.get(name)
        return None if workload is None else WorkloadRef(name, workload.issuer)

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
            terms = (*same, entitlement.max_duration, entitlement.require, entitlement.approval)
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
            ("role", "to", "mode", "max_duration", "require", *_ON_REQUEST_KEYS),
            "{role: data-reader, to: {group: analysts}, mode: standing}",
        )
        role_node = section.need("role", "role: data-reader")
        role = text(f, role_node, "role", "role: data-reader")
        if role is not None and role_node is not None and role not in names:
            instead = nearest(role, names) if names else "add it under roles"
            f.at(role_node, f"there is no role {role[:80]!r}", instead)
        to = section.need("to", "to: {group: analysts}")
        subject = None if to is None else self.subject(to)
        mode = self._mode(section)
        longest = self._longest(section.get("max_duration"), roles.get(role or ""))
        require = self._conditions(section.get("require"))
        max_grant = duration(
            f, section.get("max_grant"), "max_grant", MIN_DURATION, MAX_GRANT_MOST, "8h"
        )
        approval = self._approval(section.get("approval"))
        break_glass = flag(f, section.get("break_glass"), "break_glass")
        if isinstance(subject, WorkloadRef):
            self._for_a_job(node, section, mode, require)
        if role is None or subject is None:
            return None
        return Entitlement(
            role=role,
            to=subject,
            mode=mode,
            max_duration=longest,
            require=require,
            line=node.place.line,
            max_grant=max_grant,
            approval=approval,
            break_glass=break_glass,
        )

    def _for_a_job(self, node: Node, section: Section, mode: Mode, require: Conditions) -> None:
        """What only a person can do is not asked of a job, which could then never have the role."""
        if mode is Mode.ON_REQUEST:
            message = "a job can't wait for an approval"
            self._findings.at(section.get("mode") or node, message, "write mode: standing")
        if require.mfa_within is not None:
            where = section.get("require") or node
            self._findings.at(where, "a job shows no second factor", "leave mfa_within out")

    def _approval(self, node: Node | None) -> Approval | None:
        if node is None:
            return None
        f = self._findings
        example = "approval: {from: {group: sre-leads}, quorum: 1}"
        section = Section(f, node, ("from", "quorum"), example)
        whom = section.need("from", example)
        approvers = None if whom is None else self.subject(whom)
        quorum = self._quorum(section.get("quorum"))
        if isinstance(approvers, WorkloadRef) and whom is not None:
            f.at(whom, "a workload can't review a request", "name a group or a user")
            return None
        if isinstance(approvers, User) and quorum > 1 and whom is not None:
            f.at(whom, f"one user is no quorum of {quorum}", "name a group, or lower the quorum")
        return None if approvers is None else Approval(approvers, quorum)

    def _quorum(self, node: Node | None) -> int:
        if node is None or (isinstance(node, Scalar) and not node.sound):
            return 1
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_QUORUM:
            self._findings.at(node, f"quorum is 1 to {MAX_QUORUM}", "write quorum: 1")
            return 1
        return value

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

    def _mode(self, section: Section) -> Mode:
        """What is said of requests stands in an entitlement on request alone."""
        node = section.need("mode", "mode: standing")
        mode = text(self._findings, node, "mode", "mode: standing")
        if mode == Mode.ON_REQUEST:
            return Mode.ON_REQUEST
        if node is not None and mode is not None and mode != Mode.STANDING:
            instead = "write mode: standing, or mode: on_request"
            self._findings.at(node, f"{mode[:80]!r} is no mode", instead)
        if mode == Mode.STANDING:
            for key in _ON_REQUEST_KEYS:
                if (child := section.get(key)) is not None:
                    message = f"a standing entitlement has no {key}: nobody is asked"
                    self._findings.at(child, message, "write mode: on_request, or leave it out")
        return Mode.STANDING

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
            if plain(node) == []:
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
