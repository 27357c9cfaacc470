"""The trace that this process belongs to, as requests carry it (W3C trace context, level 1).

Where the caller has one (`TRACEPARENT`, as otel-cli and some CI systems set it), it is
passed on as it is: the client makes no span of its own. Else each process begins one, not
sampled, so that its requests belong together wherever the broker traces them.
"""

from __future__ import annotations

import os

_VARIABLE = "TRACEPARENT"
_HEX = frozenset("0123456789abcdef")


class TraceContext:
    """One a process."""

    def __init__(self) -> None:
        given = os.environ.get(_VARIABLE, "")
        self._given = given if _is_valid(given) else None
        self.trace_id = given.split("-")[1] if self._given else os.urandom(16).hex()

    def header(self) -> str:
        """`traceparent` for one request."""
        return self._given or f"00-{self.trace_id}-{os.urandom(8).hex()}-00"


def _is_valid(text: str) -> bool:
    """Version 00 alone: what others hold is not known."""
    parts = text.split("-")
    return (
        [len(part) for part in parts] == [2, 32, 16, 2]
        and all(set(part) <= _HEX for part in parts)
        and parts[0] == "00"
        and set(parts[1]) != {"0"}
        and set(parts[2]) != {"0"}
    )
