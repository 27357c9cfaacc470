"""The broker's own AWS credentials in one partition.

botocore finds and refreshes them wherever AWS tools look (environment, files,
credential_process, IMDS, ECS, EKS), in a thread: its providers block. The hot
path only looks at the clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass

import botocore.credentials
import botocore.session

from broker.adapters.sts.config import StsConfig
from broker.adapters.sts.sigv4 import Signer

logger = logging.getLogger(__name__)

# botocore's own thresholds: refresh in the background under 15 minutes left, insist under 10.
_MANDATORY_SECONDS = 10 * 60
# How long to leave a source alone after a background refresh that failed, or a forced renewal.
_PAUSE_SECONDS = 10.0
# A credential_process or a metadata service that hangs holds up its callers no longer than this.
_LOAD_SECONDS = 10.0


class NoBaseCredentials(Exception):
    """None found, or their source failed. The text is for the operator."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    source: botocore.credentials.Credentials
    signer: Signer


class BaseCredentials:
    """Resolved once, then kept until botocore calls a refresh due."""

    def __init__(self, config: StsConfig) -> None:
        self._config = config
        self._loaded: _Loaded | None = None
        self._loading: asyncio.Task[_Loaded] | None = None
        self._leave_alone_until = -math.inf
        self._renewed_at = -math.inf

    @property
    def token_present(self) -> bool | None:
        """None while nothing was resolved yet."""
        return None if self._loaded is None else self._loaded.signer.session_token is not None

    async def signer(self) -> Signer:
        """The current credentials. Raises NoBaseCredentials."""
        loaded = self._loaded
        if loaded is None or _due(loaded, _MANDATORY_SECONDS):
            return (await self._load_within_limit()).signer
        if _due(loaded, None) and time.monotonic() >= self._leave_alone_until:
            self._load()
        return loaded.signer

    def renew(self, refused: Signer) -> bool:
        """AWS refused `refused`: resolve from the sources anew at the next `signer()`.

        False where that was done a moment ago: then there is nothing newer to try.
        """
        if self._loaded is None or self._loaded.signer is not refused:
            return True  # somebody else saw the refusal first
        if time.monotonic() - self._renewed_at < _PAUSE_SECONDS:
            return False
        self._renewed_at = time.monotonic()
        self._loaded = None
        return True

    async def aclose(self) -> None:
        """A load still running is a thread that cannot be stopped: its result is dropped."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def _load_within_limit(self) -> _Loaded:
        task = self._load()
        try:
            # Shielded: one load serves everybody who waits, whoever gives up first.
            async with asyncio.timeout(_LOAD_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise NoBaseCredentials(
                f"their source did not answer within {_LOAD_SECONDS:.0f} s"
            ) from error

    def _load(self) -> asyncio.Task[_Loaded]:
        if self._loading is None:
            source = None if self._loaded is None else self._loaded.source
            self._loading = asyncio.create_task(asyncio.to_thread(_resolve, self._config, source))
            self._loading.add_done_callback(self._keep)
        return self._loading

    def _keep(self, task: asyncio.Task[_Loaded]) -> None:
        self._loading = None
        self._leave_alone_until = time.monotonic() + _PAUSE_SECONDS
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._loaded = task.result()
        else:
            logger.warning("The broker's AWS credentials could not be resolved: %s", error)


def _due(loaded: _Loaded, seconds: int | None) -> bool:
    source = loaded.source
    if not isinstance(source, botocore.credentials.RefreshableCredentials):
        return False
    return bool(source.refresh_needed(seconds))


def _resolve(config: StsConfig, source: botocore.credentials.Credentials | None) -> _Loaded:
    """Blocking. Refreshes `source` where it is due, or finds one. Raises NoBaseCredentials."""
    try:
        if source is None:
            source = botocore.session.Session(profile=config.profile).get_credentials()
        frozen = None if source is None else source.get_frozen_credentials()
    except Exception as error:  # providers and their plug-ins raise anything
        raise NoBaseCredentials(f"{type(error).__name__}: {str(error)[:500]}") from error
    if source is None or frozen is None or not frozen.access_key or not frozen.secret_key:
        raise NoBaseCredentials("none found in the environment, files or the instance's metadata")
    return _Loaded(source, Signer(frozen.access_key, frozen.secret_key, frozen.token or None))
