"""What can't be reached is named, whatever else is wrong with it or the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from broker.adapters.reachability import Connect, Reachability, connect
from tests.certificate import its_own_authority
from tests.e2e.processes import free_port
from tests.store.journal_scene import until


@contextlib.asynccontextmanager
async def trying(**targets: Connect) -> AsyncIterator[Reachability]:
    reachability = Reachability(targets, every=0.01)
    reachability.start()
    try:
        yield reachability
    finally:
        await reachability.aclose()


async def test_one_with_a_fault_of_its_own_is_named_and_the_others_are_tried_on() -> None:
    port = free_port()
    impossible = partial(connect, f"https://{'a' * 64}.example.com")  # no name of a host
    async with trying(bad=impossible, good=partial(connect, f"http://127.0.0.1:{port}")) as found:

        async def names(*expected: str) -> bool:
            return found.unreachable() == expected

        await until(partial(names, "bad", "good"))
        with socket.create_server(("127.0.0.1", port)):
            await until(partial(names, "bad"))
        await until(partial(names, "bad", "good"))


@pytest.fixture
def mute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A TLS server that says nothing after the handshake, not even goodbye."""
    certificate = its_own_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed by the test's end
            while True:
                raw, _ = listening.accept()
                with context.wrap_socket(raw, server_side=True):
                    ended.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(60)


async def test_one_that_does_not_part_in_order_was_reached(mute: str) -> None:
    async with asyncio.timeout(25):  # asyncio waits 30 s for a goodbye
        await connect(mute)
