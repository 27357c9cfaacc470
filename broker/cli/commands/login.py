"""`broker login` and `broker logout`: RFC 8252 in the system's browser, else RFC 8628."""

from __future__ import annotations

import argparse
import base64
import hashlib
import secrets
import threading
import webbrowser
from urllib.parse import urlencode

from broker.cli import cached, device, lock, oauth, paths, server, tokens, witness
from broker.cli.command import Command, no_arguments
from broker.cli.failure import Failure, LocalFailure, Refused
from broker.cli.loopback import Listener
from broker.cli.oauth import Endpoints, Grant
from broker.cli.server import Server
from broker.cli.terminal import clean, note
from broker.cli.tokens import Tokens
from broker.cli.transport import Transport

LOGIN_SECONDS = 300.0


def configure_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", help="the broker's address; remembered")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--device",
        action="store_true",
        help="log in with a browser elsewhere, by a code (by itself where there is none here)",
    )
    how.add_argument(
        "--no-browser",
        action="store_true",
        help="open no browser, only print the address to open on this machine",
    )
    parser.add_argument(
        "--accept-rollback",
        action="store_true",
        help="go on with a log that is not the one seen before; what was seen is put aside",
    )


def login(arguments: argparse.Namespace) -> int:
    """Discovery, the browser, the code, the tokens; then the old login of this server is ended."""
    broker = server.find(arguments.server)
    transport = Transport(broker, debug=arguments.debug)
    endpoints = oauth.discover(transport, broker)
    grant = _grant(transport, broker, endpoints, arguments)
    login_id = secrets.token_hex(16)
    fresh = Tokens(
        login_id,
        grant.access_token,
        grant.expires_at,
        grant.refresh_token,
        endpoints.token,
        endpoints.revoke,
    )
    with lock.locked(f"{paths.login_directory(broker.origin)}/locks", "login"):
        previous = _previous(broker)
        tokens.save_login(broker, fresh)
    server.remember(broker)
    if previous is not None and previous.revoke_path is not None:
        _revoke_quietly(transport, previous)
    note(f"Logged in to {broker.origin}.")
    if arguments.accept_rollback:
        aside = witness.forget(broker)
        if aside is not None:
            note(f"What was known of the broker's log is in {aside}; it is seen anew.")
    witness.check(broker, debug=arguments.debug)
    return 0


def _grant(
    transport: Transport, broker: Server, endpoints: Endpoints, arguments: argparse.Namespace
) -> Grant:
    if arguments.device and endpoints.device is None:
        raise Refused(
            "unauthorized_client",
            "this broker does not offer logins by a code: use `broker login --no-browser`, and "
            "forward the port it shows to where your browser is",
        )
    if endpoints.device is not None and (
        arguments.device or not (arguments.no_browser or device.has_browser())
    ):
        return device.log_in(transport, broker, endpoints.device, endpoints.token)
    return _authorize(transport, broker, endpoints, open_browser=not arguments.no_browser)


def _authorize(
    transport: Transport, broker: Server, endpoints: Endpoints, *, open_browser: bool
) -> Grant:
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    with Listener(state) as listener:
        query = {
            "response_type": "code",
            "client_id": oauth.CLIENT_ID,
            "redirect_uri": listener.redirect_uri,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
            "code_challenge_method": "S256",
        }
        url = f"{broker.origin}{endpoints.authorize}?{urlencode(query)}"
        note(f"Log in at this address, in a browser on this machine:\n\n  {url}\n")
        if open_browser:
            # A browser in the terminal runs until it is closed: the wait must not be behind it.
            threading.Thread(target=_open_browser, args=(url,), daemon=True).start()
        callback = listener.wait(LOGIN_SECONDS)
        redirect_uri = listener.redirect_uri
    if callback.issuer != broker.origin and (
        callback.issuer is not None or endpoints.always_names_issuer
    ):
        raise Refused("login_rejected", "the answer came from another issuer than this broker")
    if callback.error is not None or callback.code is None:
        raise Refused("access_denied", f"the login was not allowed ({clean(callback.error, 64)})")
    return oauth.redeem(
        transport, endpoints.token, code=callback.code, verifier=verifier, redirect_uri=redirect_uri
    )


def _open_browser(url: str) -> None:
    try:
        webbrowser.open(url)
    except (webbrowser.Error, OSError):
        note("broker: no browser could be started; open the address yourself")


def _previous(broker: Server) -> Tokens | None:
    try:
        return tokens.load(broker)
    except LocalFailure:
        return None


def _revoke_quietly(transport: Transport, previous: Tokens) -> None:
    """The earlier login would live on for hours unseen; failing to end it fails nothing else."""
    try:
        oauth.revoke(transport, previous.revoke_path or "", previous.refresh_token)
    except Failure as failure:
        note(f"broker: the earlier login was not ended: {failure}")


def logout(arguments: argparse.Namespace) -> int:
    """Deletes what is kept here first, so that an unreachable broker changes nothing of that."""
    broker = server.find()
    if cached.read_login(broker.origin)[0] is None:
        note(f"Not logged in to {broker.origin}.")
        return 0
    with lock.locked(f"{paths.login_directory(broker.origin)}/locks", "login"):
        current = _previous(broker)
        tokens.forget(broker)
    if current is not None and current.revoke_path is not None:
        transport = Transport(broker, debug=arguments.debug)
        try:
            oauth.revoke(transport, current.revoke_path, current.refresh_token)
        except Failure as failure:
            note("broker: logged out here; on the broker the login ends by itself within hours")
            raise failure from None
    note(f"Logged out of {broker.origin}.")
    return 0


COMMANDS = {
    "login": Command(
        "Log in with your browser. The broker is remembered, and the login is kept in the "
        "keyring, or in a private file where there is none. On a machine without a browser, "
        "log in with any other one's: by an address and a code.",
        "  broker login --server https://broker.example.com\n"
        "  broker login                 # the same broker again\n"
        "  broker login --device        # with the browser of another machine\n"
        "  broker login --no-browser    # print the address only",
        configure_login,
        login,
    ),
    "logout": Command(
        "End the login on the broker, and delete its tokens and cached credentials here.",
        "  broker logout",
        no_arguments,
        logout,
    ),
}
