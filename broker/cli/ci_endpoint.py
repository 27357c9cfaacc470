"""A container credentials endpoint on the loopback interface, for one child process.

Owns: the HTTP side of `broker ci ROLE -- COMMAND`. SDKs ask it again and again,
so that credentials never run out while the command lives. Only who has the
random token gets an answer; it is in the child's environment and nowhere else.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broker.cli.credentials import Credentials
from broker.cli.failure import Failure
from broker.cli.terminal import clean, note

# SDKs renew in the background below 15 minutes; what is served must be good for longer.
RENEW_BELOW = 16 * 60
_PATH = "/credentials"


class Endpoint:
    """Serves until closed. `issue` is called by one thread at a time."""

    def __init__(self, issue: Callable[[], Credentials]) -> None:
        self._issue = issue
        self._current: Credentials | None = None
        self._lock = threading.Lock()
        self.token = secrets.token_urlsafe(32)
        endpoint = self

        class Handler(_Handler):
            serving = endpoint

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What SDKs find the endpoint by."""
        port = self._server.server_address[1]
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}{_PATH}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.token,
        }

    def credentials(self) -> Credentials:
        """Those of before while they are good for long enough. Raises Failure."""
        with self._lock:
            current = self._current
            if current is None or current.expires_at.timestamp() - time.time() < RENEW_BELOW:
                current = self._current = self._issue()
            return current

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    serving: Endpoint
    timeout = 10

    def do_GET(self) -> None:
        presented = (self.headers.get("Authorization") or "").encode("latin-1", "replace")
        if self.path != _PATH:
            self._answer(404, {"code": "not_found", "message": "There is nothing here."})
        elif not hmac.compare_digest(presented, self.serving.token.encode("ascii")):
            self._answer(401, {"code": "unauthenticated", "message": "Not this token."})
        else:
            self._answer(*self._fetch())

    def _fetch(self) -> tuple[int, dict[str, object]]:
        try:
            issued = self.serving.credentials()
        except Failure as failure:
            note(f"broker: {failure}")
            return 502, {"code": "broker", "message": clean(failure, 300)}
        return 200, {
            "AccessKeyId": issued.access_key_id,
            "SecretAccessKey": issued.secret_access_key,
            "Token": issued.session_token,
            "Expiration": issued.expiration,
        }

    def _answer(self, status: int, value: dict[str, object]) -> None:
        body = json.dumps(value).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: standard error is the command's."""
