"""The real client as a subprocess, its home in a temporary directory, against a fake broker."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from broker.cli import server, tokens
from broker.cli.server import Server
from broker.cli.tokens import Tokens
from broker.entry import main
from tests.cli.fake_broker import FakeBroker, serving

# A browser that clicks through: fetches the address and follows its redirects.
BROWSER = """\
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=20).read()
except urllib.error.HTTPError as error:
    error.read()
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass
class Cli:
    """Runs `broker` as people do."""

    home: Path
    environment: dict[str, str]

    @staticmethod
    def argv(*words: str) -> list[str]:
        return [sys.executable, "-m", "broker.entry", *words]

    def start(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            self.argv(*words), **{"env": self.environment, **pipes, **options}
        )

    def __call__(self, *words: str, stdin: bytes = b"") -> Done:
        done = subprocess.run(
            self.argv(*words),
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return Done(done.returncode, out, err)

    def inside(self, *words: str, stdin: bytes = b"") -> Done:
        """The same in this process, for the long tables: a tenth of the time."""
        given = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        at_exit: list[Callable[[], object]] = []
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err),
            mock.patch("atexit.register", at_exit.append),
        ):
            code = main(list(words))
            for callback in at_exit:
                callback()
            shown = []
            for stream in (out, err):
                stream.flush()
                shown.append(stream.detach().getvalue().decode())
        assert "Traceback" not in shown[1], shown[1]
        return Done(code, *shown)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with serving() as fake:
        yield fake


@pytest.fixture
def cli(tmp_path: Path, broker: FakeBroker) -> Cli:
    """Knows its broker, and is not logged in."""
    home = tmp_path / "home"
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "BROKER_", "XDG_")) and "proxy" not in name.lower()
    }
    environment = inherited | {
        "BROKER_HOME": str(home),
        "BROKER_SERVER": broker.origin,
        "BROWSER": f"{sys.executable} {browser} %s",
        "PYTHONWARNINGS": "error",
    }
    return Cli(home, environment)


@pytest.fixture
def log_in(cli: Cli, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch):
    """A login that is stored without the browser's part; `expires_in` seconds of access."""

    def store(expires_in: float = 900, login_id: str = "login-1") -> Tokens:
        pair = broker.new_pair()
        held = Tokens(
            login_id,
            str(pair["access_token"]),
            time.time() + expires_in,
            str(pair["refresh_token"]),
            "/oauth/token",
            "/oauth/revoke",
        )
        with monkeypatch.context() as patch:
            patch.setenv("BROKER_HOME", str(cli.home))
            tokens.save_login(Server.parse(broker.origin), held)
            server.remember(Server.parse(broker.origin))
        return held

    return store


@pytest.fixture
def logged_in(log_in) -> Tokens:
    held: Tokens = log_in()
    return held
