"""Where the client keeps its files, and how it writes them.

Owns the directories, the file names in them, and private writes. Does not own
what the files say. On the path of every cached answer, hence no pathlib and no
platformdirs here where they can be avoided (20 ms).

    <config>/server                    one line: the broker's address
    <state>/<server>/login             one line: this login's id, and where its tokens are
    <state>/<server>/tokens.json       the tokens, where there is no keyring
    <state>/<server>/cache/            answers of credential-process
    <state>/<server>/log/              what was seen of the broker's log, and receipts
    <state>/<server>/locks/            empty files to lock
"""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import os
import sys

_NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
_BINARY: int = getattr(os, "O_BINARY", 0)


def config_directory() -> str:
    """BROKER_HOME, else what the platform says."""
    return os.environ.get("BROKER_HOME") or _platform_directory("XDG_CONFIG_HOME", ".config")


def state_directory() -> str:
    """BROKER_HOME, else what the platform says."""
    return os.environ.get("BROKER_HOME") or _platform_directory("XDG_STATE_HOME", ".local/state")


def _platform_directory(variable: str, default: str) -> str:
    """The same answers as platformdirs gives; it is asked only where they are less simple."""
    if sys.platform == "win32":
        import platformdirs

        return platformdirs.user_data_dir("broker", appauthor=False)
    home = os.environ.get("HOME") or _home_of_account()
    if sys.platform == "darwin":
        return f"{home}/Library/Application Support/broker"
    base = os.environ.get(variable, "")
    # The XDG specification: a relative path is invalid and is ignored.
    return f"{base}/broker" if base.startswith("/") else f"{home}/{default}/broker"


def _home_of_account() -> str:
    import pathlib

    return str(pathlib.Path.home())


def server_file() -> str:
    return f"{config_directory()}/server"


def login_directory(origin: str) -> str:
    """One directory a server. The name is injective: an origin holds no `/`, `_` or `%` of its own
    after the scheme.
    """
    return f"{state_directory()}/{origin.replace('://', '_').replace(':', '%3A')}"


def read_private(path: str, limit: int = 1024 * 1024) -> bytes | None:
    """The file's bytes; None where it is missing, too large, or others could have written or
    read it: what this client writes is always private.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_LINKS | _BINARY)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            return None
        if status.st_size > limit:
            return None
        return os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def make_private_directory(path: str) -> None:
    """Create it and its parents with mode 0700; what exists already is left as it is."""
    parent = path.rpartition("/")[0]
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102 - pathlib costs start-up time
    except FileExistsError:
        return
    except FileNotFoundError:
        if not parent:
            raise
        make_private_directory(parent)
        make_private_directory(path)


def write_private(path: str, data: bytes) -> None:
    """Replace the file in one step by one that never had a mode other than 0600.

    A reader sees the old bytes or the new ones; a crash leaves the old ones.
    """
    make_private_directory(path.rpartition("/")[0] or ".")
    temporary = f"{path}.{os.getpid()}-{os.urandom(6).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - pathlib costs start-up time
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - pathlib costs start-up time
        raise


def remove(path: str) -> None:
    """Delete the file; it need not exist."""
    try:
        os.unlink(path)  # noqa: PTH108 - pathlib costs start-up time
    except FileNotFoundError:
        return
