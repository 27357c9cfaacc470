"""Logging in by a code, with a browser elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from types import SimpleNamespace
from typing import Any

import pytest
import segno

from broker.cli import device, qr
from tests.cli.conftest import Cli
from tests.cli.fake_broker import DEVICE_CODE, USER_CODE, FakeBroker, Reply

TOKEN_PATH = "/oauth/token"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's clock runs as fast as it waits; gives what it waited, in order."""
    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: sum(waited))
    monkeypatch.setattr(device, "time", clock)
    return waited


def test_a_code_is_shown_and_the_login_kept_once_it_is_allowed(
    cli: Cli, broker: FakeBroker
) -> None:
    broker.device_errors = ["authorization_pending"]
    done = cli("login", "--device")
    assert (done.code, done.out) == (0, ""), done.err
    assert f"{broker.origin}/device\n" in done.err
    assert USER_CODE in done.err
    assert f"Logged in to {broker.origin}." in done.err
    # Not on a terminal: no picture, and never a secret.
    assert "█" not in done.err
    for secret in (DEVICE_CODE, *broker.access_tokens, str(broker.refresh_token)):
        assert secret not in done.err
    assert cli("whoami").code == 0
    assert broker.count(TOKEN_PATH) == 2
    assert broker.count("/oauth/authorize") == 0
    started = broker.last("/oauth/device_authorization").body.decode()
    assert "client_id=broker-cli" in started
    assert "host_name=" in started


@pytest.mark.parametrize(
    ("changes", "by_device"),
    [
        ({}, True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0", "PATH": "/nonexistent"}, True),
        ({"BROWSER": "/bin/true %s", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, False),
        ({"BROWSER": "/bin/true %s"}, False),
    ],
)
def test_it_is_chosen_by_itself_where_no_browser_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], by_device: bool
) -> None:
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setattr("webbrowser._browsers", {})
    monkeypatch.setattr("sys.platform", "linux")
    assert device.has_browser() is not by_device


def without_browser(cli: Cli) -> None:
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        cli.environment.pop(name, None)


def test_login_falls_back_to_it_and_no_browser_does_not(cli: Cli, broker: FakeBroker) -> None:
    without_browser(cli)
    assert cli("login").code == 0
    assert broker.count("/oauth/device_authorization") == 1
    with cli.start("login", "--no-browser") as process:
        assert process.stderr is not None
        assert any(b"/oauth/authorize?" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
    assert broker.count("/oauth/device_authorization") == 1
    assert cli("login", "--device", "--no-browser").code == 2


def test_where_the_broker_does_not_offer_it_the_address_is_printed(
    cli: Cli, broker: FakeBroker
) -> None:
    broker.metadata = {"device_authorization_endpoint": None}
    asked = cli("login", "--device")
    assert asked.code == 1
    assert "unauthorized_client" in asked.err
    assert "--no-browser" in asked.err
    without_browser(cli)
    with cli.start("login") as process:
        assert process.stderr is not None
        assert any(b"/oauth/authorize?" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)


def test_it_asks_as_slowly_as_it_is_told(
    cli: Cli, broker: FakeBroker, no_waiting: list[float]
) -> None:
    broker.device_interval = 5
    broker.device_errors = ["authorization_pending", "slow_down", "authorization_pending"]
    broker.device_errors += ["temporarily_unavailable", "slow_down"]
    assert cli.inside("login", "--device").code == 0
    assert no_waiting == [5, 5, 10, 10, 20, 25]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("access_denied", 1, "denied in the browser"),
        ("expired_token", 3, "nobody allowed the login in time"),
        ("invalid_grant", 1, "invalid_grant"),
        ("unauthorized_client", 1, "unauthorized_client"),
    ],
)
def test_each_end_is_said_in_one_line(
    cli: Cli, broker: FakeBroker, no_waiting: list[float], error: str, code: int, words: str
) -> None:
    broker.device_errors = ["authorization_pending", error]
    done = cli.inside("login", "--device")
    assert done.code == code
    assert words in done.err.splitlines()[-1]
    assert cli.inside("whoami").code == 3


def test_it_gives_up_when_the_code_has_expired(
    cli: Cli, broker: FakeBroker, no_waiting: list[float]
) -> None:
    broker.device_answer = {"expires_in": 30, "interval": 5}
    broker.device_errors = ["authorization_pending"] * 1000
    done = cli.inside("login", "--device")
    assert done.code == 3
    assert "run `broker login` again" in done.err
    assert sum(no_waiting) <= 30


def test_a_broker_that_is_away_for_a_while_ends_nothing(
    cli: Cli, broker: FakeBroker, no_waiting: list[float]
) -> None:
    answers: list[Reply | None] = [Reply(502, b"<html>", "text/html"), None, None]

    def flaky(_: Any) -> Reply:
        answer = answers.pop(0)
        return answer if answer is not None else Reply.of(broker.new_pair())

    broker.replies[TOKEN_PATH] = flaky
    done = cli.inside("login", "--device")
    assert done.code == 0, done.err
    assert "still trying" in done.err
    assert no_waiting == [1, 2]


def test_a_broker_that_stays_away_is_said_at_the_end(
    cli: Cli, broker: FakeBroker, no_waiting: list[float]
) -> None:
    broker.replies[TOKEN_PATH] = Reply(502, b"<html>", "text/html")
    done = cli.inside("login", "--device")
    assert done.code == 4
    assert done.err.count("still trying") == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"verification_uri": "https://evil.example/device"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "//evil.example"},
        {"user_code": "\x1b[2Jhello"},
        {"user_code": "ring 555-0100 and read us this code"},
        {"device_code": "has spaces in it, so it is none"},
        {"device_code": 7},
        {"expires_in": 0},
        {"expires_in": "600"},
        {"expires_in": None},
        {"interval": -1},
        {"interval": 0.5},
    ],
)
def test_a_hostile_answer_is_not_shown_to_be_typed_or_opened(
    cli: Cli, broker: FakeBroker, no_waiting: list[float], answer: dict[str, object]
) -> None:
    broker.device_answer = answer
    done = cli.inside("login", "--device")
    assert done.code == 4, done.err
    for shown in ("Open", "555", "\x1b", USER_CODE):
        assert shown not in done.err
    assert broker.count(TOKEN_PATH) == 0


def test_an_endpoint_elsewhere_is_not_asked(cli: Cli, broker: FakeBroker) -> None:
    broker.metadata = {"device_authorization_endpoint": "https://evil.example/start"}
    assert cli.inside("login", "--device").code == 4


def test_ctrl_c_ends_it_quietly(cli: Cli, broker: FakeBroker) -> None:
    broker.device_errors = ["authorization_pending"] * 1000
    process = cli.start("login", "--device")
    assert process.stderr is not None
    shown = []
    for line in process.stderr:
        shown.append(line)
        if b"Ctrl-C" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err) == (b"", b"")
    assert cli("whoami").code == 3


# --- the picture ------------------------------------------------------------


def on_terminal(cli: Cli, columns: int, lines: int, **environment: str) -> str:
    """What `broker login --device` shows on a terminal of that size."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environ = cli.environment | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | environment
    with subprocess.Popen(
        cli.argv("login", "--device"), env=environ, stdin=terminal, stderr=terminal, stdout=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(controller, 4096):
                shown += piece
        except OSError:
            pass  # Linux's way to say that the other end is closed
        os.close(controller)
    assert process.returncode == 0
    return shown.decode()


def modules_of(shown: str) -> list[list[int]]:
    """The QR code's modules, read back from half blocks."""
    upper, lower = {" ": 0, "▀": 1, "▄": 0, "█": 1}, {" ": 0, "▀": 0, "▄": 1, "█": 1}
    rows: list[list[int]] = []
    for row in re.findall(r"\x1b\[[0-9;]+m([ ▀▄█]+)\x1b\[0m", shown):
        rows += [[upper[half] for half in row], [lower[half] for half in row]]
    return rows


def test_a_terminal_shows_the_address_with_the_code_as_a_qr_code(
    cli: Cli, broker: FakeBroker
) -> None:
    shown = on_terminal(cli, 100, 50)
    url = f"{broker.origin}/device?user_code={USER_CODE}"
    code = segno.make(url, error="l", micro=False)
    expected = [[int(bool(bit)) for bit in row] for row in code.matrix_iter(border=2)]
    assert modules_of(shown)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("columns", "lines", "environment"),
    [
        (30, 50, {}),
        (100, 20, {}),
        (0, 0, {}),
        (100, 50, {"TERM": "dumb"}),
        (100, 50, {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_terminal_that_can_not_show_it_whole_gets_none(
    cli: Cli, columns: int, lines: int, environment: dict[str, str]
) -> None:
    shown = on_terminal(cli, columns, lines, **environment)
    assert USER_CODE in shown
    assert "▀" not in shown
    assert "\x1b" not in shown


def test_every_line_of_the_picture_is_as_wide() -> None:
    rows = qr._rows("https://broker.example.com/device?user_code=WDJB-MJHT")
    assert len({len(row) for row in rows}) == 1
