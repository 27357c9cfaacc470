"""Cached answers of `broker credential-process`, found without parsing much.

Owns: what a request for credentials is made of (`Wanted`), the file format of a
cached answer, and when it may be served. Does not own: getting credentials
(`credentials`) or who holds the lock (`commands.credential_process`).

The file is five lines: format, the key in full, the login it belongs to, the
time it was made and the time until which it may be served, and the answer. So a
hit costs no JSON. Only builtin modules are imported here.
"""

from __future__ import annotations

import os
import sys
import time
import zlib

from broker.cli import paths

# SDKs refresh under 15 minutes; a credential with less left would be asked for on each call.
RESERVE_SECONDS = 15 * 60
_FORMAT = b"broker-credentials 1"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ROLE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_ORIGIN_CHARACTERS = _ROLE_CHARACTERS | frozenset(":/[]")


class Wanted:
    """What credentials are asked for: the parts of a request that change the answer."""

    __slots__ = ("duration", "parameters", "reason", "role")

    def __init__(
        self,
        role: str,
        duration: int | None = None,
        parameters: dict[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        self.role = role
        self.duration = duration
        self.parameters = parameters or {}
        self.reason = reason

    def key(self, origin: str) -> str:
        """One printable line that is equal only for equal requests to the same server."""
        parameters = sorted(self.parameters.items())
        return ascii((origin, self.role, self.duration, parameters, self.reason))


def is_role_name(text: str) -> bool:
    """`[a-z0-9][a-z0-9._-]{0,63}`."""
    return 0 < len(text) <= 64 and _ROLE_CHARACTERS.issuperset(text) and text[0] not in "._-"


def parse_duration(text: str) -> int:
    """Seconds of `45m`, `8h`, `3d` or `2700`. Raises ValueError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit() and len(number) <= 9 and int(number) > 0):
        raise ValueError(f"{text!r} is not a duration; write 45m, 8h, 3d or seconds")
    return int(number) * _UNITS[unit]


def answer(words: list[str]) -> bytes | None:
    """The cached answer for the words after `credential-process`; None sends the caller the
    long way, which also words every complaint.
    """
    wanted = _parse(words)
    if wanted is None:
        return None
    origin = os.environ.get("BROKER_SERVER") or _remembered()
    origin = origin.rstrip("/")
    if not _ORIGIN_CHARACTERS.issuperset(origin) or origin.count("/") != 2:
        return None
    login_id, _ = read_login(origin)
    if login_id is None:
        return None
    return read(origin, wanted, login_id, time.time())


def _parse(words: list[str]) -> Wanted | None:
    """Only the plain spellings; anything else is for the real parser."""
    options: dict[str, str] = {}
    parameters: dict[str, str] = {}
    role = None
    remaining = iter(words)
    for word in remaining:
        name, joined, value = word.partition("=")
        if name in ("--set", "--duration", "--reason"):
            if not joined:
                value = next(remaining, "")
            if name != "--set":
                if name in options:
                    return None
                options[name] = value
                continue
            parameter, equals, value = value.partition("=")
            if not equals or parameter in parameters:
                return None
            parameters[parameter] = value
        elif role is None and is_role_name(word):
            role = word
        else:
            return None
    if role is None:
        return None
    try:
        duration = parse_duration(options["--duration"]) if "--duration" in options else None
    except ValueError:
        return None
    return Wanted(role, duration, parameters, options.get("--reason"))


def _remembered() -> str:
    data = paths.read_private(paths.server_file())
    return data.decode("ascii", "replace").strip() if data else ""


def read_login(origin: str) -> tuple[str | None, str]:
    """This login's id and where its tokens are ("keyring" or "file"); (None, "") where there is
    none. The id is not a secret: it ties cached answers to the login they came from.
    """
    data = paths.read_private(f"{paths.login_directory(origin)}/login")
    words = data.decode("ascii", "replace").split() if data else []
    return (words[0], words[1]) if len(words) == 2 else (None, "")


def directory(origin: str) -> str:
    return f"{paths.login_directory(origin)}/cache"


def _path(origin: str, wanted: Wanted) -> str:
    # The checksum only spreads the names: the whole key stands in the file and is compared.
    checksum = zlib.crc32(wanted.key(origin).encode("ascii"))
    return f"{directory(origin)}/{wanted.role}-{checksum:08x}"


def read(origin: str, wanted: Wanted, login_id: str, now: float) -> bytes | None:
    """The cached answer, where it is this request's, this login's, and still good to serve."""
    data = paths.read_private(_path(origin, wanted))
    if data is None:
        return None
    lines = data.split(b"\n", 4)
    expected = [_FORMAT, wanted.key(origin).encode("ascii"), login_id.encode("ascii")]
    if len(lines) != 5 or lines[:3] != expected:
        return None
    made, _, serve_until = lines[3].partition(b" ")
    # A clock that went back would keep a dead credential alive.
    if not (made.isdigit() and serve_until.isdigit() and int(made) <= now < int(serve_until)):
        return None
    return lines[4]


def write(
    origin: str, wanted: Wanted, login_id: str, answer: bytes, *, now: float, expires_at: float
) -> None:
    """Keep an answer until RESERVE_SECONDS before `expires_at` (epoch seconds, as is `now`)."""
    serve_until = int(expires_at) - RESERVE_SECONDS
    if serve_until <= now:
        return
    head = (
        _FORMAT,
        wanted.key(origin).encode("ascii"),
        login_id.encode("ascii"),
        b"%d %d" % (int(now), serve_until),
        answer,
    )
    paths.write_private(_path(origin, wanted), b"\n".join(head))


def prune(origin: str, now: float, *, everything: bool = False) -> None:
    """Delete the answers that may not be served any more, or all of them."""
    try:
        names = os.listdir(directory(origin))  # noqa: PTH208 - pathlib costs start-up time
    except FileNotFoundError:
        return
    for name in names:
        path = f"{directory(origin)}/{name}"
        if everything or not _is_live(path, now):
            paths.remove(path)


def _is_live(path: str, now: float) -> bool:
    if path.endswith(".tmp"):
        return _is_recent(path, now)  # another process is about to rename it
    data = paths.read_private(path) or b""
    lines = data.split(b"\n", 4)
    serve_until = lines[3].partition(b" ")[2] if len(lines) == 5 else b""
    return serve_until.isdigit() and now < int(serve_until)


def _is_recent(path: str, now: float) -> bool:
    try:
        return now - os.stat(path).st_mtime < 60  # noqa: PTH116 - pathlib costs start-up time
    except FileNotFoundError:
        return True


def write_out(answer: bytes) -> None:
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
