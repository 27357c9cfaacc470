"""Session policies and tags with `{{name}}` placeholders.

Owns: where a placeholder may stand, which values may take its place, and the
substitution: in string leaves of the parsed JSON, under Resource, NotResource
and Condition values alone. Text is never formatted into JSON, so no value can
change a policy's structure. Does not own: which names exist and where their
values come from (`parse`, `issuance/scope`), nor the grammar of policies
(`grammar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from broker.access.finding import Fault, Path

# Characters that mean something to IAM (wildcards, variables), to this template
# language, or to JSON and shells on the way to a log.
_FORBIDDEN = re.compile(r"""[*?${}"'`\\]""")
_PLACEHOLDER = re.compile(r"\{\{ ?([A-Za-z][A-Za-z0-9_.-]*) ?\}\}")
_POLICY_VARIABLE = re.compile(r"\$\{[^{}]*\}")
_PRINCIPAL = "principal."

Leaf = tuple["str | Placeholder", ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    name: str


class ValueRefused(Exception):
    """No value, or none that may stand in a policy, for the placeholder `name`.

    `missing` tells the two apart; the message never repeats the value.
    """

    def __init__(self, name: str, problem: str, *, missing: bool = False) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem
        self.missing = missing


class TemplateRefused(ValueError):
    """A placeholder where none may stand."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.message}; {fault.instead}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A string with placeholders: a tag's value."""

    source: str
    parts: Leaf

    @classmethod
    def parse(cls, text: str) -> TextTemplate:
        """Raises TemplateRefused."""
        return cls(text, _parts(text, ()))

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts if isinstance(part, Placeholder))

    def render(self, values: Mapping[str, str]) -> str:
        """Raises ValueRefused."""
        return "".join(
            part if isinstance(part, str) else _value(part.name, values) for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class PolicyTemplate:
    """A session policy. `source` is its JSON as written, `tree` the same with leaves split."""

    source: Mapping[str, object]
    tree: object
    placeholders: frozenset[str]

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> PolicyTemplate:
        """`document` is parsed JSON that the grammar accepts. Raises TemplateRefused."""
        for fault in placement_faults(document):
            raise TemplateRefused(fault)
        tree = _compile(document, ())
        return cls(document, tree, frozenset(_names(tree)))

    def render(self, values: Mapping[str, str]) -> dict[str, object]:
        """A new JSON document. Values of `principal.` names may hold no `/` or `:` here, so that
        what a person can set at their provider never spans parts of an ARN.

        Raises ValueRefused.
        """
        for name in self.placeholders:
            value = _value(name, values)
            if name.startswith(_PRINCIPAL) and ("/" in value or ":" in value):
                raise ValueRefused(name, "holds / or :, which may not stand in a session policy")
        return cast("dict[str, object]", _render(self.tree, values))


def value_problem(value: str) -> str | None:
    """Why `value` may not take a placeholder's place, or None."""
    if not value:
        return "is empty"
    if _FORBIDDEN.search(value):
        return "holds one of * ? $ { } quotes or backslash"
    if not value.isprintable():
        return "holds a control or unprintable character"
    return None


def placement_faults(document: object) -> Iterator[Fault]:
    """Every placeholder of a session policy that stands where none may, or is misspelt."""
    yield from _faults(document, ())


def text_faults(text: str, path: Path = ()) -> Iterator[Fault]:
    """What is wrong with the placeholders of one string."""
    try:
        _parts(text, path)
    except TemplateRefused as error:
        yield error.fault


def _faults(node: object, path: Path) -> Iterator[Fault]:
    if isinstance(node, dict):
        for key, child in node.items():
            if isinstance(key, str) and "{{" in key:
                yield Fault(
                    (*path, key),
                    "a placeholder in a key",
                    "put it in a Resource or Condition value",
                )
            yield from _faults(child, (*path, str(key)))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _faults(child, (*path, index))
    elif isinstance(node, str):
        if _substitutes(path):
            yield from text_faults(node, path)
        elif "{{" in node:
            yield Fault(
                path,
                "a placeholder outside of Resource, NotResource and Condition values",
                "write the text itself, or one role for each case",
            )


def _substitutes(path: Path) -> bool:
    """Whether a string at this path of a policy is a Resource, NotResource or Condition value."""
    keys = [step for step in path if isinstance(step, str)]
    if len(keys) == 2:
        return keys[0] == "Statement" and keys[1] in ("Resource", "NotResource")
    return len(keys) == 4 and keys[:2] == ["Statement", "Condition"]


def _parts(text: str, path: Path) -> Leaf:
    """Split at placeholders. Raises TemplateRefused for stray braces: `${{{name}}}` would let a
    value choose an IAM policy variable.
    """
    pieces = _PLACEHOLDER.split(text)
    literals, names = pieces[::2], pieces[1::2]
    for literal in literals:
        rest = _POLICY_VARIABLE.sub("", literal)
        if "{{" in rest or "}}" in rest or (names and ("{" in rest or "}" in rest)):
            raise TemplateRefused(
                Fault(
                    path,
                    f"{text[:80]!r} holds braces that are no placeholder",
                    "write {{name}}, apart from any ${...}",
                )
            )
    parts: list[str | Placeholder] = []
    for index, literal in enumerate(literals):
        if literal:
            parts.append(literal)
        if index < len(names):
            parts.append(Placeholder(names[index]))
    return tuple(parts)


def _compile(node: object, path: Path) -> object:
    """Tuples stand for split leaves; everything else is the JSON itself."""
    if isinstance(node, dict):
        return {key: _compile(child, (*path, key)) for key, child in node.items()}
    if isinstance(node, list):
        return [_compile(child, (*path, index)) for index, child in enumerate(node)]
    if isinstance(node, str) and _substitutes(path):
        parts = _parts(node, path)
        # What holds no placeholder is settled here, not at each issuance.
        return parts if any(isinstance(part, Placeholder) for part in parts) else node
    return node


def _names(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for child in tree.values():
            yield from _names(child)
    elif isinstance(tree, list | tuple):
        for child in tree:
            yield from _names(child)
    elif isinstance(tree, Placeholder):
        yield tree.name


def _render(node: object, values: Mapping[str, str]) -> object:
    if type(node) is str:  # most leaves, after `_compile`
        return node
    if isinstance(node, dict):
        return {key: _render(child, values) for key, child in node.items()}
    if isinstance(node, list):
        return [_render(child, values) for child in node]
    if isinstance(node, tuple):
        return "".join([part if isinstance(part, str) else values[part.name] for part in node])
    return node


def _value(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name)
    if value is None:
        raise ValueRefused(name, "has no value", missing=True)
    if problem := value_problem(value):
        raise ValueRefused(name, problem)
    return value


def names_used(document: object) -> Iterator[tuple[Path, str]]:
    """Where in a session policy which placeholder stands."""
    yield from _used(document, ())


def _used(node: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _used(child, (*path, key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _used(child, (*path, index))
    elif isinstance(node, str):
        for name in _PLACEHOLDER.findall(node):
            yield path, name
