"""Counts of this process, for `GET /metrics`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IssuanceCounts:
    """Requests for credentials by outcome: `issued`, or the code of the refusal."""

    _by_outcome: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str) -> None:
        self._by_outcome[outcome] += 1

    def text(self) -> str:
        name = "broker_credential_requests_total"
        lines = [
            f"# HELP {name} Requests for credentials by outcome.",
            f"# TYPE {name} counter",
            *(
                f'{name}{{outcome="{outcome}"}} {count}'
                for outcome, count in sorted(self._by_outcome.items())
            ),
        ]
        return "\n".join(lines) + "\n"
