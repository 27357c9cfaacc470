"""Markdown, as far as the reference pages need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

HEAD = "<!-- written by `make reference` from the code, not by hand -->\n"


class Incomplete(Exception):
    """What is written by hand does not name what the code has."""


def require_same(what: str, code: Iterable[str], written: Mapping[str, object]) -> None:
    """Raises Incomplete unless `written` has exactly the names of the code."""
    names = set(code)
    missing, extra = sorted(names - set(written)), sorted(set(written) - names)
    if missing or extra:
        raise Incomplete(f"{what}: missing {missing}, no longer there {extra}")


def page(title: str, introduction: str, *parts: str) -> str:
    return "\n".join([f"# {title}\n", HEAD, introduction.strip() + "\n", *parts])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
