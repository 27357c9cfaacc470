"""Webhooks to real HTTP servers: signed, judged by their answer alone, bounded."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from broker.adapters.sinks.sink import Batch, DeliveryFailed
from broker.adapters.sinks.webhook import WebhookConfig, WebhookSink, _retry_after, signature
from tests.e2e.processes import free_port
from tests.sinks.conftest import make_batch
from tests.sinks.receivers import Answer, WebhookReceiver, webhook_receiver

SECRET = b"a secret of enough length"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver(SECRET) as made:
        yield made


def config(url: str, **changes: Any) -> WebhookConfig:
    values: dict[str, Any] = {"url": url, "seconds": 30.0, "secret": SECRET}
    return WebhookConfig(**(values | changes))


async def deliver(url: str, batch: Batch | None = None, **changes: Any) -> None:
    sink = WebhookSink(config(url, **changes))
    try:
        await sink.deliver(batch or make_batch())
    finally:
        await sink.aclose()


async def test_a_batch_is_posted_signed_as_json_lines(receiver: WebhookReceiver) -> None:
    batch = make_batch(4, 3)
    await deliver(receiver.url, batch)
    assert receiver.taken == [batch.json_lines]
    (posted,) = receiver.seen
    assert posted.path == "/in"
    assert posted.headers["Content-Type"] == "application/x-ndjson"
    assert posted.headers["Idempotency-Key"] == f"4-6-{batch.records[-1].chain.hex()}"
    timestamp = posted.headers["Broker-Timestamp"]
    assert posted.headers["Broker-Signature"] == signature(SECRET, timestamp, posted.body)
    assert abs(int(timestamp) - datetime.now(UTC).timestamp()) < 120


async def test_a_batch_may_be_one_json_array(receiver: WebhookReceiver) -> None:
    await deliver(receiver.url, make_batch(1, 2), body="array")
    found = json.loads(receiver.taken[0])
    assert [json.loads(one["record"])["seq"] for one in found] == [1, 2]
    assert receiver.seen[0].headers["Content-Type"] == "application/json"


async def test_a_receiver_may_ask_for_an_authorization(receiver: WebhookReceiver) -> None:
    await deliver(receiver.url, authorization="Splunk 123")
    assert receiver.seen[0].headers["Authorization"] == "Splunk 123"


async def test_a_wrong_secret_is_refused_by_the_receiver(receiver: WebhookReceiver) -> None:
    with pytest.raises(DeliveryFailed, match="refused with 401") as failed:
        await deliver(receiver.url, secret=b"another secret of length")
    assert failed.value.refused
    assert receiver.taken == []


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (400, True), (401, True), (403, True), (404, True), (410, True), (422, True),
        (408, False), (425, False), (429, False), (500, False), (502, False), (503, False),
        (301, True), (302, True), (304, True), (307, True),
    ],
)  # fmt: skip
async def test_only_a_yes_is_a_yes(receiver: WebhookReceiver, status: int, refused: bool) -> None:
    receiver.script = [Answer(status)]
    with pytest.raises(DeliveryFailed) as failed:
        await deliver(receiver.url)
    assert failed.value.refused is refused
    assert not failed.value.too_large
    assert len(receiver.seen) == 1


async def test_a_redirect_is_not_followed(receiver: WebhookReceiver) -> None:
    with webhook_receiver(SECRET) as elsewhere:
        receiver.script = [Answer(307, {"Location": elsewhere.url})]
        with pytest.raises(DeliveryFailed, match="redirect"):
            await deliver(receiver.url)
        assert elsewhere.seen == []


async def test_too_large_asks_for_fewer(receiver: WebhookReceiver) -> None:
    receiver.script = [Answer(413)]
    with pytest.raises(DeliveryFailed) as failed:
        await deliver(receiver.url)
    assert failed.value.too_large


async def test_how_long_to_wait_is_the_receivers_to_say(receiver: WebhookReceiver) -> None:
    receiver.script = [Answer(503, {"Retry-After": "17"})]
    with pytest.raises(DeliveryFailed) as failed:
        await deliver(receiver.url)
    assert failed.value.retry_after == 17.0


def test_both_forms_of_retry_after_are_read_and_nothing_else() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90))
    assert 60 < (_retry_after(later) or 0) <= 91
    assert _retry_after(format_datetime(datetime.now(UTC) - timedelta(days=1))) == 0
    assert _retry_after("0") == 0
    for nonsense in (None, "", "-5", "1.5", "soon", "٣", "9" * 65, "Wed, 99 Foo 9999 00:00:00 GMT"):
        assert _retry_after(nonsense) is None, nonsense


# --- Hostile answers ----------------------------------------------------------------------------


@contextmanager
def talking(answer: bytes, drip: bytes = b"") -> Iterator[str]:
    """Answers every request so, and then with `drip` again and again, slowly."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(answer)
                while drip and not over.wait(0.02):
                    connection.sendall(drip)
                connection.shutdown(socket.SHUT_WR)
                over.wait(60)
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    over.set()
    listener.close()
    thread.join()


@pytest.mark.parametrize(
    ("answer", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),  # a head that never ends
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),  # a body that drips
        (b"", b""),  # closed at once
        (b"SSH-2.0-OpenSSH\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b""),  # cut off
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", b""),
    ],
    ids=["slow head", "slow body", "closed", "not http", "cut off", "endless", "compressed"],
)  # fmt: skip
async def test_a_hostile_answer_is_no_yes_and_has_an_end(answer: bytes, drip: bytes) -> None:
    with talking(answer, drip) as url, pytest.raises(DeliveryFailed) as failed:
        await deliver(url, seconds=1.0)
    assert not failed.value.refused
    assert len(failed.value.reason) < 100


async def test_nobody_there_is_a_failure() -> None:
    port = free_port()
    with pytest.raises(DeliveryFailed, match="no usable answer"):
        await deliver(f"http://127.0.0.1:{port}/")


def test_secrets_are_in_no_repr() -> None:
    made = repr(config("https://siem.example.com", authorization="Splunk 123"))
    assert "secret of enough" not in made
    assert "Splunk" not in made
