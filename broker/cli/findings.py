"""How the server's judgement of an access policy file is shown: findings and plans."""

from __future__ import annotations

from collections.abc import Sequence

from broker.cli.terminal import clean


def show(name: str, found: Sequence[dict[str, object]]) -> None:
    """`FILE:LINE:COLUMN: level: message`, and below it what to write instead."""
    for finding in found:
        place = ":".join([name, *(str(_number(finding, part)) for part in ("line", "column"))])
        print(f"{clean(place)}: {clean(finding.get('level'), 20)}: {clean(finding.get('message'))}")
        if finding.get("instead"):
            print(f"    instead: {clean(finding['instead'])}")


def has_errors(found: Sequence[dict[str, object]]) -> bool:
    """A level that this client does not know counts as one."""
    return any(finding.get("level") not in ("warning", "info") for finding in found)


def _number(finding: dict[str, object], name: str) -> int:
    value = finding.get(name)
    return value if type(value) is int else 1


def show_plan(plan: object) -> None:
    """Every member that says something, a line each; the server decides what those are."""
    if not isinstance(plan, dict):
        return
    for name, value in plan.items():
        items = value if isinstance(value, list) else [value]
        shown = [_shown(item) for item in items if item not in (None, "", [], {}, False, 0)]
        if shown:
            print(f"{clean(name, 60).replace('_', ' ')}:")
            for item in shown:
                print(f"    {item}")


def _shown(item: object) -> str:
    if isinstance(item, dict):
        return ", ".join(f"{clean(name, 60)} {_shown(value)}" for name, value in item.items())
    if isinstance(item, list):
        return ", ".join(_shown(value) for value in item)
    return clean(item)
