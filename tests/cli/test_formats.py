"""Quoting, judged by the shells that read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.cli import formats
from broker.cli.credentials import Credentials, parse
from broker.cli.failure import Unreachable, WrongUsage
from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker

HOSTILE = "'; touch /tmp/pwned; echo '$(id)`id`\"$HOME\\!{x}&|<>*?~#%\\'"
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
shells = pytest.mark.parametrize(
    "shell", [name for name in ("sh", "bash", "dash", "zsh", "busybox") if shutil.which(name)]
)


def credentials(secret: str, region: str | None = "eu-central-1") -> Credentials:
    expires = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Credentials(
        "ASIAEXAMPLE", secret, f"tok{secret}", expires, None, region, 3600, "role_default", "iss-1"
    )


def evaluated(shell: str, text: str) -> dict[str, str]:
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = f"{text}\nenv -0"
    done = subprocess.run([*words, "-c", script], capture_output=True, check=True, timeout=20)
    assert done.stderr == b""
    pairs = done.stdout.decode().strip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


@shells
def test_env_survives_hostile_values(shell: str):
    environment = evaluated(shell, formats.as_env(credentials(HOSTILE)))
    assert environment["AWS_SECRET_ACCESS_KEY"] == HOSTILE
    assert environment["AWS_SESSION_TOKEN"] == f"tok{HOSTILE}"
    assert environment["AWS_CREDENTIAL_EXPIRATION"] == "2026-01-02T03:04:05Z"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-central-1"


@shells
@settings(max_examples=5, deadline=None)
@given(values=st.lists(printable, min_size=40, max_size=40))
def test_sh_quote_is_undone_by_the_shell(shell: str, values: list[str]):
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = "printf '%s\\n' " + " ".join(formats.sh_quote(value) for value in values)
    done = subprocess.run([*words, "-c", script], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode().splitlines() == values


@given(printable)
def test_fish_quoting_by_fish_s_rules(value: str):
    r"""In single quotes: `\'` is a quote, `\\` a backslash, the next bare quote ends it."""
    quoted = formats.fish_quote(value)
    match = re.fullmatch(r"'((?:[^'\\]|\\['\\])*)'", quoted)
    assert match is not None
    assert re.sub(r"\\(['\\])", r"\1", match[1]) == value


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=60))
def test_powershell_quoting_by_powershell_s_rules(value: str):
    """In a verbatim string any kind of single quote is doubled; a lone one ends it."""
    quoted = formats.powershell_quote(value)
    quotes = "'\u2018\u2019\u201a\u201b"
    match = re.fullmatch(f"'((?:[^{quotes}]|([{quotes}])\\2)*)'", quoted)
    assert match is not None
    assert re.sub(f"([{quotes}])\\1", r"\1", match[1]) == value


def test_lines_of_each_format():
    plain = credentials("abc/+=", region=None)
    assert formats.as_env(plain).splitlines()[0] == "export AWS_ACCESS_KEY_ID='ASIAEXAMPLE'"
    assert formats.as_fish(plain).splitlines()[0] == "set -gx AWS_ACCESS_KEY_ID 'ASIAEXAMPLE'"
    assert formats.as_powershell(plain).splitlines()[0] == "$Env:AWS_ACCESS_KEY_ID = 'ASIAEXAMPLE'"
    assert formats.as_dotenv(plain).splitlines() == [
        "AWS_ACCESS_KEY_ID=ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY=abc/+=",
        "AWS_SESSION_TOKEN=tokabc/+=",
        "AWS_CREDENTIAL_EXPIRATION=2026-01-02T03:04:05Z",
    ]


@pytest.mark.parametrize("character", list(" #$\"'`\\{}!&;|<>()*?~^"))
def test_dotenv_refuses_what_readers_disagree_on(character: str):
    with pytest.raises(WrongUsage) as refusal:
        formats.as_dotenv(credentials(f"abc{character}def"))
    assert "abc" not in str(refusal.value)


def test_repr_shows_nothing():
    assert "abc" not in repr(credentials("abc"))
    assert "abc" not in f"{credentials('abc')}"


def answer(**changes: object) -> dict[str, object]:
    secret = {
        "access_key_id": "ASIAEXAMPLE",
        "secret_access_key": "secret",
        "session_token": "token",
        "expiration": "2026-01-02T03:04:05Z",
    }
    return {"credentials": {**secret, **changes}, "account_id": "111122223333"}


@pytest.mark.parametrize(
    "changes",
    [
        {"secret_access_key": "two\nlines"},
        {"secret_access_key": "nul\0"},
        {"secret_access_key": ""},
        {"secret_access_key": None},
        {"secret_access_key": ["x"]},
        {"session_token": "esc\x1b[2J"},
        {"session_token": "quote\u2019"},
        {"session_token": "x" * 20_000},
        {"access_key_id": "with space"},
        {"expiration": "tomorrow"},
        {"expiration": "2026-01-02T03:04:05"},
        {"expiration": "2026-01-02T03:04:05+00:00"},
        {"expiration": "2026-13-02T03:04:05Z"},
        {"expiration": "2026-01-02T03:04:05Z\n"},
        {"expiration": 1767323045},
    ],
)
def test_values_that_no_credential_has_are_refused(changes: dict[str, object]):
    with pytest.raises(Unreachable) as refusal:
        parse(answer(**changes))
    for value in changes.values():
        if value:
            assert str(value) not in str(refusal.value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"credentials": None},
        {"credentials": []},
        answer() | {"account_id": "1; rm -rf"},
        answer() | {"region": "eu'; id"},
        answer() | {"region": 1},
    ],
)
def test_answers_of_another_shape_are_refused(value: dict[str, object]):
    with pytest.raises(Unreachable):
        parse(value)


@pytest.mark.parametrize("name", list(formats.FORMATS))
def test_every_format_from_the_command_line(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, name: str
):
    done = cli.inside("creds", "data-reader", "--format", name)
    assert done.code == 0, done.err
    assert broker.credentials["secret_access_key"] in done.out
    if name == "json":
        json.loads(done.out)


def test_a_hostile_broker_can_not_run_anything_through_eval(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.credentials["session_token"] = HOSTILE.replace(" ", "")
    done = cli("creds", "data-reader", "--format", "env")
    assert done.code == 0
    environment = evaluated("sh", done.out)
    assert environment["AWS_SESSION_TOKEN"] == HOSTILE.replace(" ", "")
    broker.credentials["session_token"] = "x\nid"
    done = cli("creds", "data-reader", "--format", "env")
    assert (done.code, done.out) == (4, "")
