"""Spans of sampled requests, sent over OTLP/HTTP by a thread of their own.

Owns sampling, the spans' names and attributes, and the end of the exporter. Needs the
extra `otel`; imported where the settings name a collector alone. Does not own when
stages begin and end (`issuance`).

Attributes hold identifiers of the broker's and AWS's own: request and issuance ids,
role names and ARNs, STS's request id, by which CloudTrail has the call. Never a token,
a person, an address or a path as it was typed.

Nothing here waits for the collector: spans go into a bounded queue, and what it can't
take is dropped.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterable, Mapping

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from broker import __version__
from broker.adapters.trace_context import TraceContext, traceparent

Attribute = str | int | bool | None
# At the end of the process: what a collector that is out may cost.
_FLUSH_SECONDS = 5.0
_POLL_SECONDS = 0.02
_SERVER_FAULT = 500


class Sampling:
    """Which requests are traced. `ratio` of all, drawn here and not from the trace id, which the
    caller chooses. A caller that says `sampled` is heeded as well, up to `per_second` times: so
    one with a debugger gets its trace, and nobody can have everything traced. What a caller says
    never keeps a request from being drawn.
    """

    def __init__(self, ratio: float, per_second: int) -> None:
        self._ratio = ratio
        self._per_second = per_second
        self._left = float(per_second)
        self._filled_at = time.monotonic()

    def __call__(self, caller: TraceContext | None) -> bool:
        if random.random() < self._ratio:  # noqa: S311 - a draw that nothing hangs on
            return True
        return caller is not None and caller.sampled and self._heed()

    def _heed(self) -> bool:
        now = time.monotonic()
        gained = (now - self._filled_at) * self._per_second
        self._left = min(float(self._per_second), self._left + gained)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Tracing:
    """Started where it is made; `aclose` it at the end."""

    def __init__(self, endpoint: str, sampling: Sampling) -> None:
        """`endpoint`: the collector's base URL. What else the exporter needs (headers, its
        certificate authority, time-outs) comes from the standard OTEL_EXPORTER_OTLP_* variables,
        and names of the resource from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
        """
        self._exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider = TracerProvider(
            # Sampling is decided before a span is made.
            sampler=ALWAYS_ON,
            resource=_resource(),
            shutdown_on_exit=False,
            meter_provider=NoOpMeterProvider(),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, meter_provider=NoOpMeterProvider())
        )
        self._tracer = self._provider.get_tracer("broker", __version__)
        self._sampling = sampling

    def begin(
        self, headers: Iterable[tuple[bytes, bytes]], request_id: str, method: str
    ) -> RequestTrace | None:
        """None for a request that is not sampled."""
        caller = TraceContext.parse(headers)
        if not self._sampling(caller):
            return None
        return RequestTrace(self._tracer, caller, request_id, method)

    async def aclose(self) -> None:
        """Send what waits, for `_FLUSH_SECONDS` at most."""
        # A thread of our own: the end of the process waits for an executor's, and not for this.
        flush = threading.Thread(target=self._provider.shutdown, name="traces-flush", daemon=True)
        flush.start()
        deadline = time.monotonic() + _FLUSH_SECONDS
        while flush.is_alive():
            if time.monotonic() > deadline:
                # No further try; the spans are lost.
                self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it so
                return
            await asyncio.sleep(_POLL_SECONDS)


class RequestTrace:
    """The spans of one sampled request. Times are those of `time.perf_counter`."""

    def __init__(
        self, tracer: api.Tracer, caller: TraceContext | None, request_id: str, method: str
    ) -> None:
        self._tracer = tracer
        self._perf, self._wall = time.perf_counter(), time.time_ns()
        self._method = method
        self._span = tracer.start_span(
            method,
            context=None if caller is None else _parent(caller),
            kind=api.SpanKind.SERVER,
            attributes={"http.request.method": method, "broker.request_id": request_id},
            start_time=self._wall,
        )
        self._context = api.set_span_in_context(self._span)

    @property
    def id(self) -> str:
        """The trace's, as logs name it."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def describe(self, **attributes: Attribute) -> None:
        """Of the request as a whole."""
        self._span.set_attributes(_known(attributes))

    def stage(self, name: str, began: float, ended: float) -> None:
        """One that is over."""
        span = self._tracer.start_span(name, self._context, start_time=self._at(began))
        span.end(self._at(ended))

    def call(self, name: str, began: float, **attributes: Attribute) -> CallTrace:
        """One that goes out to another service."""
        span = self._tracer.start_span(
            name,
            self._context,
            kind=api.SpanKind.CLIENT,
            attributes=_known(attributes),
            start_time=self._at(began),
        )
        return CallTrace(span, self)

    def end(self, status: int, route: str | None) -> None:
        """`route`: the path's template, None where no route was found."""
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", int(status))
        if status >= _SERVER_FAULT:
            self._span.set_status(api.StatusCode.ERROR)
        self._span.end(self._at(time.perf_counter()))

    def _at(self, moment: float) -> int:
        return self._wall + int((moment - self._perf) * 1e9)


class CallTrace:
    """A call that is under way."""

    def __init__(self, span: api.Span, request: RequestTrace) -> None:
        self._span = span
        self._request = request
        context = span.get_span_context()
        self.traceparent = traceparent(context.trace_id, context.span_id)

    def end(self, moment: float, *, failed: bool = False, **attributes: Attribute) -> None:
        self._span.set_attributes(_known(attributes))
        if failed:
            self._span.set_status(api.StatusCode.ERROR)
        self._span.end(self._request._at(moment))  # noqa: SLF001 - of the same module


def _resource() -> Resource:
    found = Resource.create({SERVICE_VERSION: __version__})
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: "broker"}))
    return found


def _parent(caller: TraceContext) -> Context:
    remote = api.SpanContext(caller.trace_id, caller.span_id, is_remote=True)
    return api.set_span_in_context(api.NonRecordingSpan(remote))


def _known(attributes: Mapping[str, Attribute]) -> dict[str, str | int | bool]:
    """Python names stand for dotted ones: `aws__request_id` is aws.request_id."""
    return {
        name.replace("__", "."): value for name, value in attributes.items() if value is not None
    }
