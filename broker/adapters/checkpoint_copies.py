"""Places outside the database where the newest checkpoint is kept.

Owns a file, and a directory that only ever grows. Does not own when they are
written or what is done with them (`checkpoints`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FileCopy:
    """One file, replaced by each checkpoint: best on another host's file system."""

    path: Path

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    async def push(self, note: str) -> None:
        await asyncio.to_thread(_replace, self.path, note)

    async def latest(self) -> str | None:
        return await asyncio.to_thread(_read, self.path)


@dataclass(frozen=True, slots=True)
class DirectoryCopy:
    """A file for each checkpoint, never written again: for media that keep what they have."""

    path: Path

    @property
    def name(self) -> str:
        return f"directory:{self.path}"

    async def push(self, note: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{stamp}-{secrets.token_hex(4)}"
        await asyncio.to_thread(_replace, self.path / name, note)

    async def latest(self) -> str | None:
        return await asyncio.to_thread(self._latest)

    def _latest(self) -> str | None:
        if not self.path.is_dir():
            return None
        names = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        return _read(self.path / names[-1]) if names else None


def parse(reference: str) -> FileCopy | DirectoryCopy:
    """From `file:PATH` or `directory:PATH`. Raises ValueError."""
    kind, _, path = reference.partition(":")
    if not path or kind not in {"file", "directory"}:
        raise ValueError("write file:PATH or directory:PATH")
    return FileCopy(Path(path)) if kind == "file" else DirectoryCopy(Path(path))


def _replace(path: Path, note: str) -> None:
    """In one step, and on the disk before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(note.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
