"""A file of keys: mode 0600, created once, rewritten as a whole or not at all.

Owns how such a file is created, read and replaced safely. Does not own what is
in it (`sealing`, `signing`).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker.adapters.secret_mode import others_may_read
from broker.errors import StartupError

MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeyFile:
    """`what` names it in messages ("sealing key file"); `cure` says what to do where it is not
    there.
    """

    path: Path
    what: str
    cure: str

    def create(self, content: bytes) -> None:
        """Raises StartupError where the file is there already, or can't be written."""
        staging = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _staged(staging) as file:
                file.write(content)
                _flush(file)
                # A link, unlike a rename, never replaces what is there.
                os.link(staging, self.path)
            staging.unlink()
        except FileExistsError:
            raise StartupError(f"The {self.what} {self.path} exists already.") from None
        except OSError as error:
            raise StartupError(f"Can't write the {self.what} {self.path}: {error}.") from error
        _sync_directory(self.path.parent)

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """Replace the content: all or nothing, even if the host dies meanwhile.

        Raises StartupError as `read`, or while another rotation is under way.
        """
        staging = self.path.with_name(f"{self.path.name}.new")
        try:
            # The staging file is the lock: the file is read while it is held, or of two
            # rotations the later would drop the earlier one's key.
            with _staged(staging) as file:
                file.write(change(self.read()))
                _flush(file)
                staging.replace(self.path)
        except FileExistsError:
            raise StartupError(
                f"Another rotation is under way; if none is, remove {staging} and try again."
            ) from None
        except OSError as error:
            raise StartupError(f"Can't write {staging}: {error}.") from error
        _sync_directory(self.path.parent)

    def read(self) -> bytes:
        """Raises StartupError, which names the cure, where it is absent or others can read it."""
        try:
            # Not blocking: a pipe in its place would hang the start.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise StartupError(f"The {self.what} {self.path} is not there. {self.cure}") from None
        except OSError as error:
            raise StartupError(f"Can't read the {self.what} {self.path}: {error}.") from error
        try:
            # Of the open file, not of the path: nobody can swap it in between.
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StartupError(f"The {self.what} {self.path} is not a regular file.")
            if others_may_read(status):
                raise StartupError(
                    f"The {self.what} {self.path} can be read by others (mode"
                    f" {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {self.path}"
                )
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(content) > MAX_BYTES:
            raise self.damaged()
        return content

    def damaged(self) -> StartupError:
        """For content that does not read: raised without its cause, which may quote the file."""
        return StartupError(f"The {self.what} {self.path} is damaged; restore it from your backup.")


@contextmanager
def _staged(path: Path) -> Iterator[BinaryIO]:
    """A new file, never readable by others, that is removed again where the block fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        # Not on success: renamed by then, and the name may be another rotation's lock.
        path.unlink(missing_ok=True)
        raise


def _flush(file: BinaryIO) -> None:
    """What was written is on the disk before this returns."""
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
