"""Whether what the broker needs outside of itself can be reached: its providers, and STS.

Owns a task that tries to connect to each, every few seconds, and what `/readyz` and the log say
of it. Nothing depends on the answer: one provider that is down must not stop those who sign in
elsewhere or are signed in already, so the broker serves on, degraded. A connection is all that is
tried, since a question would cost the other side something and could be answered by nobody's
fault. The database is another matter: without it nothing can be done (`web/health`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from ssl import PROTOCOL_TLS_CLIENT
from urllib.parse import urlsplit

import structlog
import truststore

_log = structlog.get_logger("broker.reachability")

CHECK_EVERY = 15.0  # seconds
_CONNECT_SECONDS = 5.0

Connect = Callable[[], Awaitable[None]]


class Reachability:
    """Between `start()` and `aclose()` it keeps trying. Each of `targets`, by the name that an
    operator knows it by, raises OSError where it can't be reached.
    """

    def __init__(self, targets: Mapping[str, Connect], *, every: float = CHECK_EVERY) -> None:
        self._targets = dict(targets)
        self._every = every
        self._lost: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def unreachable(self) -> tuple[str, ...]:
        """The names of those that could not be reached when they were last tried."""
        return tuple(sorted(self._lost))

    def start(self) -> None:
        if self._targets:
            self._task = asyncio.create_task(self._keep_trying(), name="reachability")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.gather(*(self._try(name) for name in self._targets))
            await asyncio.sleep(self._every)

    async def _try(self, name: str) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._targets[name]()
        except OSError as fault:  # TimeoutError and ssl.SSLError are some
            if name not in self._lost:
                _log.warning("can't be reached", what=name, detail=_said(fault))
            self._lost[name] = _said(fault)
        except Exception as fault:  # noqa: BLE001 - as said below
            # Whatever is wrong with one, the others are tried on: a task that ended would let
            # /readyz say for ever what it said last.
            if name not in self._lost:
                _log.exception("can't be reached", what=name)
            self._lost[name] = type(fault).__name__
        else:
            if self._lost.pop(name, None) is not None:
                _log.warning("is reached again", what=name)


def _said(fault: OSError) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


async def connect(url: str) -> None:
    """To the host of an OpenID provider, as `outbound` would: directly, by the system's
    certificate authorities. Raises OSError.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    _, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=truststore.SSLContext(PROTOCOL_TLS_CLIENT) if secure else None,
    )
    # Not `close`, which waits for the other side's goodbye: it was reached, however it parts.
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
