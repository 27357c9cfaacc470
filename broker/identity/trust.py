"""Which CI jobs are meant by a workload of the access policy.

Owns: the entry as a value, the facts that a verified token states, comparing
the two, and which claim failed. Claims are used; `sub` is compared as a whole
where an entry asks for it, and never taken apart. Does not own: verifying a
token (`ci_token`) or reading the policy file (`access/parse_workload`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import re2

from broker.identity.presets import OTHER_LIFETIME, Preset

Scalar = str | int | bool

MAX_PATTERN = 512
_MAX_VALUE = 1024
_MAX_FACTS = 64
_SEGMENT_CHARACTERS = r"[^/\x00-\x1f\x7f]*"


class PatternRefused(ValueError):
    """Not a pattern. The text says why."""


@dataclass(frozen=True, slots=True)
class Exactly:
    """One of these values, of the same type: the text "true" is not the truth value."""

    values: tuple[Scalar, ...]

    def admits(self, value: Scalar) -> bool:
        for one in self.values:  # noqa: SIM110 - asked of every entry; a generator is twice as slow
            if value == one and type(value) is type(one):
                return True
        return False

    def __str__(self) -> str:
        return " or ".join(repr(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Glob:
    """The whole value, where `*` stands for any characters but `/`."""

    pattern: str

    def admits(self, value: Scalar) -> bool:
        if not isinstance(value, str):
            return False
        parts = (re2.escape(part) for part in self.pattern.split("*"))
        return compiled(_SEGMENT_CHARACTERS.join(parts)).fullmatch(value) is not None

    def __str__(self) -> str:
        return f"the glob {self.pattern!r}"


@dataclass(frozen=True, slots=True)
class Re2:
    """The whole value, by a regular expression of RE2: time is linear in the value."""

    pattern: str

    def admits(self, value: Scalar) -> bool:
        return isinstance(value, str) and compiled(self.pattern).fullmatch(value) is not None

    def __str__(self) -> str:
        return f"the pattern {self.pattern!r}"


Matcher = Exactly | Glob | Re2


def compiled(pattern: str) -> re2._Regexp[str]:
    """re2 keeps compiled patterns itself. Raises PatternRefused."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise PatternRefused(f"{pattern!r} is no pattern of RE2") from error


@dataclass(frozen=True, slots=True)
class Workload:
    """One entry. `claims` maps each claim's name, as the policy writes it, to what it must be.
    `max_job` in seconds. `line` is where it stands in the file.
    """

    name: str
    issuer: str
    audience: str
    preset: Preset | None
    claims: Mapping[str, Matcher]
    algorithms: frozenset[str]
    max_job: int
    reuse: bool
    observe: bool
    line: int

    @property
    def lifetime(self) -> int:
        """The longest that a token of this issuer may live, in seconds."""
        return OTHER_LIFETIME if self.preset is None else self.preset.lifetime

    @property
    def subject(self) -> str:
        return workload_subject(self.name, self.issuer)


def workload_subject(name: str, issuer: str) -> str:
    """What the entry's principal is keyed by: under another issuer it is another principal."""
    return f"{name}@{issuer}"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One claim that keeps a token from an entry. `found` is None where the token lacks it."""

    claim: str
    expected: str
    found: Scalar | None

    def as_json(self) -> dict[str, object]:
        return {"claim": self.claim, "expected": self.expected, "found": self.found}


@dataclass(frozen=True, slots=True)
class NearEntry:
    """How far an entry is from a token."""

    workload: str
    mismatches: tuple[Mismatch, ...]

    def as_json(self) -> dict[str, object]:
        return {"workload": self.workload, "failed": [one.as_json() for one in self.mismatches]}


def facts_of(claims: Mapping[str, object], preset: Preset | None) -> dict[str, Scalar]:
    """The claims that entries may ask for, by the names they are written with.

    What has another type than the platform's, is over-long, or holds control characters (a
    trailing line break) is no fact: it matches nothing.
    """
    facts: dict[str, Scalar] = {}
    if preset is None:
        for name, value in claims.items():
            if len(facts) < _MAX_FACTS and len(name) <= 128 and _is_fact(value):
                facts[name] = value  # type: ignore[assignment]  # judged by _is_fact
        return facts
    for claim in preset.claims.values():
        value = _at(claims, claim.path)
        if type(value) is claim.type and _is_fact(value):
            facts[claim.name] = value
    return facts


def mismatches(workload: Workload, facts: Mapping[str, Scalar]) -> tuple[Mismatch, ...]:
    """Every claim that keeps these facts from being the entry's; none: they are."""
    return tuple(_mismatches(workload, facts))


def admits(workload: Workload, facts: Mapping[str, Scalar]) -> bool:
    """Whether these facts are the entry's: asked of every entry for every token."""
    for name, matcher in workload.claims.items():
        value = facts.get(name)
        if value is None or not matcher.admits(value):
            return False
    return not any(_mismatches(workload, facts))


def closest(
    workloads: Iterable[Workload], facts: Mapping[str, Scalar], limit: int = 3
) -> tuple[NearEntry, ...]:
    """The entries with the fewest failing claims, nearest first."""
    near = [NearEntry(workload.name, mismatches(workload, facts)) for workload in workloads]
    return tuple(sorted(near, key=lambda one: (len(one.mismatches), one.workload))[:limit])


def decisive(workload: Workload, facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The claims that made these facts the entry's, for the record."""
    names = set(workload.claims)
    if workload.preset is not None:
        names |= {*workload.preset.owners, *workload.preset.projects, *workload.preset.job}
        names |= {workload.preset.event} if workload.preset.event else set()
    return {name: facts[name] for name in sorted(names) if name in facts}


def _mismatches(workload: Workload, facts: Mapping[str, Scalar]) -> Iterator[Mismatch]:
    for name, matcher in workload.claims.items():
        value = facts.get(name)
        if value is None or not matcher.admits(value):
            yield Mismatch(name, str(matcher), value)
    preset = workload.preset
    if preset is None or preset.event is None:
        return
    event = facts.get(preset.event)
    # An event that outsiders can cause must be allowed by its name: it may run their code.
    if event in preset.outside_events and not _names(workload.claims.get(preset.event), event):
        yield Mismatch(preset.event, "an event that outsiders can't cause", event)


def _names(matcher: Matcher | None, value: Scalar | None) -> bool:
    return isinstance(matcher, Exactly) and value is not None and matcher.admits(value)


def _is_fact(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _MAX_VALUE and value.isprintable()
    return isinstance(value, int) and abs(value) < 2**53


def _at(claims: Mapping[str, object], path: tuple[str, ...]) -> Scalar | None:
    value: object = claims
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value if isinstance(value, str | int) else None


# --- Facts in tags and session policies -------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9_.:/+@-]", re.ASCII)
_ALL_PLAIN = re.compile(r"[A-Za-z0-9_.:/+@-]*", re.ASCII)


def encoded(value: Scalar) -> str:
    """A fact as a tag and a template can hold it: letters, digits and `_.:/+@-` stand for
    themselves, every other byte of its UTF-8 is `=` and two hex digits, so that no two values
    look alike.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _ALL_PLAIN.fullmatch(text):
        return text
    return "".join(
        character
        if _PLAIN.match(character)
        else "".join(f"={byte:02X}" for byte in character.encode("utf-8"))
        for character in text
    )


def placeholders(facts: Mapping[str, Scalar], preset: Preset | None) -> dict[str, str]:
    """`{{principal.claims.NAME}}` of a job, by NAME."""
    values: dict[str, str] = {}
    for name, value in facts.items():
        known = None if preset is None else preset.claims.get(name)
        key = re.sub(r"[^A-Za-z0-9_]", "_", name) if known is None else known.placeholder
        values.setdefault(key, encoded(value))
    return values


def job_handle(workload: str, facts: Mapping[str, Scalar], preset: Preset | None) -> str:
    """A readable fragment for session names: the project's last word, the run, the ref."""
    names = () if preset is None else preset.job
    words = [str(facts[name]) for name in names if name in facts]
    if not words:
        return workload
    project = words[0].rstrip("/").rpartition("/")[2].strip("{}")[:14]
    rest = [word.removeprefix("refs/heads/").removeprefix("refs/tags/") for word in words[1:]]
    return "-".join([project, *rest])
