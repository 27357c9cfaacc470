"""Where the tokens of a login are kept: the operating system's keyring, else a private file.

Owns storage alone; what tokens are for is `session`'s. A keyring that fails, or
that does not answer, makes `login` fall back to the file; the login then
remembers which of the two holds its tokens, so that later commands need not
look for a keyring. With BROKER_HOME set, or BROKER_KEYRING=off, it is the file.
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from broker.cli import cached, paths
from broker.cli.failure import LocalFailure
from broker.cli.server import Server

_SERVICE = "credential-broker"
# A locked keyring may ask its person on a screen that nobody looks at.
_KEYRING_SECONDS = 15.0
T = TypeVar("T")


class Tokens(NamedTuple):
    """The tokens of one login. `access_expires_at` is epoch seconds."""

    login_id: str
    access_token: str
    access_expires_at: float
    refresh_token: str
    token_path: str
    revoke_path: str | None

    def __repr__(self) -> str:
        return f"Tokens({self.login_id}, …)"

    def dump(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def parse(cls, text: str | bytes) -> Tokens | None:
        """None where it is not what `dump` writes."""
        try:
            value = json.loads(text)
            tokens = cls(**value)
        except (ValueError, TypeError):
            return None
        return tokens if tokens.is_well_formed() else None

    def is_well_formed(self) -> bool:
        """JSON may hold anything."""
        values: tuple[object, ...] = tuple(self)
        login_id, access, expires_at, refresh, token_path, revoke_path = values
        return (
            all(isinstance(item, str) for item in (login_id, access, refresh, token_path))
            and isinstance(revoke_path, str | None)
            and isinstance(expires_at, int | float)
        )


class KeyringSilent(Exception):
    """The keyring failed or did not answer. Its text names the kind of failure alone."""


def load(server: Server) -> Tokens | None:
    """The tokens of the current login; None where there is none.

    Raises LocalFailure where they are in a keyring that does not answer.
    """
    login_id, place = cached.read_login(server.origin)
    if login_id is None:
        return None
    if place == "keyring":
        try:
            stored: str | bytes | None = _keyring_get(server.origin)
        except KeyringSilent as silent:
            raise LocalFailure(
                f"the keyring that holds your login does not answer ({silent}): unlock it, or "
                "set BROKER_KEYRING=off and run `broker login` to use a private file"
            ) from None
    else:
        stored = paths.read_private(_file(server))
    tokens = Tokens.parse(stored) if stored else None
    return tokens if tokens is not None and tokens.login_id == login_id else None


def save_login(server: Server, tokens: Tokens) -> None:
    """Store a new login. Cached answers of an earlier one die with it."""
    place = "file"
    if _may_use_keyring():
        try:
            _keyring_set(server.origin, tokens.dump())
            place = "keyring"
        except KeyringSilent:
            place = "file"
    if place == "file":
        paths.write_private(_file(server), tokens.dump().encode("ascii"))
    else:
        paths.remove(_file(server))
    cached.prune(server.origin, 0, everything=True)
    paths.write_private(_login_file(server), f"{tokens.login_id} {place}\n".encode("ascii"))


def replace(server: Server, tokens: Tokens) -> None:
    """Store the next tokens of the same login, where its tokens are. Raises LocalFailure."""
    _, place = cached.read_login(server.origin)
    if place != "keyring":
        paths.write_private(_file(server), tokens.dump().encode("ascii"))
        return
    try:
        _keyring_set(server.origin, tokens.dump())
    except KeyringSilent as silent:
        raise LocalFailure(
            f"the keyring did not take the refreshed login ({silent}): unlock it and try again"
        ) from None


def forget(server: Server) -> None:
    """Delete the login, its tokens and its cached answers."""
    _, place = cached.read_login(server.origin)
    paths.remove(_login_file(server))  # first: from here on nobody is logged in
    paths.remove(_file(server))
    cached.prune(server.origin, 0, everything=True)
    if place == "keyring":
        try:
            _keyring_delete(server.origin)
        except KeyringSilent as silent:
            raise LocalFailure(
                f"you are logged out, but the keyring did not delete the old token ({silent})"
            ) from None


def _file(server: Server) -> str:
    return f"{paths.login_directory(server.origin)}/tokens.json"


def _login_file(server: Server) -> str:
    return f"{paths.login_directory(server.origin)}/login"


def _may_use_keyring() -> bool:
    return not os.environ.get("BROKER_HOME") and os.environ.get("BROKER_KEYRING") != "off"


def _keyring_get(origin: str) -> str | None:
    return _ask_keyring(lambda keyring: keyring.get_password(_SERVICE, origin))


def _keyring_set(origin: str, secret: str) -> None:
    def store(keyring: _Keyring) -> None:
        keyring.set_password(_SERVICE, origin, secret)
        if keyring.get_password(_SERVICE, origin) != secret:
            raise KeyringSilent("it forgot what it was given")

    _ask_keyring(store)


def _keyring_delete(origin: str) -> None:
    _ask_keyring(lambda keyring: keyring.delete_password(_SERVICE, origin))


class _Keyring:
    """A usable backend: keyring calls those under priority 1 not recommended, and its own
    placeholders for "none" are among them.
    """

    def __init__(self) -> None:
        try:
            import keyring
        except ImportError:
            raise KeyringSilent("the keyring package is not installed") from None
        backend = keyring.get_keyring()
        if backend.priority < 1:
            raise KeyringSilent("there is no keyring here")
        self.get_password: Callable[[str, str], str | None] = backend.get_password
        self.set_password: Callable[[str, str, str], None] = backend.set_password
        self.delete_password: Callable[[str, str], None] = backend.delete_password


def _ask_keyring(question: Callable[[_Keyring], T]) -> T:
    """Ask in a thread that can be left behind: a backend may wait for ever on a bus or a dialog.
    Raises KeyringSilent.
    """
    results: list[T] = []
    faults: list[str] = []

    def ask() -> None:
        try:
            results.append(question(_Keyring()))
        except KeyringSilent as silent:
            faults.append(str(silent))
        # A backend is a plug-in and may raise anything; its text may hold what it was given.
        except Exception as fault:  # noqa: BLE001
            faults.append(type(fault).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_KEYRING_SECONDS)
    if results:
        return results[0]
    raise KeyringSilent(faults[0] if faults else "no answer in time")
