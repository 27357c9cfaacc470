"""One process at a time, by a lock on a file that the kernel drops when the process dies."""

# ruff: noqa: PLC0415 - imported where needed: start-up time is a feature of the client

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from broker.cli import paths
from broker.cli.failure import LocalFailure

if sys.platform != "win32":
    import fcntl

# Longer than any one request to the broker may take.
WAIT_SECONDS = 90.0
_POLL_SECONDS = 0.02


@contextmanager
def locked(directory: str, name: str) -> Iterator[None]:
    """Hold the lock `name` in `directory`. The file is empty, and stays: deleting it would let
    two holders lock two files of one name. Raises LocalFailure after WAIT_SECONDS.
    """
    paths.make_private_directory(directory)
    path = f"{directory}/{name}.lock"
    if sys.platform == "win32":
        with _locked_portably(path):
            yield
        return
    # flock itself, as filelock does on POSIX: importing filelock takes 60 ms.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _gave_up(path) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked_portably(path: str) -> Iterator[None]:
    import filelock

    try:
        with filelock.FileLock(path, timeout=WAIT_SECONDS):
            yield
    except filelock.Timeout:
        raise _gave_up(path) from None


def _gave_up(path: str) -> LocalFailure:
    return LocalFailure(f"another broker command has held {path} for {WAIT_SECONDS:.0f} s")
