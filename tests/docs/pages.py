"""A page of the documents as what a reader does with it: files to write, commands to run.

A fence ```sh is run; a fence with `title="FILE"` is written to that file; all others are only read.
A comment before a fence says more, in what the page shows nothing of: `<!-- at: alice -->` whose
terminal it is, `<!-- stays -->` that the command does not end, `<!-- fails -->` that it must fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r'(?:^<!-- (?P<marks>[^\n]*?) -->\n)?^```(?P<kind>\w*)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str | None
    at: str
    stays: bool
    fails: bool

    @property
    def commands(self) -> list[str]:
        """Line by line: none of the pages folds them."""
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(page: Path, *, default: str = "you") -> list[Block]:
    """Those that something is done with."""
    found = []
    for match in _FENCE.finditer(page.read_text("utf-8")):
        marks = [mark.strip() for mark in (match["marks"] or "").split(";")]
        at = next((mark.removeprefix("at: ") for mark in marks if mark.startswith("at: ")), default)
        if match["kind"] == "sh" or match["title"] is not None:
            found.append(
                Block(
                    match["kind"],
                    match["text"],
                    match["title"],
                    at,
                    stays="stays" in marks,
                    fails="fails" in marks,
                )
            )
    return found
