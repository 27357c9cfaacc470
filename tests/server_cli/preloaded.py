"""The `broker` command in processes that cost nothing to start: forked from one that has read
everything in already. Each has its own folder, environment, output and exit code, as if started
from a shell.

Run as a module it reads a line of JSON a command from stdin (`folder`, `environment`, `words`) and
answers with a line (`code`, `out`, `err`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


class Preloaded:
    """Runs commands in turn. `with` it."""

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.communicate()

    def run(self, folder: Path, environment: Mapping[str, str], *words: str) -> Ended:
        asked = {"folder": str(folder), "environment": dict(environment), "words": words}
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        return Ended(**json.loads(self._child.stdout.readline()))


def _serve() -> None:
    for name in ("server", "doctor", "migrate"):
        import_module(f"broker.server_cli.{name}")
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _run(asked: dict[str, Any]) -> dict[str, object]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            signal.alarm(_SECONDS)  # what starts to serve is ended, and has a code of its own
            _become_the_command(asked)
        _, status = os.waitpid(child, 0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": _text(out),
            "err": _text(err),
        }


def _become_the_command(asked: dict[str, Any]) -> None:
    code = 1
    try:
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        code = import_module("broker.entry").main(asked["words"])
    except BaseException:  # noqa: BLE001 - as the interpreter would show it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


if __name__ == "__main__":
    _serve()
