"""Logging in without a browser on this machine: the device flow (RFC 8628).

Owns: starting it, what the person is shown, and polling at the pace the broker
asks for. Does not own the token endpoint (`oauth`) nor where tokens are kept.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import os
import re
import socket
import sys
import time
from typing import NamedTuple

from broker.cli import answers, oauth, qr
from broker.cli.failure import NotLoggedIn, Refused, Unreachable
from broker.cli.oauth import Grant, GrantRefused
from broker.cli.server import Server
from broker.cli.terminal import for_people, note
from broker.cli.transport import Transport

_DEVICE_CODE = re.compile(r"[A-Za-z0-9._~-]{16,512}")
_USER_CODE = re.compile(r"[A-Z0-9]{2,16}(?:-[A-Z0-9]{2,16}){0,3}")
_DEFAULT_INTERVAL = 5  # RFC 8628 section 3.2
_LONGEST_INTERVAL = 60
_SLOWED_BY = 5
_LONGEST_WAIT = 1800
# Answers that say "not now" (RFC 6749 names none for a busy token endpoint).
_BUSY = ("temporarily_unavailable", "server_error")


class Waiting(NamedTuple):
    """A login that was started. `lifetime` and `interval` are seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    complete_uri: str  # with the code in it
    lifetime: int
    interval: int

    def __repr__(self) -> str:
        return "Waiting(…)"


def has_browser() -> bool:
    """Whether a browser here would be one that the person sees.

    BROWSER says so by itself (remote editors set it to reach the person's own); over SSH, and
    on Linux without a display, whatever is installed would open out of sight.
    """
    if os.environ.get("BROWSER"):
        return True
    if os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform not in ("darwin", "win32") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    import webbrowser

    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def log_in(transport: Transport, broker: Server, device_path: str, token_path: str) -> Grant:
    """Start, tell the person, and poll until they decide. Raises GrantRefused, NotLoggedIn."""
    waiting = _start(transport, broker, device_path)
    _show(waiting)
    return _poll(transport, token_path, waiting)


def _start(transport: Transport, broker: Server, device_path: str) -> Waiting:
    value = oauth.start_device_login(transport, device_path, socket.gethostname())
    device_code, user_code = answers.text(value, "device_code"), answers.text(value, "user_code")
    if not _DEVICE_CODE.fullmatch(device_code) or not _USER_CODE.fullmatch(user_code):
        raise answers.not_a_broker("its codes hold characters that no code has")
    # Shown to be opened: it must be this broker's own, whatever the answer says.
    page = oauth.path_on(broker, answers.text(value, "verification_uri"))
    uri = f"{broker.origin}{page}"
    return Waiting(
        device_code,
        user_code,
        uri,
        f"{uri}?user_code={user_code}",
        _seconds(value.get("expires_in"), None, _LONGEST_WAIT),
        _seconds(value.get("interval"), _DEFAULT_INTERVAL, _LONGEST_INTERVAL),
    )


def _seconds(value: object, default: int | None, most: int) -> int:
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 1:
        raise answers.not_a_broker("a time in it is not a number of seconds")
    return min(value, most)


def _show(waiting: Waiting) -> None:
    note(
        "Log in with a browser, on this machine or any other. Open\n\n"
        f"  {waiting.verification_uri}\n\n"
        f"and type the code\n\n  {waiting.user_code}\n"
    )
    code = qr.for_terminal(waiting.complete_uri)
    if code is not None:
        note(f"{code}\n")
    note(f"Waiting for up to {for_people(waiting.lifetime)}; Ctrl-C gives up.")


def _poll(transport: Transport, token_path: str, waiting: Waiting) -> Grant:
    """Raises GrantRefused where the person denied, NotLoggedIn where nobody decided in time."""
    interval = waiting.interval
    ends = time.monotonic() + waiting.lifetime
    lost: Unreachable | None = None
    while time.monotonic() + interval < ends:
        time.sleep(interval)
        try:
            return oauth.redeem_device_code(transport, token_path, waiting.device_code)
        except GrantRefused as refusal:
            lost = None
            interval = _next_interval(refusal, interval)
        except Unreachable as failure:
            # RFC 8628 section 3.5: less often after a time-out; the person may still decide.
            if lost is None:
                note(f"broker: {failure}; still trying")
            lost = failure
            interval = min(2 * interval, _LONGEST_INTERVAL)
    if lost is not None:
        raise lost
    raise _too_late()


def _next_interval(refusal: GrantRefused, interval: int) -> int:
    """Raises what ends the wait."""
    match refusal.code:
        case "authorization_pending":
            return interval
        case "slow_down":
            return min(interval + _SLOWED_BY, _LONGEST_INTERVAL)
        case code if code in _BUSY:
            return min(2 * interval, _LONGEST_INTERVAL)
        case "expired_token":
            raise _too_late() from None
        case "access_denied":
            raise Refused("access_denied", "the login was denied in the browser") from None
        case _:
            raise refusal


def _too_late() -> NotLoggedIn:
    return NotLoggedIn("nobody allowed the login in time: run `broker login` again")
