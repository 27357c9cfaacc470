"""The `broker` command as a person in a terminal runs it: real processes, one home folder each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.devstack.browser import CannotSignIn, ScriptedBrowser, ScriptedPerson

_COMMAND_SECONDS = 90
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished command."""

    arguments: tuple[str, ...]
    code: int
    out: str = field(repr=False)
    err: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terminal:
    """One person's shell: their home for tokens, and nothing of our own AWS environment."""

    server: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            "BROKER_HOME": str(self.home),
            "BROKER_SERVER": self.server,
            # The keyring of whoever runs this is not ours to fill.
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }

    def run(self, *arguments: str, given: str | None = None) -> Ran:
        """`broker ARGUMENTS...`, with `given` as its standard input."""
        done = subprocess.run(
            self.command(arguments),
            input=given if given is not None else "",
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        return Ran(arguments, done.returncode, done.stdout, done.stderr)

    def log_in(self, person: ScriptedPerson, browser: ScriptedBrowser) -> Ran:
        """`broker login`, with `person` at the browser. Raises CannotSignIn."""
        return self._log_in(("--no-browser",), _read_address, person, browser)

    def log_in_by_code(self, person: ScriptedPerson, browser: ScriptedBrowser) -> Ran:
        """`broker login --device`, with `person` at a browser elsewhere. Raises CannotSignIn."""
        return self._log_in(("--device",), _read_code, person, browser)

    def _log_in(
        self,
        options: tuple[str, ...],
        read: Callable[[subprocess.Popen[str]], list[str]],
        person: ScriptedPerson,
        browser: ScriptedBrowser,
    ) -> Ran:
        arguments = ("login", "--server", self.server, *options)
        process = subprocess.Popen(
            self.command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        try:
            seen = read(process)
            person.sign_in(browser, seen[-1])
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Ran(arguments, process.returncode, out, "".join(seen[:-1]) + err)

    @staticmethod
    def command(arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "broker.entry", *arguments]


def _read_address(process: subprocess.Popen[str]) -> list[str]:
    """The lines up to the address to open, then the address itself."""
    lines: list[str] = []
    if process.stderr is None:
        raise CannotSignIn("the command has no standard error")
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"https?://\S+/oauth/authorize\S*", line):
            return [*lines, found.group()]
    raise CannotSignIn(f"broker login gave no address to open: {''.join(lines)}")


def _read_code(process: subprocess.Popen[str]) -> list[str]:
    """The lines up to the code to type, then the address with it, as the QR code has it."""
    lines: list[str] = []
    address = ""
    if process.stderr is None:
        raise CannotSignIn("the command has no standard error")
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"https?://\S+/device", line):
            address = found.group()
        elif address and (found := re.fullmatch(r"\s*([A-Z]{4}-[A-Z]{4})\s*", line)):
            return [*lines, f"{address}?user_code={found[1]}"]
    raise CannotSignIn(f"broker login gave no code to type: {''.join(lines)}")
