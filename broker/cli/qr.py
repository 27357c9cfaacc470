"""A QR code in the terminal: two modules a character, in half blocks."""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import os
import sys

_QUIET_ZONE = 2  # modules of light around the code; scanners of screens need no more
# Black on white whatever the terminal's colours: scanners want dark on light.
_COLOURS = "\x1b[38;5;16;48;5;231m"
_RESET = "\x1b[0m"
_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def for_terminal(text: str) -> str | None:
    """The code as lines, where stderr is a terminal that can show it whole; else None."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
        return None
    if "utf" not in (sys.stderr.encoding or "").lower():
        return None
    columns, lines = os.get_terminal_size(sys.stderr.fileno())
    rows = _rows(text)
    # The address and the code to type stand above it, and should stay in sight.
    if len(rows[0]) > columns or len(rows) + 8 > lines:
        return None
    return "\n".join(f"{_COLOURS}{row}{_RESET}" for row in rows)


def _rows(text: str) -> list[str]:
    import segno

    code = segno.make(text, error="l", micro=False)
    modules = [[int(bool(bit)) for bit in row] for row in code.matrix_iter(border=_QUIET_ZONE)]
    if len(modules) % 2:
        modules.append([0] * len(modules[0]))
    return [
        "".join(_HALVES[upper, lower] for upper, lower in zip(*pair, strict=True))
        for pair in zip(modules[::2], modules[1::2], strict=True)
    ]
