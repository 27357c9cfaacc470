"""Somebody who follows a page: terminals with their own homes, and a browser that signs in.

Commands run in bash as the page has them. What a reader replaces by their own (host names, ids) is
replaced by `own`, and nothing else is; addresses of stand-ins come by the environment alone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.devstack.browser import ScriptedBrowser, ScriptedPerson
from tests.docs.pages import Block
from tests.e2e.processes import Process, until

_SECONDS = 120.0
_OLD_SECONDS = 120.0
_GRANT = re.compile(r"g-[a-z2-7]{26}")
_ENROLMENT_CODE = re.compile(r"^[a-z2-7]{6}(?:-[a-z2-7]{6}){3}$", re.MULTILINE)


@dataclass
class Terminal:
    """One person's shell. What a block exports and activates holds in the next one."""

    home: Path
    folder: Path
    environment: Mapping[str, str]
    person: ScriptedPerson | None = None
    browser: ScriptedBrowser = field(default_factory=ScriptedBrowser)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        opener = self.home / "browse"
        # `broker login` opens its browser by this; who sits there reads the address.
        opener.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(self.home))}/opened\n')
        opener.chmod(0o755)

    @property
    def opened(self) -> Path:
        return self.home / "opened"

    def script(self, text: str) -> str:
        state = shlex.quote(str(self.home / "state"))
        return f"[ -f {state} ] && . {state}\nset -eu\n{text}\nexport -p > {state}\n"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "BROWSER": f"{self.home / 'browse'} %s",
            **self.environment,
        }


@dataclass
class Reader:
    """`own`: what stands on a page, and what it is here. `ready`: where a server answers."""

    terminals: Mapping[str, Terminal]
    own: dict[str, str]
    ready: str = ""
    staying: list[Process] = field(default_factory=list)
    commands: int = 0
    browsed: dict[str, float] = field(default_factory=dict)

    def follow(self, block: Block) -> str:
        """Do what a block says; what was printed. Raises AssertionError where it fails."""
        terminal = self.terminals[block.at]
        text = block.text
        for theirs, ours in self.own.items():
            text = text.replace(theirs, ours)
        if block.file is not None:
            self._write(terminal, block.file, text)
            return ""
        self.commands += len(block.commands)
        if block.stays:
            self._start(terminal, text)
            return ""
        code, said = self._run(terminal, text)
        assert (code != 0) == block.fails, f"{text}\nended with {code}:\n{said}"
        if grants := _GRANT.findall(said):
            self.own["g-abcdefghijklmnopqrstuvwxyz"] = grants[-1]
        return said

    def follow_text(self, at: str, text: str) -> str:
        """A command that is on no page."""
        return self.follow(Block("sh", text, None, at, stays=False, fails=False))

    def keep_fresh(self, name: str) -> None:
        """Log in again before a factor is five minutes old, however slow this machine is."""
        if time.monotonic() - self.browsed[name] > _OLD_SECONDS:
            self.follow_text(name, "broker login")

    def close(self) -> None:
        for process in self.staying:
            process.stop()
        for terminal in self.terminals.values():
            terminal.browser.close()

    @staticmethod
    def _write(terminal: Terminal, name: str, text: str) -> None:
        path = (terminal.home if name.startswith(".") else terminal.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _start(self, terminal: Terminal, text: str) -> None:
        command = ["/bin/bash", "-c", terminal.script(f"exec {text.strip()}")]
        log = terminal.home / "server.log"
        process = Process(command, log, terminal.variables, terminal.folder)
        self.staying.append(process)
        process.wait_for(self.ready)

    def _run(self, terminal: Terminal, text: str) -> tuple[int, str]:
        """Meanwhile, whatever opens in the browser is answered."""
        terminal.opened.unlink(missing_ok=True)
        log = terminal.home / "said"
        with log.open("wb") as said:
            child = subprocess.Popen(
                ["/bin/bash", "-c", terminal.script(text)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=terminal.variables,
                cwd=terminal.folder,
                start_new_session=True,
            )

        def ended() -> bool:
            if terminal.opened.exists() and (url := terminal.opened.read_text().strip()):
                terminal.opened.unlink()
                self._browse(terminal, url, log.read_text("utf-8", "replace"))
            return child.poll() is not None

        try:
            until(ended, f"{text}\n{log.read_text('utf-8', 'replace')}", seconds=_SECONDS)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, 9)
                child.wait()
        return child.returncode, log.read_text("utf-8", "replace")

    def _browse(self, terminal: Terminal, url: str, said: str) -> None:
        """A code for enrolling is what the command before printed."""
        assert terminal.person is not None, f"nobody is there to open {url}"
        self.browsed[terminal.person.username] = time.monotonic()
        codes = _ENROLMENT_CODE.findall(said)
        code = codes[-1] if codes else ""
        terminal.person.sign_in(terminal.browser, url, enrolment_code=code)
