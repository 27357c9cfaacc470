"""Which trace the client's requests say they belong to."""

from __future__ import annotations

import re

import pytest

from broker.cli.tokens import Tokens
from broker.cli.trace_context import TraceContext
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def sent(broker: FakeBroker) -> list[str]:
    with broker.lock:
        return [seen.headers["traceparent"] for seen in broker.seen]


def test_the_trace_of_the_callers_environment_goes_on(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    cli.environment["TRACEPARENT"] = GIVEN
    assert cli("creds", "data-reader").code == 0
    assert set(sent(broker)) == {GIVEN}


def test_without_one_a_process_has_its_own_which_asks_for_nothing(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    done = cli("creds", "data-reader", "--debug")
    assert done.code == 0
    traces = {value.split("-")[1] for value in sent(broker)}
    assert len(traces) == 1
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", sent(broker)[0])
    assert traces.pop() in done.err


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        GIVEN.upper(),
        GIVEN + "-more",
        "01" + GIVEN[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        GIVEN + "\r\nX-Evil: 1",
        "00-4bf92f3577b34da6a3ce929d0e0e47\u0663\u0666-00f067aa0ba902b7-01",
    ],
)
def test_what_is_no_trace_context_is_not_passed_on(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACEPARENT", value)
    context = TraceContext()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", context.header())
    assert context.header() != context.header()
    assert context.trace_id in context.header()
