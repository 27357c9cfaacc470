"""W3C trace context (level 1) as it crosses the broker: read from callers, sent on to AWS.

Owns the header's form, and which one the present task sends. Does not own spans
(`telemetry/tracing`). `tracestate` is neither read nor sent: it is other vendors' and
a caller may put anything there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

# Set around a call to STS whose request is traced. The header is added after signing and is not
# signed; AWS ignores headers that it does not know.
outgoing: ContextVar[str | None] = ContextVar("broker_traceparent", default=None)

_HEADER = b"traceparent"
# A later version may add fields after these four; version ff is forbidden.
_FORM = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request comes from. Not to be trusted: anybody may send any of it."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
        """From ASGI headers; None where there is none, more than one, or no valid one."""
        found = [value for name, value in headers if name == _HEADER]
        match = _FORM.fullmatch(found[0]) if len(found) == 1 else None
        if match is None or (match[1] == b"00" and match[5] is not None):
            return None
        return cls(int(match[2], 16), int(match[3], 16), bool(int(match[4], 16) & _SAMPLED))


def traceparent(trace_id: int, span_id: int) -> str:
    """The header's value for a request of a sampled span."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"
