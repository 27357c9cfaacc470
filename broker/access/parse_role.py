"""One role of the access policy file, read.

Owns: the role's ARN, durations, scope (session policy, managed policies,
unscoped), parameters and tags, and that these agree: a placeholder names
something, a parameter is used, a role without a scope says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from broker.access.document import Findings, MapNode, Node, Scalar, locate, plain, sound
from broker.access.finding import Fault, Path, nearest
from broker.access.grammar import policy_faults
from broker.access.parse_parameter import read_parameters
from broker.access.policy import (
    MAX_DURATION,
    MAX_HOPS,
    MIN_DURATION,
    ROLE_NAME,
    Account,
    Parameter,
    Role,
)
from broker.access.reading import Section, duration, entries, flag, text, texts
from broker.access.tags import MAX_KEY, MAX_TAGS, MAX_VALUE, RESERVED, is_tag_text
from broker.access.template import (
    PolicyTemplate,
    TextTemplate,
    names_used,
    placement_faults,
    text_faults,
)

ROLE_MAXIMUM_LEAST = 3600  # of an IAM role's MaxSessionDuration (IAM API reference, CreateRole)
DEFAULT_DURATION = 3600
MAX_MANAGED = 10
_MAX_GRANT_MOST = 366 * 86400

_ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>[0-9]{12}):"
    # IAM takes * ? and $ in a path, and reads them as a pattern where the ARN is a Resource.
    r"role(?P<path>/(?:[!-#%-)+-.0->@-~]{1,128}/){0,8})(?P<name>[A-Za-z0-9_+=,.@-]{1,64})",
    re.ASCII,
)
_ROOT_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:root", re.ASCII)
_MANAGED_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>aws|[0-9]{12}):"
    r"policy/(?:[!-.0-~]{1,128}/){0,8}[A-Za-z0-9_+=,.@-]{1,128}",
    re.ASCII,
)
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}", re.ASCII)
_EXAMPLE = "{account: prod, role_arn: ..., session_policy: {...}}"
_KEYS = (
    "description",
    "account",
    "role_arn",
    "via",
    "external_id",
    "role_maximum",
    "default_duration",
    "max_grant",
    "parameters",
    "session_policy",
    "managed_policies",
    "tags",
    "transitive_tags",
    "unscoped",
    "may_chain",
    "revocable",
)
_BUILT_IN = ("principal.id", "principal.handle", "principal.email", "issuance.id")
_CLAIM = re.compile(r"principal\.claims\.[A-Za-z0-9_.-]{1,64}", re.ASCII)


def read_role(
    findings: Findings,
    name: str,
    node: Node,
    accounts: Mapping[str, Account],
    known: tuple[str, ...],
) -> Role | None:
    """The role, or None where what identifies it has findings.

    `known` are the names of all accounts in the file, also of those that were refused.
    """
    if not ROLE_NAME.fullmatch(name):
        findings.at(
            node,
            f"{name[:80]!r} is no name of a role",
            "use at most 64 lower-case letters, digits, . _ -, beginning with a letter or digit",
        )
    return _RoleReader(findings, name, node, accounts, known).role()


class _RoleReader:
    def __init__(
        self,
        findings: Findings,
        name: str,
        node: Node,
        accounts: Mapping[str, Account],
        known: tuple[str, ...],
    ) -> None:
        self._findings = findings
        self._name = name
        self._accounts = accounts
        self._known_accounts = known
        self._section = Section(findings, node, _KEYS, _EXAMPLE)
        self._used: list[tuple[Node, Path, str]] = []
        self._policy_refused = False

    def role(self) -> Role | None:
        get = self._section.get
        f = self._findings
        account = self._account()
        arn = self._role_arn(account)
        role_maximum = self._role_maximum()
        default = duration(
            f, get("default_duration"), "default_duration", MIN_DURATION, role_maximum, "1h"
        )
        parameters = read_parameters(f, get("parameters"))
        session_policy = self._session_policy()
        managed = self._managed(account)
        tags = self._tags()
        unscoped = flag(f, get("unscoped"), "unscoped")
        self._check_scope(unscoped)
        self._check_names(parameters)
        description = text(f, get("description"), "description", "description: Read one dataset")
        via = self._via(account, arn)
        generates, external_id = self._external_id()
        max_grant = duration(f, get("max_grant"), "max_grant", 0, _MAX_GRANT_MOST, "24h")
        transitive = self._transitive()
        may_chain = flag(f, get("may_chain"), "may_chain")
        revocable = flag(f, get("revocable"), "revocable")
        if account is None or arn is None:
            return None
        return Role(
            name=self._name,
            description=description or "",
            account=account,
            role_arn=arn,
            via=via,
            external_id=external_id,
            role_maximum=role_maximum,
            default_duration=default or min(DEFAULT_DURATION, role_maximum),
            max_grant=max_grant or 0,
            parameters=parameters,
            session_policy=session_policy,
            managed_policies=managed,
            tags=tags,
            transitive_tags=transitive,
            unscoped=unscoped,
            may_chain=may_chain,
            revocable=revocable,
            generates_external_id=generates,
        )

    def _role_maximum(self) -> int:
        node = self._section.get("role_maximum")
        if node is None:
            return ROLE_MAXIMUM_LEAST
        seconds = duration(
            self._findings, node, "role_maximum", ROLE_MAXIMUM_LEAST, MAX_DURATION, "1h"
        )
        # Where it was refused, what is compared with it is not at fault.
        return MAX_DURATION if seconds is None else seconds

    def _account(self) -> Account | None:
        node = self._section.need("account", "account: prod")
        name = text(self._findings, node, "account", "account: prod")
        if node is None or name is None:
            return None
        known = self._known_accounts
        if name not in known:
            self._findings.at(
                node,
                f"there is no account {name[:80]!r}",
                nearest(name, known) if known else "add it under accounts",
            )
        return self._accounts.get(name)

    def _role_arn(self, account: Account | None) -> str | None:
        example = "role_arn: arn:aws:iam::111122223333:role/DataReader"
        node = self._section.need("role_arn", example)
        arn = text(self._findings, node, "role_arn", example)
        if node is None or arn is None:
            return None
        match = self._matched_role(node, arn, example)
        if match is None:
            return None
        self._agrees(node, match, account)
        return arn

    def _via(self, account: Account | None, target: str | None) -> tuple[str, ...]:
        """Hops may be in any account of the role's partition."""
        node = self._section.get("via")
        example = "[arn:aws:iam::999988887777:role/Hub]"
        hops: list[str] = []
        for child, arn in texts(self._findings, node, "via", example):
            match = self._matched_role(child, arn, f"via: {example}")
            if match is None:
                continue
            if arn == target:
                self._findings.at(child, "this is the role itself", "leave it out of via")
            self._agrees(child, match, account, any_account=True)
            hops.append(arn)
        if node is not None and len(hops) > MAX_HOPS:
            self._findings.at(node, f"there are {len(hops)} hops", f"write {MAX_HOPS} at most")
        return tuple(hops)

    def _matched_role(self, node: Node, arn: str, example: str) -> re.Match[str] | None:
        if _ROOT_ARN.fullmatch(arn):
            self._findings.at(
                node, "this is the account's root user, not a role", f"write {example}"
            )
            return None
        match = _ROLE_ARN.fullmatch(arn)
        if match is None:
            fault = "is no ARN of one IAM role: *, ? and $ make a pattern"
            if not set("*?$") & set(arn):
                fault = "is no ARN of an IAM role"
            self._findings.at(node, f"{arn[:80]!r} {fault}", f"write {example}")
        return match

    def _agrees(
        self,
        node: Node,
        match: re.Match[str],
        account: Account | None,
        *,
        any_account: bool = False,
    ) -> None:
        if account is None:
            return
        if not any_account and match["account"] not in (account.id, "aws"):
            self._findings.at(
                node,
                f"the ARN is in account {match['account']}, but {account.name} is {account.id}",
                "write the account that the ARN is in",
            )
        if match["partition"] != account.partition:
            self._findings.at(
                node,
                f"the ARN is in partition {match['partition']}, "
                f"but account {account.name} is in {account.partition}",
                f"write arn:{account.partition}:iam::...",
            )

    def _external_id(self) -> tuple[bool, str | None]:
        """Whether one is to be generated, and the one that is written."""
        node = self._section.get("external_id")
        if isinstance(node, MapNode):
            example = "external_id: {generate: true}, or the id itself"
            section = Section(self._findings, node, ("generate",), example)
            wanted = section.need("generate", example)
            generates = flag(self._findings, wanted, "generate")
            if isinstance(wanted, Scalar) and wanted.value is False:
                self._findings.at(wanted, "generate: false says nothing", f"write {example}")
            return generates, None
        value = text(self._findings, node, "external_id", "external_id: some-long-random-text")
        # The id is half a secret: it is not repeated in a finding.
        if node is not None and value is not None and not _EXTERNAL_ID.fullmatch(value):
            self._findings.at(
                node,
                "this is no external id",
                "write 2 to 1224 letters, digits and _ + = , . @ : / -",
            )
        return False, value

    def _session_policy(self) -> PolicyTemplate | None:
        node = self._section.get("session_policy")
        if node is None:
            return None
        self._policy_refused = True
        if not sound(node):
            return None
        document = plain(node)
        faults = [*policy_faults(document), *placement_faults(document)]
        for fault in faults:
            self._fault(node, fault)
        if faults or not isinstance(document, dict):
            return None
        self._policy_refused = False
        self._used.extend((node, path, name) for path, name in names_used(document))
        return PolicyTemplate.parse(document)

    def _managed(self, account: Account | None) -> tuple[str, ...]:
        node = self._section.get("managed_policies")
        example = "arn:aws:iam::aws:policy/ReadOnlyAccess"
        arns: list[str] = []
        for child, arn in texts(self._findings, node, "managed_policies", example):
            match = _MANAGED_ARN.fullmatch(arn)
            if match is None:
                self._findings.at(
                    child, f"{arn[:80]!r} is no ARN of a managed policy", f"write {example}"
                )
                continue
            self._agrees(child, match, account)
            arns.append(arn)
        if node is not None and len(arns) > MAX_MANAGED:
            self._findings.at(
                node, f"there are {len(arns)} managed policies", f"AWS takes {MAX_MANAGED} at most"
            )
        return tuple(arns)

    def _tags(self) -> dict[str, TextTemplate]:
        node = self._section.get("tags")
        tags: dict[str, TextTemplate] = {}
        folded: dict[str, str] = {}
        children = entries(self._findings, node, '{team: "{{principal.claims.team}}"}')
        for key, child in children.items():
            self._tag_key(key, child, folded)
            value = text(self._findings, child, "tag", 'team: "web"')
            if value is None:
                continue
            faults = list(text_faults(value))
            for fault in faults:
                self._fault(child, fault)
            if faults:
                continue
            tags[key] = TextTemplate.parse(value)
            self._used.extend((child, (), name) for name in sorted(tags[key].placeholders))
            written = "".join(part for part in tags[key].parts if isinstance(part, str))
            if not is_tag_text(written) or len(written) > MAX_VALUE:
                self._findings.at(
                    child,
                    f"the value of tag {key} is none that AWS takes",
                    f"write at most {MAX_VALUE} letters, digits, spaces and _ . : / = + - @",
                )
        if node is not None and len(children) > MAX_TAGS:
            self._findings.at(node, f"there are {len(children)} tags", f"write at most {MAX_TAGS}")
        return tags

    def _tag_key(self, key: str, node: Node, folded: dict[str, str]) -> None:
        if not key or len(key) > MAX_KEY or not is_tag_text(key):
            self._findings.at(
                node,
                f"{key[:80]!r} is no key of a tag",
                f"write 1 to {MAX_KEY} letters, digits, spaces and _ . : / = + - @",
            )
        if key.lower().startswith(RESERVED):
            self._findings.at(
                node, f"tag {key[:80]} begins with a reserved word", "name it otherwise"
            )
        if first := folded.get(key.lower()):
            self._findings.at(
                node,
                f"tag {key[:80]} differs from {first[:80]} in case alone, which AWS takes for one",
                "keep one of them",
            )
        folded[key.lower()] = key

    def _transitive(self) -> tuple[str, ...]:
        known = tuple(entries(Findings(), self._section.get("tags"), ""))
        keys: list[str] = []
        node = self._section.get("transitive_tags")
        for child, key in texts(self._findings, node, "transitive_tags", "[team]"):
            if key not in known:
                instead = nearest(key, known) if known else "add it under tags"
                self._findings.at(child, f"there is no tag {key[:80]!r} in tags", instead)
            keys.append(key)
        return tuple(keys)

    def _check_scope(self, unscoped: bool) -> None:
        """Several session policies are OR-ed, and none at all means everything the role has."""
        policy = self._section.get("session_policy")
        managed = self._section.get("managed_policies")
        has_managed = managed is not None and plain(managed) != []
        if unscoped and policy is not None:
            self._findings.at(
                policy, "an unscoped role has no session_policy", "leave one of the two out"
            )
        if unscoped and managed is not None and has_managed:
            self._findings.at(
                managed,
                "an unscoped role has no managed_policies: what the broker adds would widen them",
                "leave unscoped out, or the policies",
            )
        whole = self._section.whole
        if not (unscoped or policy is not None or has_managed) and isinstance(whole, MapNode):
            self._findings.at(
                whole,
                f"role {self._name[:80]} has no session_policy, so all that its AWS role may do",
                "write a session_policy, or unscoped: true",
            )

    def _check_names(self, parameters: Mapping[str, Parameter]) -> None:
        known = (*parameters, *_BUILT_IN)
        used = set()
        for node, path, name in self._used:
            used.add(name)
            if name not in known and not _CLAIM.fullmatch(name):
                instead = f"{nearest(name, (*known, 'principal.claims.NAME'))}"
                self._fault(node, Fault(path, f"{{{{{name[:80]}}}}} names no parameter", instead))
        nodes = entries(Findings(), self._section.get("parameters"), "")
        misspelt = any(name not in known and not _CLAIM.fullmatch(name) for name in used)
        if self._policy_refused or misspelt:  # then what was meant to be used is not known
            return
        for name in sorted(set(parameters) - used):
            self._findings.at(
                nodes[name],
                f"parameter {name[:80]} is used nowhere",
                f"write {{{{{name[:80]}}}}} in the session_policy or a tag, or drop it",
            )

    def _fault(self, node: Node, fault: Fault) -> None:
        place = locate(node, fault.path)
        self._findings.add(place, (*node.path, *fault.path), fault.message, fault.instead)
