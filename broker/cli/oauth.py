"""The OAuth 2.0 grants the client uses: authorization code with PKCE, device code, refresh.

RFC 8414 for where the endpoints are, RFC 7636 for PKCE, RFC 6749 for the token
endpoint, RFC 8628 for device codes, RFC 7009 for revocation. Does not own the
browser (`loopback`), what a device login looks like (`device`), nor where tokens
are kept (`tokens`).
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple
from urllib.parse import urlencode

from broker.cli import answers
from broker.cli.failure import Failure, Refused, Unreachable
from broker.cli.server import Server
from broker.cli.terminal import clean
from broker.cli.transport import Answer, Transport

CLIENT_ID = "broker-cli"
DEVICE_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
METADATA_PATH = "/.well-known/oauth-authorization-server"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{1,200}")
_ERROR = re.compile(r"[a-z_]{1,64}")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Endpoints(NamedTuple):
    """Paths on the broker's own origin."""

    authorize: str
    token: str
    revoke: str | None
    device: str | None
    always_names_issuer: bool  # RFC 9207: each authorization response carries `iss`


class Grant(NamedTuple):
    """What the token endpoint gave. `expires_at` is epoch seconds of this machine's clock."""

    access_token: str
    refresh_token: str
    expires_at: float

    def __repr__(self) -> str:
        return "Grant(…)"


class GrantRefused(Refused):
    """An error answer of the token endpoint (RFC 6749 section 5.2)."""


def discover(transport: Transport, server: Server) -> Endpoints:
    """Read the metadata. The issuer must be this server, and each endpoint on it: a document
    that points elsewhere would have the code and the tokens sent there.
    """
    document = answers.members(transport.request("GET", METADATA_PATH))
    issuer = answers.text(document, "issuer")
    if issuer != server.origin:
        raise Unreachable(
            f"the broker at {server.origin} calls itself {clean(issuer, 200)}: log in with "
            "that address if it is yours"
        )
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        raise answers.not_a_broker("it does not offer PKCE with S256")
    return Endpoints(
        path_on(server, answers.text(document, "authorization_endpoint")),
        path_on(server, answers.text(document, "token_endpoint")),
        _optional_path(server, document.get("revocation_endpoint")),
        _optional_path(server, document.get("device_authorization_endpoint")),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def _optional_path(server: Server, url: object) -> str | None:
    return path_on(server, url) if isinstance(url, str) else None


def path_on(server: Server, url: str) -> str:
    """The path of a URL that must be on this very server. Raises Unreachable."""
    path = url.removeprefix(server.origin)
    if path == url or not _PATH.fullmatch(path):
        raise answers.not_a_broker(f"its endpoint {clean(url, 200)} is not on {server.origin}")
    return path


def redeem(
    transport: Transport, token_path: str, *, code: str, verifier: str, redirect_uri: str
) -> Grant:
    """Exchange the authorization code. Raises GrantRefused."""
    return _grant(
        transport,
        token_path,
        {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        },
    )


def start_device_login(transport: Transport, path: str, host_name: str) -> dict[str, object]:
    """The members of the device authorization response (RFC 8628 section 3.2), unchecked.

    Raises GrantRefused.
    """
    form = {"client_id": CLIENT_ID, "host_name": host_name[:64]}
    answer = _post(transport, path, form)
    if answer.status != 200:
        raise _refusal(answer)
    return answers.members(answer)


def redeem_device_code(transport: Transport, token_path: str, device_code: str) -> Grant:
    """One poll. Raises GrantRefused, also for "not yet" (RFC 8628 section 3.5)."""
    return _grant(
        transport, token_path, {"grant_type": DEVICE_GRANT_TYPE, "device_code": device_code}
    )


def refresh(transport: Transport, token_path: str, refresh_token: str) -> Grant:
    """Exchange the refresh token for the next pair. Raises GrantRefused."""
    return _grant(
        transport, token_path, {"grant_type": "refresh_token", "refresh_token": refresh_token}
    )


def revoke(transport: Transport, revoke_path: str, token: str) -> None:
    """End the login session on the broker. Raises a Failure where it did not answer 200."""
    form = {"token": token, "token_type_hint": "refresh_token", "client_id": CLIENT_ID}
    answer = _post(transport, revoke_path, form)
    if answer.status != 200:
        raise _refusal(answer)


def _grant(transport: Transport, path: str, form: dict[str, str]) -> Grant:
    asked_at = time.time()
    answer = _post(transport, path, {**form, "client_id": CLIENT_ID})
    if answer.status != 200:
        raise _refusal(answer)
    value = answers.members(answer)
    access, lifetime = answers.text(value, "access_token"), value.get("expires_in")
    refreshed = answers.text(value, "refresh_token")
    if not (_TOKEN.fullmatch(access) and _TOKEN.fullmatch(refreshed)):
        raise answers.not_a_broker("its tokens hold characters that no token has")
    if answers.text(value, "token_type").lower() != "bearer":
        raise answers.not_a_broker("its token is not a bearer token")
    if type(lifetime) is not int or not 0 < lifetime <= 86400:
        raise answers.not_a_broker("its token has no lifetime")
    return Grant(access, refreshed, asked_at + lifetime)


def _post(transport: Transport, path: str, form: dict[str, str]) -> Answer:
    return transport.request(
        "POST", path, body=urlencode(form, errors="replace").encode("ascii"), headers=_FORM
    )


def _refusal(answer: Answer) -> Failure:
    """RFC 6749's error shape, or a problem."""
    try:
        value = answer.json() if answer.content_type == "application/json" else None
    except ValueError:
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(error, str) or not _ERROR.fullmatch(error):
        return answers.failure_of(answer)
    return GrantRefused(error, clean(value.get("error_description") or "no reason given", 500))
