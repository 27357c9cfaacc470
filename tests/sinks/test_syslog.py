"""Syslog to real listeners, over TCP and TLS."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

from broker.adapters.sinks.sink import DeliveryFailed, native
from broker.adapters.sinks.syslog import SyslogConfig, SyslogSink, TlsFiles, frame
from broker.audit.record import EventType, Outcome
from broker.errors import StartupError
from tests.conftest import run_apart
from tests.sinks.conftest import make_batch, until
from tests.sinks.receivers import Authority, new_authority, server_context, syslog_receiver
from tests.sinks.records import TIME, stored


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("tls") / "good")


def config(port: int, tls: TlsFiles | None = None) -> SyslogConfig:
    return SyslogConfig("127.0.0.1", port, tls, hostname="broker.example.com")


@pytest.mark.parametrize("event_type", EventType)
def test_a_message_is_rfc_5424_with_its_octets_counted(event_type: EventType) -> None:
    record = stored(event_type, seq=12)
    line = native(record)
    counted = frame(record, line, config(6514))
    length, _, message = counted.partition(b" ")
    assert int(length) == len(message)
    header, _, rest = message.partition(b" [")
    assert header == (f"<109>1 {TIME} broker.example.com broker - {event_type.value}".encode())
    assert re.fullmatch(rb"[!-~]{1,32}", header.rsplit(b" ", 1)[1])  # MSGID
    assert rest == b'meta sequenceId="12"] ' + line
    assert b"\n" not in message


def test_what_went_wrong_is_a_warning_and_the_sequence_starts_anew() -> None:
    record = stored(seq=2**31, outcome=Outcome.DENIED)
    message = frame(record, b"{}", config(1))
    assert b" <108>1 " in b" " + message.partition(b" ")[2]
    assert b'sequenceId="1"' in message


async def test_messages_arrive_over_tcp_in_order() -> None:
    with syslog_receiver() as receiver:
        sink = SyslogSink(config(receiver.port))
        await sink.deliver(make_batch(1, 50, pad=3000))
        await sink.deliver(make_batch(51, 50))
        await until(lambda: len(receiver.messages) == 100)
        await sink.aclose()
    assert receiver.connections == 1
    assert receiver.faults == []
    expected = [
        frame(record, line, config(1)).partition(b" ")[2]
        for batch in (make_batch(1, 50, pad=3000), make_batch(51, 50))
        for record, line in zip(batch.records, batch.lines, strict=True)
    ]
    assert receiver.messages == expected


async def test_messages_arrive_over_tls(authority: Authority) -> None:
    with syslog_receiver(tls=server_context(authority.issue("server"))) as receiver:
        sink = SyslogSink(config(receiver.port, TlsFiles(authority.path)))
        await sink.deliver(make_batch(1, 20, pad=9000))
        await until(lambda: len(receiver.messages) == 20)
        await sink.aclose()
    assert receiver.connections == 1


def on_uvloop(work: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_messages_arrive_from_the_event_loop_that_servers_have(
    authority: Authority, tls: bool
) -> None:
    server = server_context(authority.issue("server")) if tls else None

    async def send(port: int) -> None:
        sink = SyslogSink(config(port, TlsFiles(authority.path) if tls else None))
        await sink.deliver(make_batch(1, 40, pad=20_000))
        await sink.deliver(make_batch(41, 1))
        await sink.aclose()

    with syslog_receiver(tls=server) as receiver:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(on_uvloop, send(receiver.port)).result()
        run_apart(until(lambda: len(receiver.messages) == 41))
    assert [sequence(message) for message in receiver.messages] == list(range(1, 42))


async def test_a_receiver_that_cannot_prove_itself_gets_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = new_authority(tmp_path / "strange")
    cases = [
        (server_context(stranger.issue("server")), authority.path),
        (server_context(authority.issue("elsewhere", "192.0.2.1")), authority.path),
        (server_context(authority.issue("server")), None),  # the system's authorities
    ]
    for context, trusted in cases:
        with syslog_receiver(tls=context) as receiver:
            sink = SyslogSink(config(receiver.port, TlsFiles(trusted)))
            with pytest.raises(DeliveryFailed, match="not trusted") as failed:
                await sink.deliver(make_batch())
            assert failed.value.refused
            await sink.aclose()
        assert receiver.messages == []


async def test_a_receiver_that_asks_for_a_certificate_gets_it(authority: Authority) -> None:
    server = server_context(authority.issue("server"), clients=authority.path)
    client = authority.issue("client")
    with syslog_receiver(tls=server) as receiver:
        bare = SyslogSink(config(receiver.port, TlsFiles(authority.path)))
        # TLS 1.3 tells a client only after its first bytes: they are not taken for delivered.
        with pytest.raises(DeliveryFailed, match="closed the connection"):
            await bare.deliver(make_batch(1, 1))
        await bare.aclose()
        assert receiver.messages == []
        sink = SyslogSink(config(receiver.port, TlsFiles(authority.path, client)))
        await sink.deliver(make_batch(1, 2))
        await until(lambda: len(receiver.messages) == 2)
        await sink.aclose()


def test_certificates_that_can_not_be_used_stop_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for tls in (TlsFiles(tmp_path / "absent"), TlsFiles(broken), TlsFiles(None, broken)):
        with pytest.raises(StartupError, match="certificates"):
            SyslogSink(config(1, tls))


async def test_a_connection_that_was_closed_is_made_anew() -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        sink = SyslogSink(config(port))
        await sink.deliver(make_batch(1, 1))
        await until(lambda: len(receiver.messages) == 1)
    peer = sink._peer
    assert peer is not None
    await until(peer.lost.done)
    with pytest.raises(OSError, match="Connect"):
        await sink.deliver(make_batch(2, 1))
    with syslog_receiver(port) as again:
        await sink.deliver(make_batch(2, 1))
        await until(lambda: len(again.messages) == 2)
        await sink.aclose()
    assert [sequence(message) for message in again.messages] == [1, 2]


async def test_a_receiver_whose_host_takes_no_more_fails_the_batch() -> None:
    """It accepts and never reads: what its kernel does not acknowledge is not delivered."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    sink = SyslogSink(config(listener.getsockname()[1]))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            # More than the receiver's buffer, less than the sender's.
            await sink.deliver(make_batch(1, 10, pad=20_000))
    assert sink._peer is None  # half a message was sent: nothing may follow it
    await sink.aclose()
    listener.close()


async def test_what_a_receiver_lost_when_it_hung_up_is_sent_again() -> None:
    with syslog_receiver(hang_up_after=5) as receiver:
        sink = SyslogSink(config(receiver.port))
        with pytest.raises(DeliveryFailed, match="closed the connection"):
            await sink.deliver(make_batch(1, 20, pad=2000))
        await sink.deliver(make_batch(1, 20, pad=2000))
        await until(lambda: len(receiver.messages) == 25)
        await sink.aclose()
    assert [sequence(message) for message in receiver.messages[5:]] == list(range(1, 21))


async def test_a_batch_that_a_receiver_may_have_lost_at_its_end_goes_before_the_next() -> None:
    with syslog_receiver() as receiver:
        sink = SyslogSink(config(receiver.port))
        await sink.deliver(make_batch(1, 2))
        await until(lambda: len(receiver.messages) == 2)
    peer = sink._peer
    assert peer is not None
    await until(peer.lost.done)
    with syslog_receiver(receiver.port) as again:
        await sink.deliver(make_batch(3, 1))
        await until(lambda: len(again.messages) == 3)
        await sink.aclose()
    assert [sequence(message) for message in again.messages] == [1, 2, 3]


def sequence(message: bytes) -> int:
    found = re.search(rb'sequenceId="([0-9]+)"', message)
    assert found is not None
    return int(found.group(1))


async def test_what_a_receiver_says_is_thrown_away() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sink = SyslogSink(config(listener.getsockname()[1]))

    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"x" * 4_000_000)  # returns when most of it was read
            while connection.recv(65536):
                pass

    talking = asyncio.create_task(asyncio.to_thread(talk))
    await sink.deliver(make_batch(1, 1))
    await sink.aclose()
    await talking
    listener.close()
