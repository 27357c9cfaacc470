"""JSON Lines in a file that is rotated, or on standard output.

Owns the file: made readable by its owner alone, rotated by size, opened anew
when somebody else (logrotate) moved it, whole lines only, on the disk before a
batch counts as delivered. Does not own the lines.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.adapters.sinks.sink import Batch, DeliveryFailed, OwnThread

_TAIL = 64 * 1024
_LINE = b'{"'  # what every format's lines begin with
# What a pipe takes whole once it says that it takes anything (POSIX: at least 512).
_PIPE_PIECE = min(select.PIPE_BUF, 4096)
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Rotation:
    """At `max_bytes` the file becomes FILE.1 and so on; the newest `keep` of those stay."""

    max_bytes: int
    keep: int


class FileSink:
    """Lines are appended to `path`. Where a batch could not be written whole, none of it stays;
    what a killed process left of a line is cut away before the batch is written again.
    """

    def __init__(self, name: str, path: Path, rotation: Rotation | None) -> None:
        self._path = path
        self._rotation = rotation
        self._descriptor: int | None = None
        self._thread = OwnThread(name)

    async def deliver(self, batch: Batch) -> None:
        """Raises OSError and DeliveryFailed."""
        await self._thread.run(partial(self._write, batch.json_lines))

    async def aclose(self) -> None:
        """Close the file, unless a write to it hangs."""
        if not self._thread.busy:
            await self._thread.run(self._close)

    def _write(self, data: bytes) -> None:
        if self._descriptor is not None and not self._is_ours(self._descriptor):
            self._close()
        if self._descriptor is None:
            self._descriptor = self._open()
        try:
            size = os.fstat(self._descriptor).st_size
            if self._rotation and size and size + len(data) > self._rotation.max_bytes:
                self._rotate(self._rotation.keep)
                self._descriptor, size = self._open(), 0
            self._append(self._descriptor, data, size)
        except BaseException:
            self._close()
            raise

    def _is_ours(self, descriptor: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _open(self) -> int:
        # Not blocking: a FIFO put in its place must not hang the thread for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            _take(descriptor, self._path)
            _cut_torn_line(descriptor)
            _sync_folder(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @staticmethod
    def _append(descriptor: int, data: bytes, size: int) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            # Whoever else may have shortened it (logrotate's copytruncate) is not undone.
            os.ftruncate(descriptor, min(size, os.fstat(descriptor).st_size))
            raise

    def _rotate(self, keep: int) -> None:
        """FILE becomes FILE.1, FILE.1 becomes FILE.2, and what is over `keep` goes."""
        self._close()
        if keep == 0:
            self._path.unlink()
            return
        for number in range(keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class StdoutSink:
    """Lines on standard output, for whoever collects a container's output. A reader that does not
    read holds up nothing: what it has not taken within `seconds` is written again later.
    """

    def __init__(self, name: str, seconds: float, descriptor: int = 1) -> None:
        self._seconds = seconds
        self._descriptor = descriptor
        self._torn = False
        self._thread = OwnThread(name)

    async def deliver(self, batch: Batch) -> None:
        """Raises OSError and DeliveryFailed."""
        await self._thread.run(partial(self._write, batch.json_lines))

    async def aclose(self) -> None:
        """Standard output stays open."""

    def _write(self, data: bytes) -> None:
        # What was cut off in the middle of a line is ended, so that it spoils no other.
        view = memoryview(b"\n" + data if self._torn else data)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        deadline = time.monotonic() + self._seconds
        while view:
            if not poll.poll(_POLL_SECONDS * 1000):
                if time.monotonic() > deadline:
                    raise DeliveryFailed("nobody reads standard output")
                continue
            written = os.write(self._descriptor, view[:_PIPE_PIECE])
            self._torn = bytes(view[written - 1 : written]) != b"\n"
            view = view[written:]
        _sync_if_file(self._descriptor)


def _take(descriptor: int, path: Path) -> None:
    """Two that write to one file would cut off each other's lines; what is not a log would lose its
    end as half a line.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise DeliveryFailed(f"{path} is not a plain file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeliveryFailed(f"another process writes to {path}") from None
    # A mistyped path must not cost a database its last page.
    begins = os.pread(descriptor, len(_LINE), 0)
    if begins != _LINE[: len(begins)]:
        raise DeliveryFailed(f"{path} holds something else than records", refused=True)


def _cut_torn_line(descriptor: int) -> None:
    """A process that was killed may have left half a line, which is delivered again."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(end - _TAIL, 0)
        piece = os.pread(descriptor, end - start, start)
        found = piece.rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _sync_folder(path: Path) -> None:
    """So that a power cut does not undo a rename or a new name."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sync_if_file(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if fault.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):  # a pipe, a terminal
            raise
