"""What a broker, or something in its place, may answer; and what the network may do."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.cli import transport
from broker.cli.failure import Unreachable
from broker.cli.server import Server
from broker.cli.terminal import clean
from broker.cli.tokens import Tokens
from broker.cli.transport import Transport
from tests.certificate import its_own_authority
from tests.cli.conftest import Cli
from tests.cli.fake_broker import ME, ROLES, FakeBroker, Reply, serving
from tests.e2e.processes import free_port

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202egnp\u2066\u2028\x00"


def test_clean_leaves_nothing_that_a_terminal_obeys():
    shown = clean(ESCAPES + "Grüße 東京")
    assert shown.isprintable()
    assert shown.endswith("Grüße 東京")
    assert "\\x1b" in shown
    assert len(clean("x" * 10_000)) < 2100
    assert clean("\ud800").isprintable()


def test_text_of_the_broker_is_cleaned_before_it_is_shown(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies["/v1/roles"] = Reply.of({"roles": [{**ROLES[0], "description": ESCAPES}]})
    broker.replies["/v1/me"] = Reply.of({**ME, "handle": ESCAPES, "auth_time": ESCAPES})
    broker.replies["/v1/credentials"] = Reply.problem(403, "not_entitled", ESCAPES)
    for words in (["roles"], ["whoami"], ["creds", "data-reader"]):
        done = cli.inside(*words)
        for line in (done.out + done.err).split("\n"):
            assert line.isprintable(), (words, line)
    assert json.loads(cli.inside("roles", "--json").out)[0]["description"] == ESCAPES
    assert "\x1b" not in cli.inside("roles", "--json").out


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>proxy</html>", "text/html"),
        Reply(200, b"{}", "text/html"),
        Reply(200, b"[]"),
        Reply(200, b"null"),
        Reply(200, b""),
        Reply(200, b"{"),
        Reply(200, b"\xff\xfe{}"),
        Reply(200, b'{"roles": NaN}'),
        Reply(200, b'{"roles": {}}'),
        Reply(200, b'{"roles": [1]}'),
        Reply(200, b"[" * 200_000),
        Reply(200, b'{"a":' * 100_000),
        Reply(200, b'{"roles": []}', truncate=True),
        Reply(200, b'{"roles": [], "x": "' + b"x" * transport.MAX_ANSWER_BYTES + b'"}'),
        Reply(204, b""),
        Reply(302, b"", headers={"Location": "https://evil.example/\x1b[2J"}),
        Reply(307, b""),
        Reply(404, b"{}"),
        Reply(500, b"oops", "text/plain"),
        Reply(502, b"", "application/problem+json"),
        Reply(403, b"[]", "application/problem+json"),
        Reply(403, b'{"code": 7}', "application/problem+json"),
        Reply(403, b'{"code": "not an identifier\\u001b"}', "application/problem+json"),
    ],
    ids=range(23),
)
def test_an_answer_that_is_no_brokers_is_exit_4(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, reply: Reply
):
    broker.replies["/v1/roles"] = reply
    done = cli.inside("roles")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("broker: ")
    assert len(done.err) < 500
    assert done.err.rstrip("\n").isprintable()
    assert broker.count("/v1/roles") == 1


def test_a_redirect_is_not_followed_with_the_token(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    with serving() as elsewhere:
        broker.replies["/v1/me"] = Reply(307, headers={"Location": f"{elsewhere.origin}/v1/me"})
        done = cli("whoami")
        assert done.code == 4
        assert elsewhere.origin in done.err
        assert elsewhere.seen == []


def test_a_problem_with_odd_members_is_still_read(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    odd = {"code": "forbidden", "detail": ["x"], "request_id": "a b\n", "status": "x"}
    broker.replies["/v1/me"] = Reply(403, json.dumps(odd).encode(), "application/problem+json")
    done = cli.inside("whoami")
    assert done.code == 1
    assert done.err == "broker: forbidden: ['x']\n"


@contextmanager
def raw_server(*sent: bytes, hold: bool = False) -> Iterator[str]:
    """Sends these bytes to each connection, whatever is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                for piece in sent:
                    connection.sendall(piece)
                if hold:
                    over.wait(30)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "broke off"),
    ],
)
def test_what_is_no_http_is_exit_4(cli: Cli, sent: bytes, says: str):
    with raw_server(sent) as origin:
        done = cli.inside("login", "--server", origin)
    assert done.code == 4
    assert says in done.err


def test_a_server_that_never_finishes_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    for sent in (b"", head, head + b"{"):
        with raw_server(sent, hold=True) as origin, pytest.raises(Unreachable, match="in time"):
            Transport(Server.parse(origin)).request("GET", "/")


def test_a_server_that_drips_is_left(monkeypatch: pytest.MonkeyPatch):
    """Each byte would renew the time-out of the socket."""
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not over.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match="in time"):
        Transport(Server.parse(origin)).request("GET", "/")
    over.set()
    thread.join(10)
    listener.close()


def test_nothing_listening_is_exit_4_with_what_was_tried(cli: Cli):
    port = free_port()
    done = cli("login", "--server", f"http://127.0.0.1:{port}")
    assert done.code == 4
    assert f"GET http://127.0.0.1:{port}/.well-known/oauth-authorization-server" in done.err
    assert "nothing listens there" in done.err


def test_a_name_that_does_not_exist_is_exit_4(cli: Cli):
    done = cli("login", "--server", "https://broker.invalid")
    assert done.code == 4
    assert "broker.invalid" in done.err


# --- TLS and proxies ------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return its_own_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_broker(certificate: Path) -> Iterator[FakeBroker]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as fake:
        yield fake


def test_a_certificate_that_nobody_vouches_for_is_refused(cli: Cli, tls_broker: FakeBroker):
    done = cli("login", "--no-browser", "--server", tls_broker.origin)
    assert done.code == 4
    assert "certificate is not trusted" in done.err
    assert "SSL_CERT_FILE" in done.err
    assert tls_broker.seen == []


def test_plain_http_on_the_other_side_is_named(cli: Cli, broker: FakeBroker):
    done = cli("login", "--no-browser", "--server", broker.origin.replace("http:", "https:"))
    assert done.code == 4
    assert "TLS failed" in done.err


class Proxy:
    """An HTTP proxy that knows CONNECT, as companies have."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heads: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.heads.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        with client, socket.create_connection((host, int(port))) as target:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self._copy, args=(target, client), daemon=True)
            back.start()
            self._copy(client, target)
            back.join(10)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_through_a_proxy_with_a_company_s_own_authority(
    cli: Cli, tls_broker: FakeBroker, certificate: Path
):
    proxy = Proxy()
    cli.environment |= {
        "SSL_CERT_FILE": str(certificate),
        "HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}",
    }
    process = cli.start("--debug", "login", "--no-browser", "--server", tls_broker.origin)
    assert process.stderr is not None
    shown = b""
    for line in process.stderr:
        shown += line
        if b"/oauth/authorize?" in line:
            break
    process.terminate()
    process.communicate()
    assert b"/oauth/authorize?" in shown, shown
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in proxy.heads[0]
    assert b"p%40ss" not in shown
    assert b"p@ss" not in shown
    cli.environment["NO_PROXY"] = "127.0.0.1"
    asked = len(proxy.heads)
    cli.environment["SSL_CERT_FILE"] = "/nonexistent"
    assert cli("login", "--no-browser", "--server", tls_broker.origin).code == 4
    assert len(proxy.heads) == asked
    proxy.listener.close()


def test_a_proxy_that_refuses_is_named(cli: Cli):
    with raw_server(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        cli.environment["HTTPS_PROXY"] = proxy
        done = cli("login", "--no-browser", "--server", "https://broker.example.com")
    assert done.code == 4
    assert "407" in done.err


def test_the_loopback_interface_is_never_behind_a_proxy(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    cli.environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert cli("whoami").code == 0
