"""Who is told how the journal is doing. Decides nothing, and must not raise."""

from __future__ import annotations

from typing import Protocol


class JournalObserver(Protocol):
    def flushed(self, records: int, seconds: float, *, failed: bool) -> None:
        """One group commit is over."""
        ...

    def orphaned(self, issuances: int) -> None:
        """So many intents were closed without an outcome."""
        ...


class Unobserved:
    """Implements JournalObserver."""

    def flushed(self, records: int, seconds: float, *, failed: bool) -> None: ...

    def orphaned(self, issuances: int) -> None: ...
