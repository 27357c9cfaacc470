"""Who is traced, what a hostile header does, and what a collector that fails costs: nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.telemetry import tracing
from broker.adapters.telemetry.server import ServerTelemetry, TracingSettings
from broker.adapters.trace_context import TraceContext, traceparent
from tests.e2e.processes import free_port
from tests.telemetry.collector import collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def headers(*values: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"broker.test"),
        *((b"traceparent", value.encode("latin-1")) for value in values),
    ]


def test_a_trace_context_is_read_as_it_was_written():
    found = TraceContext.parse(headers(SAMPLED))
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled=True)
    assert traceparent(found.trace_id, found.span_id) == SAMPLED
    unsampled = TraceContext.parse(headers(UNSAMPLED))
    assert unsampled is not None
    assert not unsampled.sampled
    # A version to come may say more; its first four fields are these.
    assert TraceContext.parse(headers(f"cc-{TRACE}-{SPAN}-01-what-comes")) == found


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}{'a' * 10_000}-{SPAN}-01",
        "00-\u00e9" + TRACE[2:] + f"-{SPAN}-01",
    ],
)
def test_what_is_no_trace_context_is_none(value: str):
    assert TraceContext.parse(headers(value)) is None


def test_of_two_trace_contexts_neither_is_believed():
    assert TraceContext.parse(headers(SAMPLED, UNSAMPLED)) is None


def test_a_caller_cannot_have_everything_traced():
    sampling = tracing.Sampling(0.0, per_second=10)
    caller = TraceContext.parse(headers(SAMPLED))
    heeded = sum(sampling(caller) for _ in range(5000))
    # Ten at once; how long five thousand draws take is a matter of the machine.
    assert 10 <= heeded < 2000
    assert not any(tracing.Sampling(0.0, per_second=0)(caller) for _ in range(100))
    assert not any(tracing.Sampling(0.0, per_second=10)(None) for _ in range(100))


def test_a_caller_cannot_hide_by_saying_unsampled_or_by_choosing_an_id():
    everything = tracing.Sampling(1.0, per_second=0)
    for value in (UNSAMPLED, f"00-{'f' * 32}-{SPAN}-00", f"00-{'0' * 31}1-{SPAN}-00"):
        assert everything(TraceContext.parse(headers(value)))


async def test_a_collector_that_hangs_delays_nobody_and_the_end_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setattr(tracing, "_FLUSH_SECONDS", 0.2)
    telemetry = ServerTelemetry()
    with collecting(hangs=True) as collector:
        telemetry.start(TracingSettings(collector.url, 1.0, 0))
        # Many times what the queue holds: what it can't take is dropped, and nobody waits.
        for number in range(6000):
            request = telemetry.begin(headers(), f"req-{number}", "GET")
            request.ended(200, "/healthz")
            if number == 100:
                assert collector.asked.wait(60)
        await telemetry.aclose()
        # It ended while the collector still hung.
        assert not collector.released.is_set()
        assert collector.spans == []


async def test_no_collector_at_all_delays_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "_FLUSH_SECONDS", 0.2)
    telemetry = ServerTelemetry()
    telemetry.start(TracingSettings(f"http://127.0.0.1:{free_port()}", 1.0, 0))
    request = telemetry.begin(headers(), "req-1", "GET")
    assert request.trace_id is not None
    request.ended(200, None)
    await telemetry.aclose()


async def test_what_waits_at_the_end_is_sent():
    telemetry = ServerTelemetry()
    with collecting() as collector:
        telemetry.start(TracingSettings(collector.url, 1.0, 0))
        telemetry.begin(headers(UNSAMPLED), "req-1", "GET").ended(500, "/v1/me")
        await telemetry.aclose()
    (span,) = collector.spans
    assert (span.name, span.trace_id, span.parent_id) == ("GET /v1/me", TRACE, SPAN)
    assert span.failed
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/me",
        "http.response.status_code": 500,
        "broker.request_id": "req-1",
    }


def test_nothing_is_read_or_made_while_tracing_is_off():
    telemetry = ServerTelemetry()
    telemetry.start(None)

    class Unreadable(list[tuple[bytes, bytes]]):
        def __iter__(self) -> Any:
            raise AssertionError("the headers were read")

    first = telemetry.begin(Unreadable(), "req-1", "GET")
    assert first is telemetry.begin(Unreadable(), "req-2", "GET")
    assert first.trace_id is None


def test_a_missing_extra_is_one_plain_line(tmp_path: Path):
    """As on a host where it was not installed; the API alone comes with FastAPI."""
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from broker.entry import main; sys.exit(main(['server']))"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "BROKER_TELEMETRY__OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("broker: [telemetry] otlp_endpoint needs more packages")
    assert "credential-broker[server,otel]" in line


def test_the_extra_is_imported_where_it_is_asked_for_and_nowhere_else():
    """So that a server without it starts, and one that has it pays for it only when in use."""
    broker = Path(tracing.__file__).parents[2]
    importing = [
        path.relative_to(broker).as_posix()
        for path in broker.rglob("*.py")
        if re.search(r"^\s*(?:from|import) opentelemetry", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert importing == ["adapters/telemetry/tracing.py"]
    asking = (broker / "adapters/telemetry/server.py").read_text("utf-8")
    assert re.findall(r"^( *)from broker\.adapters\.telemetry import tracing", asking, re.MULTILINE)
    assert not re.search(r"^from broker\.adapters\.telemetry import tracing", asking, re.MULTILINE)
