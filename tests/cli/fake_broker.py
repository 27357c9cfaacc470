"""A broker over HTTP for the client's tests: real OAuth rules, canned data, and faults on demand.

It keeps the protocol's promises (PKCE, single-use codes, rotating refresh
tokens with reuse detection), so that a client that breaks them is found.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.cli.fake_log import FakeLog

_PUBLIC = ("/v1/audit/checkpoint", "/v1/audit/keys", "/v1/audit/proof/consistency")
CODE = "123456"
DEVICE_CODE = "d" * 43
USER_CODE = "WDJB-MJHT"
POLICY = "version: 1\n"


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    truncate: bool = False  # promise more than is sent

    @classmethod
    def of(cls, value: object, status: int = 200, **headers: str) -> Reply:
        return cls(status, json.dumps(value).encode(), headers=headers)

    @classmethod
    def problem(cls, status: int, code: str, detail: str = "No.", **members: object) -> Reply:
        value = {"type": "about:blank", "title": "No", "status": status, "code": code}
        value |= {"detail": detail, "request_id": "req-1", **members}
        return cls(status, json.dumps(value).encode(), "application/problem+json")


Handler = Callable[[Seen], Reply]


class FakeBroker:
    """Started by `serving`. `replies` overrides a path with a reply or a function."""

    def __init__(self) -> None:
        self.origin = ""
        self.lock = threading.RLock()
        self.arrival = threading.Condition(self.lock)
        self.closing = threading.Event()
        self.seen: list[Seen] = []
        self.replies: dict[str, Reply | Handler] = {}
        self.metadata: dict[str, object] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.access_tokens: set[str] = set()
        self.refresh_token: str | None = None  # the one that is good now
        self.refreshes = 0
        self.revoked: list[str] = []
        # What polls of a device login are told, one after the other; then it is allowed.
        self.device_errors: list[str] = []
        self.device_answer: dict[str, object] = {}
        self.device_interval = 1
        self.authorize_answer: Callable[[dict[str, str]], dict[str, str]] | None = None
        self.needs_factor: str | None = None  # the code with which credentials are refused
        self.credentials: dict[str, str] = {
            "access_key_id": "ASIAEXAMPLEEXAMPLE00",
            "secret_access_key": "wJalr/XUtnFEMI+K7MDENG=",
            "session_token": "FwoGZXIvYXdzEBYaDtoken//+==",
        }
        self.region: str | None = "eu-central-1"
        self.lifetime = timedelta(hours=1)
        self.expiration: str | None = None
        self.delay = 0.0
        self.policy_version = 3
        self.diff = ["--- version 3", "+++ version 4", "+  new: role"]
        self.records: list[dict[str, object]] = []
        self.log: FakeLog | None = None

    # --- what tests ask --------------------------------------------------

    def wait_until_asked(self, path: str) -> None:
        """Until a request for `path` came; it may still be waiting for its answer."""
        with self.lock:
            came = self.arrival.wait_for(lambda: self.count(path) > 0, timeout=20)
        assert came, f"nobody asked for {path}"

    def count(self, path: str) -> int:
        with self.lock:
            return sum(1 for request in self.seen if request.path == path)

    def queries(self, path: str) -> list[dict[str, str]]:
        with self.lock:
            return [request.query for request in self.seen if request.path == path]

    def last(self, path: str) -> Seen:
        with self.lock:
            return [request for request in self.seen if request.path == path][-1]

    def new_pair(self) -> dict[str, object]:
        with self.lock:
            access = f"bka_{secrets.token_urlsafe(32)}"
            self.refresh_token = f"bkr_{secrets.token_urlsafe(32)}"
            self.access_tokens = {access}
            return {
                "access_token": access,
                "refresh_token": self.refresh_token,
                "token_type": "Bearer",
                "expires_in": 900,
            }

    # --- routes ----------------------------------------------------------

    def answer(self, request: Seen) -> Reply:
        with self.lock:
            self.seen.append(request)
            self.arrival.notify_all()
        override = self.replies.get(request.path)
        if override is not None:
            return override if isinstance(override, Reply) else override(request)
        match request.path:
            case "/.well-known/oauth-authorization-server":
                return Reply.of({**self._metadata(), **self.metadata})
            case "/oauth/authorize":
                return self._authorize(request)
            case "/oauth/device_authorization":
                return self._start_device_login(dict(_form(request)))
            case "/oauth/token":
                return self._token(dict(_form(request)))
            case "/oauth/revoke":
                self.revoked.append(_form(request)["token"])
                return Reply.of({})
        if not request.path.startswith("/v1/"):
            return Reply.problem(404, "not_found")
        if request.path in _PUBLIC:
            return self._public(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.access_tokens:
            return Reply.problem(401, "unauthenticated", "Sign in first.")
        return self._api(request)

    def _public(self, request: Seen) -> Reply:
        log = self.log
        if log is None:
            return Reply.problem(404, "not_found")
        if request.path == "/v1/audit/keys":
            return Reply.of(log.keys())
        if request.path == "/v1/audit/checkpoint":
            if log.published is None:
                return Reply.problem(404, "not_found")
            return Reply(200, log.published.encode(), "text/plain; charset=utf-8")
        proof = log.consistency(int(request.query["from"]), int(request.query["to"]))
        return Reply.problem(404, "not_found") if proof is None else Reply.of(proof)

    def _metadata(self) -> dict[str, object]:
        return {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/oauth/authorize",
            "token_endpoint": f"{self.origin}/oauth/token",
            "revocation_endpoint": f"{self.origin}/oauth/revoke",
            "device_authorization_endpoint": f"{self.origin}/oauth/device_authorization",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }

    def _authorize(self, request: Seen) -> Reply:
        """The person clicks allow at once."""
        query = request.query
        assert query["client_id"] == "broker-cli"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.origin}
        if self.authorize_answer is not None:
            answer = self.authorize_answer(answer)
        location = f"{query['redirect_uri']}?{urlencode(answer)}"
        return Reply(303, headers={"Location": location})

    def _start_device_login(self, form: dict[str, str]) -> Reply:
        assert form["client_id"] == "broker-cli"
        answer: dict[str, object] = {
            "device_code": DEVICE_CODE,
            "user_code": USER_CODE,
            "verification_uri": f"{self.origin}/device",
            "verification_uri_complete": f"{self.origin}/device?user_code={USER_CODE}",
            "expires_in": 600,
            "interval": self.device_interval,
        }
        return Reply.of({**answer, **self.device_answer})

    def _token(self, form: dict[str, str]) -> Reply:
        if form["client_id"] != "broker-cli":
            return Reply.of({"error": "invalid_client"}, 400)
        if form["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code":
            assert form["device_code"] == DEVICE_CODE
            with self.lock:
                error = self.device_errors.pop(0) if self.device_errors else None
            if error is not None:
                return Reply.of({"error": error, "error_description": "No."}, 400)
            return Reply.of(self.new_pair())
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if (
                asked is None
                or asked["code_challenge"] != challenge
                or asked["redirect_uri"] != form["redirect_uri"]
            ):
                return Reply.of({"error": "invalid_grant"}, 400)
            return Reply.of(self.new_pair())
        with self.lock:
            if form["refresh_token"] != self.refresh_token:
                self.refresh_token = None  # reuse ends the family
                self.access_tokens = set()
                return Reply.of({"error": "invalid_grant", "error_description": "reused"}, 400)
            self.refreshes += 1
        self.closing.wait(self.delay)
        return Reply.of(self.new_pair())

    def _api(self, request: Seen) -> Reply:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/v1/me"): lambda _: Reply.of(ME),
            ("GET", "/v1/roles"): lambda _: Reply.of({"roles": ROLES}),
            ("POST", "/v1/mfa/verify"): self._verify,
            ("POST", "/v1/credentials"): self._credentials,
            ("GET", "/v1/access"): self._get_access,
            ("PUT", "/v1/access"): self._put_access,
            ("POST", "/v1/access/lint"): lambda _: Reply.of({"findings": []}),
            ("POST", "/v1/enrolment-codes"): lambda _: Reply.of(
                {"code": "ABCD-EFGH", "expires_at": "2026-01-02T03:04:05Z"}, 201
            ),
            ("GET", "/v1/audit/records"): self._records,
        }
        route = routes.get((request.method, request.path))
        return route(request) if route else Reply.problem(404, "not_found")

    def _verify(self, request: Seen) -> Reply:
        if request.json()["code"] != CODE:
            return Reply.problem(403, "mfa_required", "That code is wrong.")
        self.needs_factor = None
        return Reply.of({"mfa_time": "2026-01-02T03:04:05Z"})

    def _credentials(self, request: Seen) -> Reply:
        self.closing.wait(self.delay)
        if self.needs_factor:
            return Reply.problem(403, self.needs_factor, "Verify again.")
        return Reply.of(self.issued(request.json()))

    def _get_access(self, request: Seen) -> Reply:
        return Reply.of(self._policy()) if self.policy_version else Reply.problem(404, "not_found")

    def issued(self, asked: dict[str, Any]) -> dict[str, object]:
        expires = datetime.now(UTC) + self.lifetime
        expiration = self.expiration or expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        issuance = f"iss-{len(self.log.records) + 1}" if self.log else "iss-1"
        receipt = {"receipt": self.log.receipt(issuance)} if self.log else {}
        return {
            **receipt,
            "credentials": {**self.credentials, "expiration": expiration},
            "issuance_id": issuance,
            "role": asked["role"],
            "role_arn": "arn:aws:iam::111122223333:role/DataReader",
            "account_id": "111122223333",
            "region": self.region,
            "duration": {
                "requested": asked.get("duration"),
                "granted": int(self.lifetime.total_seconds()),
                "bound_by": "role_default",
                "limits": [],
                "chained": False,
            },
        }

    def _policy(self) -> dict[str, object]:
        return {
            "version": self.policy_version,
            "text": POLICY,
            "sha256": hashlib.sha256(POLICY.encode()).hexdigest(),
            "applied_at": "2026-01-02T03:04:05Z",
            "applied_by": "p-abcdefghij234567",
        }

    def _put_access(self, request: Seen) -> Reply:
        expected = f'"{self.policy_version}"' if self.policy_version else None
        if request.headers.get("if-match") != expected:
            return Reply.problem(412, "precondition_failed", "It changed meanwhile.")
        if self.needs_factor:
            return Reply.problem(403, self.needs_factor, "Verify again.")
        if request.query.get("dry_run") == "true":
            return Reply.of(
                {
                    "plan": {"roles_added": ["new"], "roles_removed": []},
                    "diff": self.diff,
                    "warnings": [],
                }
            )
        self.policy_version += 1
        return Reply.of({"version": self.policy_version})

    def _records(self, request: Seen) -> Reply:
        after, limit = int(request.query.get("after", 0)), 2
        found = [record for record in self.records if int(str(record["seq"])) > after]
        page = found[:limit]
        more = page[-1]["seq"] if len(page) == limit else None
        return Reply.of({"records": page, "next": more})


ME = {
    "id": "p-abcdefghij234567",
    "kind": "person",
    "handle": "alice@example.com",
    "email": "alice@example.com",
    "provider": "corp",
    "groups": ["corp/analysts"],
    "rights": [],
    "auth_time": "2026-01-02T03:04:05Z",
    "mfa_time": None,
    "session_expires_at": "2026-01-02T15:04:05Z",
}
ROLES = [
    {
        "name": "data-reader",
        "description": "Read one dataset",
        "account_id": "111122223333",
        "account_name": "Production",
        "role_arn": "arn:aws:iam::111122223333:role/DataReader",
        "availability": "standing",
        "max_duration": 5400,
        "parameters": {"bucket": {"allowed": ["reports"], "pattern": None, "default": None}},
        "grant_expires_at": None,
    }
]


def _form(request: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, broker: FakeBroker) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.broker = broker

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that refuse what they are sent hang up; that is no event here."""


class _Connection(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        request = Seen(
            self.command,
            parts.path,
            {name: values[0] for name, values in parse_qs(parts.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        reply = self.server.broker.answer(request)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body) + (100 if reply.truncate else 0)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        if reply.truncate:
            self.close_connection = True

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FakeBroker]:
    broker = FakeBroker()
    server = _Server(broker)
    scheme = "http"
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        scheme = "https"
    broker.origin = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield broker
    finally:
        broker.closing.set()  # no answer is held back any longer
        server.shutdown()
        server.server_close()
        thread.join()
