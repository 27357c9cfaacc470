"""Where an export and its checkpoint come from: a file, standard input, or a URL."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from broker.cli import answers, audit_evidence, cached
from broker.cli.failure import WrongUsage
from broker.cli.server import Server
from broker.cli.session import Session
from broker.cli.transport import Transport

EXPORT_PATH = "/v1/audit/export"
_CHUNK = 256 * 1024
_URL = re.compile(r"(?P<origin>https?://[^/?#@\s]+)(?P<target>/[!-~]*)?", re.IGNORECASE)


@contextmanager
def opened(source: str, *, debug: bool = False) -> Iterator[Iterable[bytes]]:
    """The export in chunks. A URL without a path means that broker's whole log. Raises
    WrongUsage where a file can't be read.
    """
    if source.lower().startswith(("http://", "https://")):
        yield _fetched(source, debug=debug)
        return
    if source == "-":
        yield _read(sys.stdin.buffer)
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below; errors of opening alone are usage
    except OSError as error:
        raise WrongUsage(f"{source}: {error.strerror}") from None
    with file:
        yield _read(file)


def checkpoint(source: str, *, debug: bool = False) -> list[str]:
    """The signed note that belongs to it: beside a file, in a directory, of a broker."""
    if source == "-":
        return []
    if source.lower().startswith(("http://", "https://")):
        broker, target = _address(source)
        if target != EXPORT_PATH:
            return []
        transport = Transport(broker, debug=debug)
        return audit_evidence.note_answered(
            transport.request("GET", audit_evidence.CHECKPOINT_PATH)
        )
    path = Path(source)
    if path.is_dir():
        signed = path / "checkpoint"
        return [audit_evidence.note_file(signed)] if signed.is_file() else []
    return audit_evidence.note_beside(path)


def _read(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _address(url: str) -> tuple[Server, str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise WrongUsage(f"{url!r} is not an address that can be fetched")
    target = match["target"] or "/"
    return Server.parse(match["origin"]), EXPORT_PATH if target == "/" else target


def _fetched(url: str, *, debug: bool) -> Iterable[bytes]:
    broker, target = _address(url)
    # The token goes to the broker it is from, and there to its API alone.
    if target.startswith("/v1/") and cached.read_login(broker.origin)[0] is not None:
        return Session(broker, debug=debug).stream(target)
    answer, pieces = Transport(broker, debug=debug).stream("GET", target)
    if answer.status != 200:
        raise answers.failure_of(answer)
    return pieces
