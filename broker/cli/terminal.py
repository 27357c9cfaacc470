"""What is shown to a person: cleaned text, tables, questions.

Text from the server or from a policy file is somebody else's: a control
sequence in a role's description could rewrite what the terminal shows.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime


def clean(text: object, limit: int = 2000) -> str:
    """One line, with whatever is not printable (control characters, escape sequences, bidi
    overrides, line breaks) written out as an escape; cut at `limit`.
    """
    shown = str(text)
    if len(shown) > limit:
        shown = f"{shown[:limit]}…"
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in shown
    )


def clean_lines(text: str) -> str:
    """The same for text of several lines: line breaks and tabs stay."""
    return "\n".join(
        "\t".join(clean(part, sys.maxsize) for part in line.split("\t"))
        for line in text.split("\n")
    )


def note(text: str) -> None:
    """A line for the person, never for the pipe."""
    print(text, file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns; the last is as long as it is."""
    cells = [list(headings), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def is_interactive() -> bool:
    """Whether a person can be asked: questions go to stderr, since stdout may be captured."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask_secret(question: str) -> str:
    """Typed without echo, kept in no history."""
    import getpass

    return getpass.getpass(question, stream=sys.stderr).strip()


def ask_code() -> str:
    """A one-time code: typed without echo, or the first line of what is piped in."""
    if sys.stdin.isatty():
        return ask_secret("Code of your authenticator: ")
    return sys.stdin.readline(100).strip()


def confirm(question: str) -> bool:
    """True only for an explicit yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def for_people(seconds: int) -> str:
    """`45m`, `8h`, `1h30m`, `90s`: as durations are written everywhere."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (left, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def local_time(moment: datetime) -> str:
    """In the person's own time zone, with its offset."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
