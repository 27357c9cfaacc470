"""A logged-in client: the API with a token that is kept fresh.

Owns: when to refresh, that parallel processes refresh once, one retry after a
401, and asking for a second factor. Refresh tokens rotate and a reused one ends
the login, so they are exchanged under a lock and the loser reads what the
winner stored. The old token stays stored until the new one is: the server takes
it for 60 s more, in case a reply is lost.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping

from broker.cli import answers, cached, lock, oauth, paths, terminal, tokens
from broker.cli.failure import NotLoggedIn, SecondFactorNeeded
from broker.cli.server import Server
from broker.cli.tokens import Tokens
from broker.cli.transport import Answer, Transport

_REFRESH_BEFORE_SECONDS = 60
_CODE = re.compile(r"[0-9]{6}", re.ASCII)


class Session:
    """Calls the API as the person who is logged in. `may_ask` allows asking for a code."""

    def __init__(self, server: Server, *, debug: bool = False, may_ask: bool = True) -> None:
        self.server = server
        self._transport = Transport(server, debug=debug)
        self._may_ask = may_ask

    @property
    def login_id(self) -> str:
        """Raises NotLoggedIn."""
        login_id, _ = cached.read_login(self.server.origin)
        if login_id is None:
            raise _not_logged_in(self.server)
        return login_id

    def get(self, target: str) -> dict[str, object]:
        return answers.members(self.send("GET", target))

    def post(self, target: str, value: Mapping[str, object]) -> dict[str, object]:
        body = json.dumps(value).encode("ascii")
        return answers.members(self.send("POST", target, body=body))

    def send(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer; where it asks for a second factor and a person is there to ask, the one
        after they gave it.
        """
        answer = self._send(method, target, body, headers)
        if answer.status == 403 and self._may_ask and terminal.is_interactive():
            needed = answers.failure_of(answer)
            if isinstance(needed, SecondFactorNeeded):
                terminal.note(f"broker: {needed}")
                self.verify_factor(terminal.ask_code())
                answer = self._send(method, target, body, headers)
        return answer

    def stream(self, target: str) -> Iterator[bytes]:
        """The body of a GET, in pieces. Raises before the first where it is refused."""
        token = self._access_token()
        answer, pieces = self._transport.stream("GET", target, headers=_bearer(token))
        if answer.status == 401:
            token = self._access_token(rejected=token)
            answer, pieces = self._transport.stream("GET", target, headers=_bearer(token))
        if answer.status != 200:
            raise answers.failure_of(answer)
        return pieces

    def verify_factor(self, code: str) -> None:
        """Raise the login session by a code. Raises SecondFactorNeeded, or what else the
        broker refuses it with.
        """
        code = code.replace(" ", "")
        if not _CODE.fullmatch(code):
            raise SecondFactorNeeded("mfa_required", "a code is six digits")
        body = json.dumps({"code": code}).encode("ascii")
        answer = self._send("POST", "/v1/mfa/verify", body, None)
        if not 200 <= answer.status < 300:
            raise answers.failure_of(answer)

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Answer:
        base = {"Content-Type": "application/json"} if body is not None else {}
        sent = {**base, **(headers or {})}
        token = self._access_token()
        answer = self._transport.request(
            method, target, body=body, headers={**sent, **_bearer(token)}
        )
        if answer.status == 401:
            token = self._access_token(rejected=token)
            answer = self._transport.request(
                method, target, body=body, headers={**sent, **_bearer(token)}
            )
        return answer

    def _access_token(self, *, rejected: str | None = None) -> str:
        """A token that should be good; never the one that was just rejected."""
        current = _logged_in(self.server)
        if _is_fresh(current, rejected):
            return current.access_token
        with lock.locked(f"{paths.login_directory(self.server.origin)}/locks", "login"):
            current = _logged_in(self.server)
            if not _is_fresh(current, rejected):
                current = self._refreshed(current)
        return current.access_token

    def _refreshed(self, current: Tokens) -> Tokens:
        try:
            grant = oauth.refresh(self._transport, current.token_path, current.refresh_token)
        except oauth.GrantRefused as refusal:
            if refusal.code != "invalid_grant":
                raise
            tokens.forget(self.server)
            raise NotLoggedIn("your login has ended: run `broker login`") from None
        renewed = current._replace(
            access_token=grant.access_token,
            access_expires_at=grant.expires_at,
            refresh_token=grant.refresh_token,
        )
        tokens.replace(self.server, renewed)
        return renewed


def _logged_in(server: Server) -> Tokens:
    current = tokens.load(server)
    if current is None:
        raise _not_logged_in(server)
    return current


def _not_logged_in(server: Server) -> NotLoggedIn:
    return NotLoggedIn(f"not logged in to {server.origin}: run `broker login`")


def _is_fresh(current: Tokens, rejected: str | None) -> bool:
    return (
        current.access_token != rejected
        and current.access_expires_at - time.time() >= _REFRESH_BEFORE_SECONDS
    )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
