"""Real processes for the end-to-end tests: started, waited for on a condition, stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_SECONDS = 45.0


# Below what Linux gives to those who ask for any port (32768 and up): while a server starts on one
# of these, no stand-in of another test is given it, and answers in the server's place. Each test
# process goes through them from another place.
_PORTS = itertools.cycle(random.Random(os.getpid()).sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port that was free a moment ago, and that nobody is given by chance."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for a condition, and say what was waited for when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code < 400
    except httpx.HTTPError:
        return False


@dataclass(slots=True)
class Process:
    """A child process whose output goes to a file that a failing test can quote."""

    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    folder: Path
    child: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.folder,
            )

    def wait_for(self, url: str) -> None:
        def up() -> bool:
            if self.child.poll() is not None:
                raise AssertionError(f"{self.arguments[:3]} ended:\n{self.output()}")
            return answers(url)

        until(up, f"{url}\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> int:
        """SIGTERM, and SIGKILL for what does not heed it."""
        self.child.terminate()
        try:
            return self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"SIGTERM was not heeded:\n{self.output()}") from None
