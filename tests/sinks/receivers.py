"""Real receivers on loopback: syslog over TCP and TLS, and a webhook that checks signatures."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# --- Certificates -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates, which are kept in `folder` as NAME.pem with their key."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def path(self) -> Path:
        return self.folder / "authority.pem"

    def issue(self, name: str, address: str = "127.0.0.1") -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = (
            _builder(name, self.certificate.subject, key)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{name}.pem"
        path.write_bytes(_pem_key(key) + certificate.public_bytes(serialization.Encoding.PEM))
        return path


def new_authority(folder: Path) -> Authority:
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder("authority", name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(folder, certificate, key)
    authority.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def server_context(certificate: Path, clients: Path | None = None) -> ssl.SSLContext:
    """`clients`: the authority whose certificates clients must show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


# --- Syslog -------------------------------------------------------------------------------------


@dataclass(slots=True)
class SyslogReceiver:
    """Reads octet-counted messages from every connection, as RFC 6587 section 3.4.1 has them.

    `hang_up_after`: close each connection after so many messages, once only.
    """

    port: int
    messages: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    hang_up_after: int | None = None


@contextmanager
def syslog_receiver(
    port: int = 0, tls: ssl.SSLContext | None = None, *, hang_up_after: int | None = None
) -> Iterator[SyslogReceiver]:
    listener = socket.create_server(("127.0.0.1", port))
    receiver = SyslogReceiver(listener.getsockname()[1], hang_up_after=hang_up_after)
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            receiver.connections += 1
            open_ones.append(connection)
            one = threading.Thread(target=_read, args=(receiver, connection, tls))
            threads.append(one)
            one.start()

    acceptor = threading.Thread(target=serve)
    acceptor.start()
    try:
        yield receiver
    finally:
        # close() alone leaves accept() waiting.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in threads:
            thread.join()


def _read(receiver: SyslogReceiver, raw: socket.socket, tls: ssl.SSLContext | None) -> None:
    try:
        connection = raw if tls is None else tls.wrap_socket(raw, server_side=True)
        with connection, connection.makefile("rb") as stream:
            while (digits := _count(stream.read)) is not None:
                message = stream.read(int(digits))
                if len(message) != int(digits):
                    receiver.faults.append("cut off")
                    return
                if receiver.hang_up_after == 0:
                    receiver.hang_up_after = None
                    return
                receiver.messages.append(message)
                if receiver.hang_up_after is not None:
                    receiver.hang_up_after -= 1
    except (OSError, ValueError) as fault:
        receiver.faults.append(repr(fault))


def _count(read: Callable[[int], bytes]) -> bytes | None:
    digits = b""
    while (byte := read(1)) not in (b"", b" "):
        digits += byte
    if not digits:
        return None
    if not re.fullmatch(rb"[1-9][0-9]*", digits):
        raise ValueError(f"no octet count: {digits!r}")
    return digits


# --- Webhooks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What the next request gets, once."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Posted:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class WebhookReceiver:
    """Takes what is rightly signed; answers as `script` says, first to last, and then 200.

    `taken` are the bodies that were answered with 2xx. While `hold` is clear, answers wait.
    """

    url: str
    secret: bytes
    script: list[Answer] = field(default_factory=list)
    seen: list[Posted] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def judge(self, posted: Posted) -> Answer:
        self.seen.append(posted)
        signed = posted.headers["Broker-Timestamp"].encode() + b"." + posted.body
        right = "v1=" + hmac.new(self.secret, signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(right, posted.headers.get("Broker-Signature", "")):
            return Answer(401)
        answer = self.script.pop(0) if self.script else Answer()
        if answer.status < 300:
            self.taken.append(posted.body)
        return answer


@contextmanager
def webhook_receiver(secret: bytes, port: int = 0) -> Iterator[WebhookReceiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = receiver.judge(Posted(self.path, dict(self.headers.items()), body))
            receiver.hold.wait(60)
            with contextlib.suppress(OSError):  # the broker may have given up
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A connection that the broker dropped is no fault of the test."""

    server = Server(("127.0.0.1", port), Handler)
    receiver = WebhookReceiver(f"http://127.0.0.1:{server.server_address[1]}/in", secret)
    receiver.hold.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
