"""CI workloads, read from the access policy file.

Owns: the keys of an entry, and what makes one safe: it pins owner and project
by ids that never change hands, asks only for what the platform sends, and lets
no event in that outsiders can cause unless it says so by name. Does not own:
comparing tokens with entries (`identity/trust`), the platforms
(`identity/presets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from broker.access.document import Findings, MapNode, Node, Scalar, plain, sound
from broker.access.finding import nearest
from broker.access.policy import ROLE_NAME
from broker.access.reading import Section, duration, entries, flag, listed, text, texts
from broker.identity.ci_token import ALGORITHMS
from broker.identity.presets import PRESETS, Claim, Preset, preset_of
from broker.identity.trust import (
    MAX_PATTERN,
    Exactly,
    Glob,
    Matcher,
    PatternRefused,
    Re2,
    Workload,
    compiled,
)

DEFAULT_MAX_JOB = 3600
_MIN_MAX_JOB = 900
_MAX_MAX_JOB = 6 * 3600
_MAX_AUDIENCE = 512
_MAX_CLAIMS = 32
_MAX_VALUES = 100
_OPERATORS = ("any_of", "glob", "re2")
_KEYS = ("issuer", "audience", "claims", "preset", "max_job", "reuse", "mode", "algorithms")
_EXAMPLE = (
    'deploy: {issuer: "https://token.actions.githubusercontent.com", audience: '
    '"https://broker.example.com", claims: {repository_id: "42", repository_owner_id: "7", '
    "ref: refs/heads/main}}"
)
_OTHER_CLAIM = re.compile(r"[!-~]{1,128}", re.ASCII)
# Protocol claims of every token: the broker judges them itself.
_PROTOCOL = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
_KINDS = {str: "text", int: "a number", bool: "true or false"}


def read_workloads(findings: Findings, node: Node | None) -> dict[str, Workload]:
    """The workloads by name. What is wrong goes to `findings`."""
    workloads: dict[str, Workload] = {}
    for name, child in entries(findings, node, _EXAMPLE).items():
        if not ROLE_NAME.fullmatch(name):
            findings.at(
                child,
                f"{name[:80]!r} is no name of a workload",
                "use small letters, digits, . _ -, at most 64",
            )
            continue
        workload = _WorkloadReader(findings, name, child).workload()
        if workload is None:
            continue
        for other in workloads.values():
            _compare(findings, child, workload, other)
        workloads[name] = workload
    return workloads


def _compare(findings: Findings, node: Node, workload: Workload, other: Workload) -> None:
    if workload.issuer != other.issuer:
        return
    if (workload.preset, workload.algorithms) != (other.preset, other.algorithms):
        findings.at(
            node,
            f"{workload.name} and {other.name} say different things of the same issuer",
            "give both the same preset and algorithms",
        )
    elif (workload.audience, workload.claims) == (other.audience, other.claims):
        findings.at(
            node,
            f"the same jobs are {other.name} already",
            "keep one of the two, and let entitlements name it",
        )


class _WorkloadReader:
    def __init__(self, findings: Findings, name: str, node: Node) -> None:
        self._f = findings
        self._name = name
        self._node = node

    def workload(self) -> Workload | None:
        f = self._f
        section = Section(f, self._node, _KEYS, _EXAMPLE)
        issuer = self._issuer(section.need("issuer", 'issuer: "https://gitlab.com"'))
        preset = self._preset(section.get("preset"), issuer)
        audience = self._audience(section, preset)
        claims_node = section.need("claims", 'claims: {repository_id: "42", ...}')
        claims = self._claims(claims_node, preset)
        max_job = duration(f, section.get("max_job"), "max_job", _MIN_MAX_JOB, _MAX_MAX_JOB, "1h")
        algorithms = self._algorithms(section.get("algorithms"))
        reuse = flag(f, section.get("reuse"), "reuse")
        observe = self._observe(section.get("mode"))
        if issuer is None or audience is None or claims is None or claims_node is None:
            return None
        self._pins(claims_node, claims, preset)
        return Workload(
            name=self._name,
            issuer=issuer,
            audience=audience,
            preset=preset,
            claims=claims,
            algorithms=algorithms,
            max_job=max_job or DEFAULT_MAX_JOB,
            reuse=reuse,
            observe=observe,
            line=self._node.place.line,
        )

    def _issuer(self, node: Node | None) -> str | None:
        example = 'issuer: "https://token.actions.githubusercontent.com"'
        issuer = text(self._f, node, "issuer", example)
        if node is None or issuer is None:
            return None
        if not _is_issuer(issuer):
            self._f.at(
                node,
                f"{issuer[:80]!r} is no issuer's address",
                "write the iss of its tokens: an https address without query and fragment "
                "(http for this machine alone)",
            )
            return None
        return issuer

    def _preset(self, node: Node | None, issuer: str | None) -> Preset | None:
        known = tuple(PRESETS)
        name = text(self._f, node, "preset", f"preset: {known[0]}")
        by_issuer = None if issuer is None else preset_of(issuer)
        if node is None or name is None:
            return by_issuer
        if name not in PRESETS:
            self._f.at(node, f"{name[:80]!r} is no preset", nearest(name, known))
            return by_issuer
        if by_issuer is not None and by_issuer.name != name:
            self._f.at(
                node, f"this is {by_issuer.title}'s issuer", f"write preset: {by_issuer.name}"
            )
            return by_issuer
        return PRESETS[name]

    def _audience(self, section: Section, preset: Preset | None) -> str | None:
        example = 'audience: "https://broker.example.com"'
        node = section.need("audience", example)
        audience = text(self._f, node, "audience", example)
        if node is None or audience is None:
            return None
        if not 0 < len(audience) <= _MAX_AUDIENCE:
            self._f.at(node, "the audience is empty or over-long", f"write {example}")
            return None
        default = None if preset is None else preset.default_audience
        if preset is not None and default is not None and default.fullmatch(audience):
            self._f.at(
                node,
                f"this is {preset.title}'s default audience: every service that jobs show a token "
                "to could use it here",
                f"ask for a token of the broker's own: {example}",
            )
            return None
        return audience

    def _algorithms(self, node: Node | None) -> frozenset[str]:
        if node is None:
            return ALGORITHMS
        example = "algorithms: [RS256]"
        chosen: set[str] = set()
        for child, name in texts(self._f, node, "algorithms", example):
            if name not in ALGORITHMS:
                instead = nearest(name, sorted(ALGORITHMS))
                self._f.at(child, f"{name[:80]!r} is not among the algorithms", instead)
            chosen.add(name)
        if plain(node) == []:
            self._f.at(node, "no algorithm is allowed", f"write {example}, or leave it out")
        return frozenset(chosen & ALGORITHMS) or ALGORITHMS

    def _observe(self, node: Node | None) -> bool:
        mode = text(self._f, node, "mode", "mode: observe")
        if node is not None and mode is not None and mode != "observe":
            self._f.at(
                node,
                f"{mode[:80]!r} is no mode of a workload",
                "write mode: observe to issue nothing, or leave it out",
            )
        return mode == "observe"

    # --- Claims ------------------------------------------------------------------------

    def _claims(self, node: Node | None, preset: Preset | None) -> dict[str, Matcher] | None:
        if node is None:
            return None
        claims: dict[str, Matcher] = {}
        count = 0
        for name, child in self._flat(node, preset, ""):
            count += 1
            claim = self._known(name, child, preset)
            matcher = self._matcher(name, child, claim)
            if matcher is not None:
                claims[name] = matcher
        if count == 0 and sound(node):
            self._f.at(node, "no claim is asked for", _pin_advice(preset))
        if count > _MAX_CLAIMS:
            self._f.at(node, f"more than {_MAX_CLAIMS} claims", "ask for fewer")
        # With one left out, the entry would be another, wider one.
        return claims if claims and len(claims) == count else None

    def _flat(self, node: Node, preset: Preset | None, prefix: str) -> Iterator[tuple[str, Node]]:
        """Claims inside objects as they stand in the token (`kubernetes.io: {namespace: ...}`),
        by the name `kubernetes.io/namespace`.
        """
        example = '{repository_id: "42"}'
        for key, child in entries(self._f, node, example).items():
            name = f"{prefix}{key}"
            nested = isinstance(child, MapNode) and not set(child.items) & {*_OPERATORS}
            if (
                nested
                and preset is not None
                and any(claim.startswith(f"{name}/") for claim in preset.claims)
            ):
                yield from self._flat(child, preset, f"{name}/")
            else:
                yield name, child

    def _known(self, name: str, node: Node, preset: Preset | None) -> Claim | None:
        if name in _PROTOCOL:
            self._f.at(
                node,
                f"{name} is not asked for under claims",
                "the broker checks it of every token; write issuer: and audience:",
            )
            return None
        if preset is None:
            if not _OTHER_CLAIM.fullmatch(name):
                self._f.at(node, "this is no name of a claim", "write the name in the token")
            return None
        claim = preset.claims.get(name)
        if claim is None:
            shown = f"{preset.title} sends no claim {name[:80]!r}"
            self._f.at(node, shown, nearest(name, tuple(preset.claims)))
        return claim

    def _matcher(self, name: str, node: Node, claim: Claim | None) -> Matcher | None:
        if isinstance(node, Scalar):
            value = self._value(name, node, claim)
            return None if value is None else Exactly((value,))
        if not isinstance(node, MapNode) or len(node.items) != 1 or not node.items:
            self._f.at(
                node,
                f"{name[:80]} is one value, or one of {', '.join(_OPERATORS)}",
                f'write {name[:80]}: {{any_of: [a, b]}} or {name[:80]}: {{glob: "refs/tags/*"}}',
            )
            return None
        operator, child = next(iter(node.items.items()))
        if operator == "any_of":
            return self._any_of(name, child, claim)
        if operator not in _OPERATORS:
            self._f.at(child, f"{operator[:80]!r} is unknown here", nearest(operator, _OPERATORS))
            return None
        pattern = text(self._f, child, operator, f'{operator}: "refs/tags/v*"')
        if pattern is None:
            return None
        if claim is not None and claim.type is not str:
            self._f.at(child, f"{name} is {_KINDS[claim.type]}", "write the value, or any_of")
            return None
        return self._glob(child, pattern) if operator == "glob" else self._re2(child, pattern)

    def _any_of(self, name: str, node: Node, claim: Claim | None) -> Matcher | None:
        values: list[str | int | bool] = []
        children = listed(self._f, node, "any_of", "any_of: [refs/heads/main, refs/heads/next]")
        for child in children:
            if not isinstance(child, Scalar):
                self._f.at(child, "any_of lists plain values", "write glob or re2 for patterns")
                return None
            value = self._value(name, child, claim)
            if value is None:
                return None
            if any(type(value) is type(one) and value == one for one in values):
                self._f.at(child, f"{str(value)[:80]!r} stands here twice", "keep one of them")
            values.append(value)
        if plain(node) == []:
            self._f.at(node, "an empty list allows nothing", "name a value")
        if not values:
            return None
        if len(values) > _MAX_VALUES:
            self._f.at(node, f"more than {_MAX_VALUES} values", "write two entries")
        return Exactly(tuple(values))

    def _value(self, name: str, node: Scalar, claim: Claim | None) -> str | int | bool | None:
        if not node.sound:
            return None
        value = node.value
        if value is None or value == "":
            self._f.at(node, f"{name[:80]} is empty", "write its value, or leave the claim out")
            return None
        if isinstance(value, str) and not value.isprintable():
            self._f.at(node, f"{name[:80]} holds a line break or control character", "leave it out")
            return None
        if claim is not None and type(value) is not claim.type:
            written = str(value).lower() if isinstance(value, bool) else str(value)
            instead = f'write "{written}" in quotes' if claim.type is str else f"write {written}"
            self._f.at(node, f"in the token {name} is {_KINDS[claim.type]}", instead)
            return None
        return value

    def _glob(self, node: Node, pattern: str) -> Matcher | None:
        if "*" not in pattern:
            self._f.at(node, "this glob has no *", "write the value itself")
        elif "**" in pattern:
            self._f.at(node, "** is no wildcard here", "write one * for each segment")
        elif any(character in pattern for character in "?[]{}"):
            self._f.at(node, "* is the only wildcard here", "write any_of, or re2")
        elif len(pattern) > MAX_PATTERN:
            self._f.at(node, f"longer than {MAX_PATTERN} characters", "write a shorter one")
        else:
            return Glob(pattern)
        return None

    def _re2(self, node: Node, pattern: str) -> Matcher | None:
        if not 0 < len(pattern) <= MAX_PATTERN:
            self._f.at(node, f"empty, or longer than {MAX_PATTERN} characters", "write another")
            return None
        try:
            compiled(pattern)
        except PatternRefused as refusal:
            self._f.at(node, str(refusal), "see https://github.com/google/re2/wiki/Syntax")
            return None
        return Re2(pattern)

    # --- What makes an entry safe ------------------------------------------------------

    def _pins(self, node: Node, claims: dict[str, Matcher], preset: Preset | None) -> None:
        if preset is None:
            if not any(isinstance(matcher, Exactly) for matcher in claims.values()):
                self._f.at(
                    node,
                    "no claim is pinned to a value: any job of this issuer could match",
                    "compare sub, or an id, with its exact value",
                )
            return
        if set(claims) == {"sub"}:
            self._f.at(
                node,
                "sub alone names things that can be renamed and taken over",
                _pin_advice(preset),
            )
            return
        for what, pins in (("owner", preset.owners), ("project", preset.projects)):
            if pins and not any(isinstance(claims.get(pin), Exactly) for pin in pins):
                self._f.at(
                    node,
                    f"the {what} is not pinned by an id that never changes hands",
                    _pin_advice(preset),
                )
        for name, matcher in claims.items():
            self._wildcards(node, name, matcher, preset)

    def _wildcards(self, node: Node, name: str, matcher: Matcher, preset: Preset) -> None:
        place = node.items.get(name, node) if isinstance(node, MapNode) else node
        if isinstance(matcher, Exactly):
            return
        if name in (*preset.owners, *preset.projects):
            self._f.at(place, f"{name} is an id", f'write its value: {name}: "42", or any_of')
        elif name in preset.names and (
            isinstance(matcher, Re2) or "*" in matcher.pattern.partition("/")[0] or name == "sub"
        ):
            self._f.at(
                place,
                f"a pattern over {name} can match another organization's",
                f"write its value, or leave it out: {', '.join(preset.projects)} says it already",
            )
        elif name == preset.event:
            self._f.at(
                place,
                "a pattern over events lets in those that outsiders cause",
                f"name them: {name}: {{any_of: [push, workflow_dispatch]}}",
            )


def _pin_advice(preset: Preset | None) -> str:
    if preset is None:
        return "write claims: {sub: ...}"
    pins = [*preset.owners[:1], *preset.projects[:1]]
    return "write claims: {" + ", ".join(f'{pin}: "..."' for pin in pins) + ", ...}"


def _is_issuer(url: str) -> bool:
    if len(url) > 512 or not url.isascii() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or parts.username is not None:
        return False
    if "?" in url or "#" in url:
        return False
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return parts.scheme == "https" or (parts.scheme == "http" and loopback)
