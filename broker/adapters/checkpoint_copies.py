"""Places outside the database where the newest checkpoint is kept.

Owns a file, a directory that only ever grows, and an S3 bucket with Object Lock.
Does not own when they are written (`copying`) or what is made of them (`rollback`),
nor witnesses (`witness`).
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

RETENTION = timedelta(days=400)

_MAX_BYTES = 64 * 1024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


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
        await asyncio.to_thread(_replace, self.path / _new_name(datetime.now(UTC)), note)

    async def latest(self) -> str | None:
        return await asyncio.to_thread(self._latest)

    def _latest(self) -> str | None:
        if not self.path.is_dir():
            return None
        names = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        return _read(self.path / names[-1]) if names else None


@dataclass(frozen=True, slots=True)
class S3Copy:
    """An object for each checkpoint, locked until its retention ends, when not even the account's
    root may delete it (Object Lock, compliance mode). The bucket must have Object Lock enabled.

    Credentials and region are found as botocore finds them.
    """

    bucket: str
    prefix: str
    retention: timedelta = RETENTION

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    async def push(self, note: str) -> None:
        await asyncio.to_thread(self._push, note)

    async def latest(self) -> str | None:
        return await asyncio.to_thread(self._latest)

    def _push(self, note: str) -> None:
        now = datetime.now(UTC)
        with _as_oserror():
            _s3().put_object(
                Bucket=self.bucket,
                Key=f"{self.prefix}{_new_name(now)}",
                Body=note.encode("utf-8"),
                ContentType="text/plain; charset=utf-8",
                ChecksumAlgorithm="SHA256",  # Object Lock demands a checksum
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=now + self.retention,
            )

    def _latest(self) -> str | None:
        """Listed day by day, backwards: names sort by time, and S3 lists forwards alone."""
        with _as_oserror():
            client = _s3()
            key = self._last_key(client)
            if key is None:
                return None
            body = client.get_object(Bucket=self.bucket, Key=key)["Body"]
            data: bytes = body.read(_MAX_BYTES)
        return data.decode("utf-8", "replace")

    def _last_key(self, client: Any) -> str | None:  # noqa: ANN401 - boto3 has no types
        pages = client.get_paginator("list_objects_v2")
        today = datetime.now(UTC)
        # A log may have been idle for long: after a month of days, everything is listed.
        days = [(today + timedelta(days=1 - ago)).strftime("%Y%m%d") for ago in range(32)]
        for prefix in (*(f"{self.prefix}{day}" for day in days), self.prefix):
            keys = [
                str(one["Key"])
                for page in pages.paginate(Bucket=self.bucket, Prefix=prefix)
                for one in page.get("Contents", ())
            ]
            if keys:
                return max(keys)
        return None


Copy: TypeAlias = FileCopy | DirectoryCopy | S3Copy


def parse(reference: str, *, retention: timedelta = RETENTION) -> Copy:
    """From `file:PATH`, `directory:PATH` or `s3://BUCKET/PREFIX`. `retention` is for S3.

    Raises ValueError.
    """
    kind, _, rest = reference.partition(":")
    if kind == "s3" and rest.startswith("//"):
        bucket, _, prefix = rest[2:].partition("/")
        if _BUCKET.fullmatch(bucket):
            return S3Copy(bucket, prefix, retention)
    elif kind == "file" and rest:
        return FileCopy(Path(rest))
    elif kind == "directory" and rest:
        return DirectoryCopy(Path(rest))
    raise ValueError("write file:PATH, directory:PATH or s3://BUCKET/PREFIX")


def _s3() -> Any:  # noqa: ANN401 - boto3 has no types
    # Made for each use: copies are rare, and credentials may have changed.
    config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    return boto3.session.Session().client("s3", config=config)


@contextmanager
def _as_oserror() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as fault:
        raise OSError(str(fault)) from fault


def _new_name(now: datetime) -> str:
    """Names sort by time; of two hosts that push at once, both objects stay."""
    return f"{now.strftime('%Y%m%dT%H%M%S.%fZ')}-{secrets.token_hex(4)}"


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
