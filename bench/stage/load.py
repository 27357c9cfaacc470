"""The load: callers who each wait for an answer before they ask again.

A worker process (`processes.Worker`). A task is {host port, requests, callers,
seconds} or, for one burst, `callers` and no seconds: then each asks once. The
requests are bytes made before (latin-1 text in the task), one a caller in turn.
Connections are kept; nothing is parsed but status and length. About 20 µs of CPU a
request, so that the load takes little of the machine that it shares.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop


@dataclass
class Run:
    """What the callers of one task share."""

    ends: float | None
    latencies: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    callers: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def done(self) -> None:
        self.callers -= 1
        if self.callers == 0:
            self.over.set()


class Caller(asyncio.Protocol):
    """One connection that asks, waits, and asks again."""

    def __init__(self, run: Run, request: bytes) -> None:
        self._run = run
        self._request = request
        self._received = b""
        self._wanted = -1
        self._asked = 0.0
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self._received, self._wanted = b"", -1
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._wanted < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._received[:end].lower()
            at = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[at:].split(b"\r", 1)[0])
        if len(self._received) < self._wanted:
            return
        now = time.perf_counter()
        self._run.latencies.append(now - self._asked)
        if not self._received.startswith(b"HTTP/1.1 200 "):
            self._run.refused.append(self._received[:600].decode("latin-1"))
        if self._run.ends is not None and now < self._run.ends and len(self._run.refused) < 5:
            self.ask()
        else:
            self._finish()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._done:
            self._run.refused.append("the connection was closed")
            self._finish()

    def _finish(self) -> None:
        self._done = True
        self._run.done()
        self._transport.close()


async def _perform(task: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    requests = [text.encode("latin-1") for text in task["requests"]]
    run = Run(None, callers=task["callers"])
    callers = []
    for n in range(task["callers"]):
        request = requests[n % len(requests)]
        _, caller = await loop.create_connection(
            lambda request=request: Caller(run, request), "127.0.0.1", task["port"]
        )
        callers.append(caller)
    started = time.perf_counter()
    if task.get("seconds"):
        run.ends = started + task["seconds"]
    for caller in callers:
        caller.ask()
    await run.over.wait()
    elapsed = time.perf_counter() - started
    ordered = sorted(run.latencies)
    return {
        "count": len(ordered),
        "seconds": elapsed,
        "rate": len(ordered) / elapsed,
        "p50": _quantile(ordered, 0.5),
        "p99": _quantile(ordered, 0.99),
        "max": ordered[-1] if ordered else 0.0,
        "refused": run.refused[:5],
    }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(_perform(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
