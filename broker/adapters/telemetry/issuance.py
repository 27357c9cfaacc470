"""One request for credentials, timed and traced at each step of the use case.

The watch stands in for the journal and STS of that one request, so that the use
case itself reads no clock and knows of no telemetry. Owns when a stage begins and
ends, and which outcome it comes to. Does not own counting (`instruments`) and spans
(`tracing`).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from broker.adapters import trace_context
from broker.adapters.telemetry.instruments import Instruments
from broker.audit.record import Appended, Event
from broker.issuance.journal import Concluded, Intent, Journal, Outcome
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted, Sts, StsFailure

if TYPE_CHECKING:
    from broker.adapters.telemetry.tracing import CallTrace, RequestTrace


class IssuanceWatch:
    """Implements web.telemetry.CredentialWatch. Begun where it is made."""

    __slots__ = (
        "_began",
        "_instruments",
        "_journal",
        "_known",
        "_mark",
        "_outcome",
        "_role",
        "_sts",
        "_trace",
    )
    _journal: Journal
    _sts: Sts

    def __init__(self, instruments: Instruments, trace: RequestTrace | None) -> None:
        self._began = self._mark = perf_counter()
        self._instruments = instruments
        self._trace = trace
        self._role: str | None = None
        self._known = False
        self._outcome = "error"

    def known(self, role: str | None, journal: Journal, sts: Sts) -> None:
        """See CredentialWatch."""
        self._role, self._journal, self._sts, self._known = role, journal, sts, True
        self._lap("authenticate", "authenticate")

    def ended(self, outcome: str | None) -> None:
        """See CredentialWatch."""
        if outcome is not None:
            self._instruments.credentials_answered(outcome)
        if self._known:
            self._instruments.issuance(self._role, self._outcome)
        if outcome == "issued":
            self._instruments.issuance_duration.observe(perf_counter() - self._began)
        if self._trace is not None:
            self._trace.describe(
                broker__role=self._role,
                broker__outcome=self._outcome if self._known else None,
                broker__code=outcome,
            )

    # --- The journal -----------------------------------------------------------------------

    async def request(self, intent: Intent) -> Appended:
        self._lap("decide", "decide")
        if self._trace is not None:
            self._trace.describe(broker__issuance_id=intent.id)
        self._outcome = "unrecorded"
        try:
            appended = await self._journal.request(intent)
        finally:
            self._lap("audit_requested", "audit.requested")
        self._outcome = "error"
        return appended

    async def conclude(self, outcome: Outcome) -> Concluded:
        self._outcome = "unrecorded"
        try:
            concluded = await self._journal.conclude(outcome)
            self._outcome = concluded.state.value
        finally:
            self._lap("audit_concluded", f"audit.{self._outcome}")
        return concluded

    async def fail(self, intent: Intent, event: Event) -> Appended:
        self._outcome = "unrecorded"
        try:
            appended = await self._journal.fail(intent, event)
            self._outcome = "failed"
        finally:
            self._lap("audit_concluded", f"audit.{self._outcome}")
        return appended

    async def deny(self, event: Event) -> None:
        self._lap("decide", "decide")
        self._outcome = "unrecorded"
        try:
            await self._journal.deny(event)
            self._outcome = "denied"
        finally:
            # No stage of its own in the histograms: nearly all are counted and not waited for.
            self._lap(None, f"audit.{self._outcome}")

    # --- STS -------------------------------------------------------------------------------

    def chained(self, partition: str) -> bool:
        return self._sts.chained(partition)

    async def identify(self, partition: str) -> CallerIdentity:
        return await self._sts.identify(partition)

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        if self._trace is None:
            try:
                return await self._sts.assume_role(call, credentials)
            finally:
                self._lap("sts", None)
        span = self._trace.call(
            "sts.AssumeRole",
            self._mark,
            aws__role_arn=call.role_arn,
            cloud__region=call.region,
            rpc__system="aws-api",
        )
        reset = trace_context.outgoing.set(span.traceparent)
        try:
            return await self._asked(call, credentials, span)
        finally:
            trace_context.outgoing.reset(reset)

    async def _asked(
        self, call: AssumeRole, credentials: Credentials | None, span: CallTrace
    ) -> Minted:
        request_id, code, failed = None, None, True
        try:
            minted = await self._sts.assume_role(call, credentials)
            request_id, failed = minted.request_id, False
        except StsFailure as failure:
            request_id, code = failure.request_id, failure.sts_code or failure.error.code
            raise
        finally:
            self._lap("sts", None)
            span.end(self._mark, failed=failed, aws__request_id=request_id, error__type=code)
        return minted

    # --- Time --------------------------------------------------------------------------------

    def _lap(self, stage: str | None, span: str | None) -> None:
        """From the last lap until now."""
        now = perf_counter()
        if stage is not None:
            self._instruments.stages[stage].observe(now - self._mark)
        if span is not None and self._trace is not None:
            self._trace.stage(span, self._mark, now)
        self._mark = now
