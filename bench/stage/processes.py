"""Child processes: one that serves a port, one that does a task when told, and their CPU time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_START_SECONDS = 60.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bare_environment(**more: str) -> dict[str, str]:
    """What a process of ours needs of this one's environment, and no setting that would leak in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ROOT}:{HERE.parent}", **more}


def cpu_seconds(pid: int) -> float:
    """CPU time the process has used, its threads included, in user and in system mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def stop(child: subprocess.Popen[Any]) -> None:
    child.terminate()
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@dataclass(slots=True)
class Service:
    """A process that serves `port`, from `start` to `stop`. `log` takes all it says."""

    arguments: list[str]
    port: int
    log: Path
    environment: Mapping[str, str] = field(default_factory=bare_environment)
    child: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.log.parent,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.arguments[1:4]} does not serve:\n{self.log.read_text()[-2000:]}"
                )
            time.sleep(0.02)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    @property
    def cpu_seconds(self) -> float:
        return cpu_seconds(self.child.pid)

    def stop(self) -> None:
        stop(self.child)


class Worker:
    """A process that reads one task a line on stdin and answers each with one line: JSON both."""

    def __init__(self, script: str, **environment: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=bare_environment(**environment),
            text=True,
        )

    def ask(self, **task: object) -> dict[str, Any]:
        if self.child.stdin is None or self.child.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self.child.stdin.write(json.dumps(task) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.child.args} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        stop(self.child)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()
