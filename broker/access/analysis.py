"""An analyser's findings on session policies, at their places in the access policy file.

Owns: the sample values that stand for placeholders, which statements are asked
about, and where a finding belongs. The analyser itself is an adapter's, given
by the caller; without a usable one the file is judged all the same, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from broker.access.finding import Level, Path
from broker.access.grammar import VERSION
from broker.access.parameter import problem
from broker.access.policy import AccessPolicy, Parameter, Role
from broker.access.session_policy import compact

# Each takes milliseconds: a file of a megabyte has room for thousands.
MAX_STATEMENTS = 300
_SAMPLES = (
    "sample",
    "a",
    "1",
    "2026-01-01",
    "12345678",
    "AAAA",
    "i-0123456789abcdef0",
    "a/b",
    "a:b",
)

Judgement = tuple[Path, str, str, Level]


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding: the analyser's name for it, what it says, and the text that it is about."""

    issue: str
    detail: str
    about: str | None


class AnalysisUnavailable(Exception):
    """The analyser can't be used; the text says why."""


Analyse = Callable[[str], tuple[Advice, ...]]


def analysed(policy: AccessPolicy, analyse: Analyse) -> Iterator[Judgement]:
    """Warnings on every template of the file."""
    asked = 0
    for role in policy.roles.values():
        if role.session_policy is None:
            continue
        for where, statement in rendered_statements(role):
            asked += 1
            if asked > MAX_STATEMENTS:
                message = f"only the first {MAX_STATEMENTS} statements were analysed"
                yield ("roles", role.name), message, "lint a smaller file", Level.WARNING
                return
            path: Path = ("roles", role.name, "session_policy", *where)
            try:
                found = analyse(compact({"Version": VERSION, "Statement": [statement]}))
            except AnalysisUnavailable as unavailable:
                yield _unavailable(unavailable)
                return
            for advice in found:
                yield _warning(path, statement, advice)


def rendered_statements(role: Role) -> Iterator[tuple[Path, Mapping[str, object]]]:
    """Each statement of the role's template with sample values, and its place there."""
    if role.session_policy is None:
        return
    values = {name: _sample(role, name) for name in role.session_policy.placeholders}
    statements = role.session_policy.render(values)["Statement"]
    if isinstance(statements, list):
        for index, statement in enumerate(statements):
            yield ("Statement", index), statement
    elif isinstance(statements, dict):
        yield ("Statement",), statements


def _sample(role: Role, name: str) -> str:
    parameter = role.parameters.get(name)
    return "sample" if parameter is None else _admissible(parameter)


def _admissible(parameter: Parameter) -> str:
    if parameter.default is not None:
        return parameter.default
    if parameter.allowed:
        return parameter.allowed[0]
    fitting = (sample for sample in _SAMPLES if problem(parameter, sample) is None)
    return next(fitting, "sample")


def _warning(path: Path, statement: Mapping[str, object], advice: Advice) -> Judgement:
    said = advice.issue.replace("_", " ").lower()
    return (
        (*path, *_place(statement, advice)),
        f"parliament finds {said}" + (f": {advice.detail}" if advice.detail else ""),
        "check it against AWS's service authorization reference",
        Level.WARNING,
    )


def _place(statement: Mapping[str, object], advice: Advice) -> Path:
    """The value that the finding is about, or the nearest thing around it."""
    for key in ("Action", "NotAction", "Resource", "NotResource"):
        value = statement.get(key)
        if advice.about is not None and value == advice.about:
            return (key,)
        if isinstance(value, list) and advice.about in value:
            return key, value.index(advice.about)
    for word, key in (
        ("CONDITION", "Condition"),
        ("OPERATOR", "Condition"),
        ("RESOURCE", "Resource"),
    ):
        if word in advice.issue and key in statement:
            return (key,)
    return ()


def _unavailable(unavailable: AnalysisUnavailable) -> Judgement:
    return (
        (),
        f"the session policies were not analysed by parliament: {unavailable}",
        "install the server's packages anew; all else was checked",
        Level.WARNING,
    )
