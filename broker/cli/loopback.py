"""The loopback redirect of RFC 8252 section 7.3: one answer, from one browser, on 127.0.0.1.

Owns the listener and what it takes for an answer. Any local program and any web
page can reach it, so whatever is not the answer to this login is refused and
forgotten: the wait goes on, since a stranger must not be able to end it.
"""

from __future__ import annotations

import hmac
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs

from broker.cli.failure import NotLoggedIn

CALLBACK_PATH = "/callback"
_MAX_TARGET = 4096

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>broker</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;margin:20vh auto;max-width:30rem;padding:0 1rem;
color-scheme:light dark}}</style><h1>{title}</h1><p>{text}</p></html>
"""
_ANSWERED = _PAGE.format(
    title="Back to the terminal", text="The command line goes on there; you may close this window."
)
_IGNORED = _PAGE.format(title="Not a login", text="This address answers a broker login alone.")


class Callback(NamedTuple):
    """The authorization response (RFC 6749 section 4.1.2, RFC 9207): `code`, or `error`."""

    code: str | None
    error: str | None
    issuer: str | None

    def __repr__(self) -> str:
        return "Callback(…)"


class Listener:
    """Listens from its creation on; `wait` gives the one answer that carries `state`."""

    def __init__(self, state: str) -> None:
        self._answers: queue.Queue[Callback] = queue.Queue()
        self._server = _CallbackServer(("127.0.0.1", 0), state, self._answers)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{CALLBACK_PATH}"

    def wait(self, seconds: float) -> Callback:
        """Raises NotLoggedIn where none comes in time."""
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            raise NotLoggedIn(
                f"nobody finished the login within {seconds / 60:.0f} minutes: run it again"
            ) from None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _CallbackServer(ThreadingHTTPServer):
    # Browsers open connections ahead of need and leave them idle: each has its own thread.
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], state: str, answers: queue.Queue[Callback]
    ) -> None:
        super().__init__(address, _CallbackHandler)
        self.state = state
        self.answers = answers

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no event; the default prints a traceback."""


class _CallbackHandler(BaseHTTPRequestHandler):
    server: _CallbackServer
    timeout = 10
    server_version = "broker"
    sys_version = ""

    def do_GET(self) -> None:
        callback = self._callback()
        if callback is None:
            self._say(404, _IGNORED)
            return
        self._say(200, _ANSWERED)
        self.wfile.flush()
        self.server.answers.put(callback)

    def _callback(self) -> Callback | None:
        """The answer to this login; None for anything else, however close."""
        path, _, query = self.path.partition("?")
        # Another name for this address would be a web page that rebinds its own.
        expected_host = f"127.0.0.1:{self.server.server_port}"
        if path != CALLBACK_PATH or self.headers.get_all("Host") != [expected_host]:
            return None
        if len(self.path) > _MAX_TARGET:
            return None
        try:
            values = parse_qs(query, strict_parsing=True, max_num_fields=10, errors="strict")
        except ValueError:
            return None
        if any(len(items) != 1 for items in values.values()):
            return None
        given = {name: items[0] for name, items in values.items()}
        if not hmac.compare_digest(given.get("state", "").encode(), self.server.state.encode()):
            return None
        code, error = given.get("code"), given.get("error")
        if (code is None) == (error is None):
            return None
        return Callback(code, error, given.get("iss"))

    def _say(self, status: int, page: str) -> None:
        body = page.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the request line holds the code."""
