"""What the edge and the routes tell of their requests, to whoever counts, times and traces.

Owns the Protocols alone. Nothing here decides anything, and nothing may raise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from broker.issuance.journal import Journal
from broker.issuance.sts import Sts


class CredentialWatch(Journal, Sts, Protocol):
    """One request for credentials. Once `known` was told, it is the journal and the STS that the
    use case goes through, so that each step is timed where it happens.
    """

    def known(self, role: str | None, journal: Journal, sts: Sts) -> None:
        """The caller is, and what they ask for. `role`: its name in the access policy, None for
        one that is not there.
        """
        ...

    def ended(self, outcome: str | None) -> None:
        """`outcome`: "issued", the code of the refusal, or None for a fault of the broker."""
        ...


class RequestTelemetry(Protocol):
    """One HTTP request, from its head to its answer."""

    @property
    def trace_id(self) -> str | None:
        """None where the request is not traced."""
        ...

    def credential_request(self) -> CredentialWatch: ...

    def ended(self, status: int, route: str | None) -> None:
        """It was answered, with 0 where nobody heard. `route`: the template of its path."""
        ...


class Telemetry(Protocol):
    def begin(
        self, headers: Iterable[tuple[bytes, bytes]], request_id: str, method: str
    ) -> RequestTelemetry: ...

    def denied(self, code: str) -> None:
        """A refusal was answered."""
        ...

    def ci_exchange(self, outcome: str) -> None:
        """A CI job's token: "admitted", or the code of the refusal."""
        ...

    async def exposition(self) -> bytes:
        """Every metric, in Prometheus' text format, as it stands now."""
        ...

    def public_exposition(self) -> bytes:
        """Those that anybody may read."""
        ...
