"""What is wrong with an access policy file, where, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Keys and list indexes from some root: ("Statement", 0, "Action").
Path = tuple[str | int, ...]


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong inside a JSON value, without its place in a file."""

    path: Path
    message: str
    instead: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A fault at its place in the file; `line` and `column` count from 1.

    An `error` refuses the file; a `warning` is lint's advice.
    """

    line: int
    column: int
    path: str
    message: str
    instead: str
    level: Level = Level.ERROR

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}"
        path = f" ({self.path})" if self.path else ""
        return f"{where}{path}: {self.message}; {self.instead}"

    def as_json(self) -> dict[str, object]:
        return {
            "level": self.level.value,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "instead": self.instead,
        }


class PolicyRefused(Exception):
    """The file is not an access policy. Carries every finding, in the file's order."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = findings


def dotted(path: Path) -> str:
    """A path as people read it: `Statement[0].Action`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def nearest(word: object, known: Sequence[str]) -> str:
    """What to write instead of an unknown word."""
    close = difflib.get_close_matches(str(word), known, 1)
    if not close:  # `accounts` for `Accounts`, `max_duration` for `maxDuration`
        folded = {name.replace("_", "").lower(): name for name in known}
        close = [folded[name] for name in [_folded(word)] if name in folded]
    if close:
        return f"did you mean {close[0]}?"
    return f"write one of: {', '.join(known)}"


def _folded(word: object) -> str:
    return str(word).replace("_", "").replace("-", "").lower()
