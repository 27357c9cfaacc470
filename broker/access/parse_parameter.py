"""A role's parameters, read from the access policy file."""

from __future__ import annotations

from broker.access.document import Findings, MapNode, Node, plain
from broker.access.parameter import MAX_VALUE, PatternRefused, check_pattern, problem
from broker.access.policy import PARAMETER_NAME, Parameter
from broker.access.reading import Section, entries, text, texts
from broker.access.template import value_problem


def read_parameters(findings: Findings, whole: Node | None) -> dict[str, Parameter]:
    """The parameters by name; `whole` is the object that holds them."""
    parameters: dict[str, Parameter] = {}
    for name, node in entries(findings, whole, "{bucket: {allowed: [reports, logs]}}").items():
        if not PARAMETER_NAME.fullmatch(name):
            findings.at(
                node,
                f"{name[:80]!r} is no name of a parameter",
                "use lower-case letters, digits, _ and -, beginning with a letter",
            )
        parameters[name] = _parameter(findings, name, node)
    return parameters


def _parameter(findings: Findings, name: str, node: Node) -> Parameter:
    example = '{pattern: "[a-z0-9-]{1,40}"}'
    section = Section(findings, node, ("allowed", "pattern", "default"), example)
    allowed_node, pattern_node = section.get("allowed"), section.get("pattern")
    if (allowed_node is None) == (pattern_node is None) and isinstance(node, MapNode):
        findings.at(
            node,
            f"parameter {name[:80]} has exactly one of allowed and pattern",
            f"write {{allowed: [reports, logs]}} or {example}",
        )
    allowed = None if allowed_node is None else _allowed(findings, allowed_node)
    pattern = _pattern(findings, pattern_node)
    default_node = section.get("default")
    default = text(findings, default_node, "default", "default: public")
    parameter = Parameter(name, allowed, pattern, default)
    if default_node is None or default is None or (allowed is None and pattern is None):
        return parameter
    if fault := problem(parameter, default):
        findings.at(default_node, f"the default {fault}", "write a value that is allowed")
    return parameter


def _allowed(findings: Findings, node: Node) -> tuple[str, ...]:
    example = "allowed: [reports, logs]"
    values: list[str] = []
    for child, value in texts(findings, node, "allowed", example):
        fault = value_problem(value)
        if fault is None and len(value) > MAX_VALUE:
            fault = f"is longer than {MAX_VALUE} characters"
        if fault:
            findings.at(child, f"the value {fault}", "write a plain word")
        values.append(value)
    if plain(node) == []:
        findings.at(node, "nothing is allowed", f"write {example}")
    return tuple(values)


def _pattern(findings: Findings, node: Node | None) -> str | None:
    pattern = text(findings, node, "pattern", 'pattern: "[a-z0-9-]{1,40}"')
    if node is None or pattern is None:
        return None
    try:
        check_pattern(pattern)
    except PatternRefused as refusal:
        findings.at(node, refusal.message, refusal.instead)
        return None
    return pattern
