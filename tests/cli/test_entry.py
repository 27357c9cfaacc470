"""The command itself: finding it, help, exit codes, and how little it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import platformdirs.macos
import platformdirs.unix
import pytest

from broker import __version__
from broker.cli import cached, paths
from broker.cli.main import _COMMANDS
from broker.cli.tokens import Tokens
from broker.entry import SERVER_COMMANDS
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply

ROOT = Path(__file__).parents[2]


def test_no_words_and_help_show_every_command(cli: Cli):
    overview = cli.inside().out
    assert overview == cli.inside("--help").out == cli.inside("help").out
    for name in [*_COMMANDS, *SERVER_COMMANDS]:
        assert name in overview
    assert "exit codes" in overview


def test_version(cli: Cli):
    assert cli("--version").out == f"broker {__version__}\n"


# Lint runs in the server's packages where they are installed, as here, with help of its own.
@pytest.mark.parametrize("name", [name for name in _COMMANDS if name != "access lint"])
def test_every_command_has_help_with_examples(cli: Cli, name: str):
    done = cli.inside("help", *name.split())
    assert done.code == 0
    assert f"broker {name}" in done.out
    assert "examples:\n  " in done.out


def test_help_of_a_group_and_of_server_commands(cli: Cli):
    done = cli("audit", "--help")
    assert done.code == 0
    assert "broker audit verify" in done.out
    assert cli("help", "server").code == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["logn"], "broker login"),
        (["cred"], "broker creds"),
        (["migrat"], "broker migrate"),
        (["zzzzzz"], "broker --help"),
        (["audit"], "broker audit tail"),
        (["audit", "tali"], "broker audit tail"),
        (["\x1b[2J"], "broker --help"),
        ([""], "broker --help"),
    ],
)
def test_an_unknown_word_is_wrong_usage_with_a_hint(cli: Cli, words: list[str], hint: str):
    done = cli.inside(*words)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err
    assert "\x1b" not in done.err


def test_exit_codes(cli: Cli, broker: FakeBroker, log_in):
    """The table of the interface, one after the other."""
    assert cli.inside("whoami").code == 3
    log_in()
    assert cli.inside("whoami").code == 0
    codes = {
        "not_entitled": (403, 1),
        "approval_required": (403, 1),
        "invalid_request": (422, 1),
        "not_found": (404, 1),
        "conflict": (409, 1),
        "rate_limited": (429, 1),
        "mfa_locked": (429, 1),
        "aws_denied": (502, 1),
        "audit_unavailable": (503, 1),
        "something_new": (418, 1),
        "mfa_required": (403, 5),
        "mfa_stale": (403, 5),
    }
    for code, (status, expected) in codes.items():
        broker.replies["/v1/me"] = Reply.problem(status, code, "Because.", retry_after=7)
        done = cli.inside("whoami")
        assert (done.code, done.out) == (expected, "")
        assert done.err.splitlines()[0] == f"broker: {code}: Because. (request req-1)"
        assert ("broker mfa verify" in done.err) == (expected == 5)
    assert cli.inside("whoami", "--nonsense").code == 2
    cli.environment["BROKER_SERVER"] = "https://broker.invalid"
    assert cli.inside("login").code == 4
    cli.environment["BROKER_SERVER"] = "nonsense"
    assert cli.inside("whoami").code == 2


def test_without_any_server_it_says_how_to_name_one(cli: Cli):
    del cli.environment["BROKER_SERVER"]
    done = cli("whoami")
    assert done.code == 3
    assert "broker login --server" in done.err


def test_a_home_that_can_not_be_written_is_one_line(cli: Cli, tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cli.environment["BROKER_HOME"] = str(blocked / "home")
    done = cli("login")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("broker: ")


@pytest.mark.parametrize("words", [["roles"], ["creds", "data-reader"], ["--help"]])
def test_a_full_disk_and_closed_streams_are_no_tracebacks(
    cli: Cli, logged_in: Tokens, words: list[str]
):
    with Path("/dev/full").open("wb") as full:
        process = cli.start(*words, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith("broker: ")
    assert line.endswith("No space left on device")
    script = 'exec "$@" >&- 2>&-'
    closed = subprocess.run(
        ["sh", "-c", script, "sh", *cli.argv(*words)],
        env=cli.environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"", b"")


def test_output_that_the_terminal_can_not_show_is_escaped(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies["/v1/me"] = Reply.of({"handle": "grüße@example.com"})
    cli.environment |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = cli("whoami")
    assert done.code == 0
    assert "gr\\xfc\\xdfe@example.com" in done.out


# --- what is imported ------------------------------------------------------------

HEAVY = {
    "httpx",
    "argparse",
    "json",
    "ssl",
    "http.client",
    "urllib.parse",
    "pathlib",
    "filelock",
    "platformdirs",
    "keyring",
    "dataclasses",
    "typing",
    "hashlib",
    "asyncio",
    "logging",
}
SERVER_ONLY = {
    "fastapi",
    "sqlalchemy",
    "msgspec",
    "cryptography",
    "yaml",
    "pydantic",
    "botocore",
    "boto3",
    "aiohttp",
    "re2",
    "uvicorn",
    "starlette",
    "jinja2",
    "httpx",
}
RUN = """
import sys
sys.argv[1:] = {words!r}
from broker.entry import main
code = main()
names = set(sys.modules)
for name in list(names):
    file = str(getattr(sys.modules[name], "__file__", ""))
    if "site-packages" in file and not file.endswith(".py"):
        names.add("compiled:" + name)
print("\\n".join(["", "=== " + str(code), *sorted(names)]))
"""


def modules_after(cli: Cli, *words: str) -> tuple[int, set[str]]:
    # -S leaves out what site-packages' .pth files import into every process.
    path = os.pathsep.join(entry for entry in [str(ROOT), *sys.path] if entry)
    done = subprocess.run(
        [sys.executable, "-S", "-c", RUN.format(words=list(words))],
        env=cli.environment | {"PYTHONPATH": path},
        capture_output=True,
        check=True,
        timeout=60,
    )
    code, _, names = done.stdout.decode().rpartition("\n=== ")[2].partition("\n")
    return int(code), set(names.split())


def test_a_cached_answer_imports_next_to_nothing(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli("credential-process", "data-reader", "--set", "bucket=reports")
    code, modules = modules_after(
        cli, "credential-process", "data-reader", "--set", "bucket=reports"
    )
    assert code == 0
    assert broker.count("/v1/credentials") == 1
    assert modules & HEAVY == set()
    ours = {name for name in modules if name.partition(".")[0] == "broker"}
    assert ours == {"broker", "broker.entry", "broker.cli", "broker.cli.cached", "broker.cli.paths"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["whoami"],
        ["creds", "data-reader"],
        ["credential-process", "data-reader"],
        ["access", "export"],
        ["audit", "verify", "/dev/null"],
    ],
)
def test_the_client_imports_nothing_of_the_server(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, words: list[str]
):
    code, modules = modules_after(cli, *words)
    assert code == 0
    assert modules & SERVER_ONLY == set()
    sides = {name.split(".")[1] for name in modules if name.startswith("broker.")}
    assert sides <= {"entry", "cli", "audit", "errors"}
    assert not any(name.startswith("compiled:") for name in modules)


def client_environment(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """A Python that has the base install alone: the standard library and broker."""
    bare = tmp_path / "site"
    bare.mkdir()
    (bare / "broker").symlink_to(ROOT / "broker")
    environment = {"PYTHONPATH": str(bare), "BROKER_HOME": str(tmp_path / "home"), "PATH": ""}
    return [sys.executable, "-S", "-m", "broker.entry"], environment


@pytest.mark.parametrize("word", list(SERVER_COMMANDS))
def test_server_commands_without_the_server_say_what_to_install(tmp_path: Path, word: str):
    argv, environment = client_environment(tmp_path)
    done = subprocess.run(
        [*argv, word], env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    # The stand-ins of `broker dev` are more than a server needs.
    extra = b"dev" if word == "dev" else b"server"
    assert b"pip install 'credential-broker[" + extra + b"]'" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_base_install_alone_verifies_a_log_and_lints_through_the_broker(tmp_path: Path):
    argv, environment = client_environment(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "access.yaml").write_text("version: 1\n")
    verified = subprocess.run(
        [*argv, "audit", "verify", str(tmp_path / "empty")],
        env=environment, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert b"0 records" in verified.stdout
    linted = subprocess.run(
        [*argv, "access", "lint", str(tmp_path / "access.yaml")],
        env=environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert linted.returncode == 3
    assert b"broker login" in linted.stderr


@pytest.mark.parametrize(
    "words", [["access", "lint", "access.yaml", "--config", "broker.toml"], ["migrate"]]
)
def test_the_client_s_variables_are_no_settings_of_the_server(
    cli: Cli, tmp_path: Path, words: list[str]
):
    """Somebody who uses a broker all day, and exported its address, starts one too."""
    (tmp_path / "access.yaml").write_text("version: 1\n")
    (tmp_path / "broker.toml").write_text("")
    environment = cli.environment | {"BROKER_KEYRING": "off", "PYTHONPATH": str(ROOT)}
    del environment["PYTHONWARNINGS"]
    done = subprocess.run(
        cli.argv(*words),
        env=environment, cwd=tmp_path, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_console_script_is_this_entry():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"broker": "broker.entry:main"}


# --- directories ------------------------------------------------------------------


@pytest.mark.parametrize("config", [None, "/xdg/config", "relative", ""])
def test_directories_are_those_of_the_platform(monkeypatch: pytest.MonkeyPatch, config: str | None):
    for name in ("BROKER_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/alice")
    if config is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", config)
        monkeypatch.setenv("XDG_STATE_HOME", config)
    monkeypatch.setattr(sys, "platform", "linux")
    if config != "relative":  # which the XDG specification has ignored
        unix = platformdirs.unix.Unix("broker", appauthor=False)
        assert paths.config_directory() == unix.user_config_dir
        assert paths.state_directory() == unix.user_state_dir
    else:
        assert paths.state_directory() == "/home/alice/.local/state/broker"
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    macos = platformdirs.macos.MacOS("broker", appauthor=False)
    assert paths.config_directory() == macos.user_config_dir


def test_two_servers_never_share_a_directory():
    origins = [
        "https://broker.example.com",
        "https://broker.example.com:8443",
        "http://127.0.0.1:8443",
        "http://[::1]:8443",
        "http://[::1]",
    ]
    assert len({paths.login_directory(origin) for origin in origins}) == len(origins)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("8h", 28800), ("3d", 259200), ("900", 900), ("90s", 90)]
)
def test_durations(text: str, seconds: int):
    assert cached.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "1.5h", "-1", "1w", "h", "1h30m", "٣", "²", "9" * 30]
)
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="not a duration"):
        cached.parse_duration(text)
