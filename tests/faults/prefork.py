"""Server processes in milliseconds: one process imports the broker, each server is a fork of it.

Owns that process, both sides of the pipe to it. A server is what `broker server` runs, in a
process of its own with its own environment, working folder and output; with a crash point
(`points`) it kills itself there by SIGKILL. Does not own what a server is given (`world`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds


@dataclass(eq=False)
class Fork:
    """One server process. `status`: as waitpid tells it, once it has ended."""

    pid: int
    log: Path
    status: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """How it ended: its exit code, or the signal's number, negative."""
        assert self.ended.wait(seconds), f"{self.pid} did not end:\n{self.output()}"
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")


class Prefork:
    """The process that forks. `close` ends it and every server that still runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.prefork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
        self._forks: dict[int, Fork] = {}
        self._started: list[int] = []
        self._news = threading.Condition()
        self._starting = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(
        self,
        arguments: list[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        crash: tuple[str, int] | None = None,
    ) -> Fork:
        """`crash`: the name of a crash point, and at which pass it kills the process."""
        order = {
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(folder),
            "log": str(log),
            "crash": crash,
        }
        with self._starting:
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
            with self._news:
                self._news.wait_for(lambda: self._started or not self._reader.is_alive(), PATIENCE)
                assert self._started, "no fork came; what went wrong stands on stderr"
                fork = Fork(self._started.pop(), log)
                self._forks[fork.pid] = fork
                self._news.notify_all()
                return fork

    def close(self) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.wait(PATIENCE)
        self._reader.join()
        assert self._child.stdout is not None
        self._child.stdout.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            told = json.loads(line)
            if "status" in told:
                self._end(told["pid"], told["status"])
                continue
            with self._news:
                self._started.append(told["pid"])
                self._news.notify_all()

    def _end(self, pid: int, status: int) -> None:
        with self._news:
            # It may have ended before whoever asked for it has heard of it.
            self._news.wait_for(lambda: pid in self._forks, PATIENCE)
            fork = self._forks.pop(pid)
        fork.status = status
        fork.ended.set()


# --- In the process that forks ---------------------------------------------------------------


def main() -> None:
    """Take an order a line on stdin, until it ends; tell of pids and of ends on stdout."""
    import broker.app  # noqa: PLC0415 - what every server needs, imported once
    import broker.server_cli.server  # noqa: F401, PLC0415
    from tests.faults import points  # noqa: F401, PLC0415

    running: set[int] = set()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_of_ends(running)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line), (woken, wake))
                running.add(pid)
                _tell({"pid": pid})
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _tell(news: Mapping[str, int]) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


def _tell_of_ends(running: set[int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        running.discard(pid)
        _tell({"pid": pid, "status": status})


def _fork(order: Mapping[str, object], inherited: tuple[int, int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in inherited:
            os.close(descriptor)
        code = _serve(**order)  # type: ignore[arg-type]  # as `Prefork.start` wrote it
    except BaseException:  # noqa: BLE001 - this is the end of a process, whatever it was
        sys.excepthook(*sys.exc_info())
        code = 70
    sys.stderr.flush()
    os._exit(code)


def _serve(
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    log: str,
    crash: tuple[str, int] | None,
) -> int:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if crash is not None:
        from tests.faults import points  # noqa: PLC0415 - imported by the parent

        points.arm(*crash)
    from broker.entry import main as broker  # noqa: PLC0415

    return broker(arguments)


if __name__ == "__main__":
    main()
