"""creds, credential-process and exec: what is asked, what is given, what is kept."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.cli import cached
from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply

SECRETS = ("wJalr", "FwoGZX", "bka_", "bkr_")


def cache_files(cli: Cli) -> list[Path]:
    return sorted(path for path in cli.home.rglob("cache/*") if path.is_file())


def test_creds_json_is_the_shape_of_credential_process(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    done = cli("creds", "data-reader")
    assert done.code == 0
    assert done.err == ""
    value = json.loads(done.out)
    assert sorted(value) == [
        "AccessKeyId",
        "AccountId",
        "Expiration",
        "SecretAccessKey",
        "SessionToken",
        "Version",
    ]
    assert value["Version"] == 1
    assert datetime.fromisoformat(value["Expiration"]).tzinfo is not None


def test_everything_that_is_asked_reaches_the_broker(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    statement = {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"}
    restrict = tmp_path / "deny.json"
    restrict.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    words = ["--duration", "45m", "--set", "bucket=a=b", "--set=prefix=", "--reason", "T-1 ü"]
    done = cli("creds", "data-reader", *words, "--restrict", str(restrict))
    assert done.code == 0, done.err
    assert broker.last("/v1/credentials").json() == {
        "role": "data-reader",
        "client": "broker creds",
        "duration": 2700,
        "parameters": {"bucket": "a=b", "prefix": ""},
        "reason": "T-1 ü",
        "restrict": [statement],
    }
    assert broker.last("/v1/credentials").headers["user-agent"].startswith("broker/")


@pytest.mark.parametrize(
    "content",
    [
        '{"Effect": "Allow", "Action": "*", "Resource": "*"}',
        '[{"Effect": "Deny"}, {"Effect": "Allow"}]',
        "[]",
        "[1]",
        "{",
        "[" * 100_000,
        '{"effect": "Deny"}',
    ],
)
def test_a_restriction_that_is_no_deny_is_wrong_usage(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, content: str
):
    done = cli.inside("creds", "data-reader", "--restrict", "-", stdin=content.encode())
    assert done.code == 2
    assert broker.count("/v1/credentials") == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["Data-Reader"],
        ["../../etc"],
        ["role", "--duration", "soon"],
        ["role", "--duration", "-5m"],
        ["role", "--duration", "٣m"],
        ["role", "--set", "novalue"],
        ["role", "--set", "=x"],
        ["role", "--set", "a=1", "--set", "a=2"],
        ["role", "--dur", "1h"],
        ["role", "extra"],
    ],
)
def test_wrong_usage_asks_nobody(cli: Cli, broker: FakeBroker, logged_in: Tokens, words: list[str]):
    for command in ("creds", "credential-process"):
        assert cli.inside(command, *words).code == 2
    assert broker.seen == []


def test_creds_are_fresh_each_time_and_never_kept(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli("creds", "data-reader")
    cli("creds", "data-reader")
    assert broker.count("/v1/credentials") == 2
    assert cache_files(cli) == []


def test_credential_process_asks_once_and_keeps_the_answer_privately(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    first = cli("credential-process", "data-reader", "--set", "bucket=reports")
    again = cli("credential-process", "data-reader", "--set=bucket=reports")
    assert first.code == again.code == 0
    assert first.out == again.out
    assert json.loads(first.out)["AccountId"] == "111122223333"
    assert broker.count("/v1/credentials") == 1
    (path,) = cache_files(cli)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_changes_the_answer_changes_the_key(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    asked = [
        ["data-reader"],
        ["other-role"],
        ["data-reader", "--duration", "1h"],
        ["data-reader", "--reason", "T-1"],
        ["data-reader", "--set", "a=b"],
        ["data-reader", "--set", "a=b", "--set", "c=d"],
    ]
    for words in asked:
        cli.inside("credential-process", *words)
    assert broker.count("/v1/credentials") == len(asked)
    for words in (
        ["data-reader", "--duration=3600"],
        ["data-reader", "--set", "c=d", "--set", "a=b"],
    ):
        cli.inside("credential-process", *words)
    assert broker.count("/v1/credentials") == len(asked)


@pytest.mark.parametrize("minutes", [15, 14, 1])
def test_an_answer_with_less_than_fifteen_minutes_is_not_kept(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, minutes: int
):
    broker.lifetime = timedelta(minutes=minutes)
    assert cli.inside("credential-process", "data-reader").code == 0
    assert cli.inside("credential-process", "data-reader").code == 0
    assert broker.count("/v1/credentials") == 2
    assert cache_files(cli) == []


def rewrite_times(path: Path, made: float, serve_until: float) -> None:
    lines = path.read_bytes().split(b"\n", 4)
    lines[3] = b"%d %d" % (int(made), int(serve_until))
    path.write_bytes(b"\n".join(lines))


def test_a_kept_answer_is_dropped_when_its_time_is_over(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    cli("credential-process", "data-reader")
    cli("credential-process", "other-role")
    now = time.time()
    for path in cache_files(cli):
        rewrite_times(path, now - 3600, now - 1)
    cli("credential-process", "data-reader")
    assert broker.count("/v1/credentials") == 3
    # The other one's secrets do not lie around either.
    assert len(cache_files(cli)) == 1


def test_a_clock_that_went_back_revives_nothing(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli("credential-process", "data-reader")
    (path,) = cache_files(cli)
    now = time.time()
    rewrite_times(path, now + 3600, now + 7200)
    cli("credential-process", "data-reader")
    assert broker.count("/v1/credentials") == 2


def test_a_clock_that_is_behind_does_not_stretch_the_lifetime(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    """The expiry looks two days away here, but an hour was granted."""
    broker.expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 172800))
    cli("credential-process", "data-reader")
    (path,) = cache_files(cli)
    serve_until = int(path.read_bytes().split(b"\n")[3].split()[1])
    assert serve_until <= time.time() + 3600 - cached.RESERVE_SECONDS


def test_another_login_does_not_see_the_answers_of_the_one_before(
    cli: Cli, broker: FakeBroker, log_in
):
    log_in(login_id="alice")
    cli("credential-process", "data-reader")
    kept = cache_files(cli)[0].read_bytes()
    log_in(login_id="bob")
    assert cache_files(cli) == []
    # Not even where a process of the old login wrote it a moment later.
    path = cli.home / kept_path(cli, kept)
    path.write_bytes(kept)
    path.chmod(0o600)
    cli("credential-process", "data-reader")
    assert broker.count("/v1/credentials") == 2


def kept_path(cli: Cli, kept: bytes) -> Path:
    key = kept.split(b"\n")[1]
    (directory,) = cli.home.rglob("cache")
    return directory / f"data-reader-{zlib.crc32(key):08x}"


def test_a_kept_answer_that_others_could_have_written_is_not_served(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    cli("credential-process", "data-reader")
    (path,) = cache_files(cli)
    path.chmod(0o620)
    cli("credential-process", "data-reader")
    assert broker.count("/v1/credentials") == 2


def test_a_link_in_the_place_of_a_kept_answer_is_not_followed(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    cli("credential-process", "data-reader")
    (path,) = cache_files(cli)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    cli("credential-process", "data-reader")
    assert broker.count("/v1/credentials") == 2


def test_broken_cache_files_are_misses(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli.inside("credential-process", "data-reader")
    (path,) = cache_files(cli)
    whole = path.read_bytes()
    lines = whole.split(b"\n", 4)
    broken = [
        b"",
        whole[:40],
        b"\n\n\n\n",
        b"\n".join([*lines[:3], b"x y", lines[4]]),
        b"\n".join([*lines[:3], b"1", lines[4]]),
        b"\n".join([lines[0], lines[1].replace(b"data", b"evil"), *lines[2:]]),
        b"\n".join([b"broker-credentials 2", *lines[1:]]),
    ]
    for number, content in enumerate(broken, 2):
        path.write_bytes(content)
        path.chmod(0o600)
        done = cli.inside("credential-process", "data-reader")
        assert (done.code, broker.count("/v1/credentials")) == (0, number), content


def test_ten_processes_ask_once(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.delay = 0.3
    processes = [cli.start("credential-process", "data-reader") for _ in range(10)]
    answers = set()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        answers.add(out)
    assert len(answers) == 1
    assert broker.count("/v1/credentials") == 1


def test_refusals_name_the_code_and_are_not_kept(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies["/v1/credentials"] = Reply.problem(403, "outside_hours", "Not at night.")
    for _ in range(2):
        done = cli("credential-process", "data-reader")
        assert done.code == 1
        assert done.out == ""
        assert done.err == "broker: outside_hours: Not at night. (request req-1)\n"
    assert broker.count("/v1/credentials") == 2


# --- exec ---------------------------------------------------------------------

SHOW = "import json, os, sys; json.dump([dict(os.environ), sys.argv[1:]], sys.stdout)"


def test_exec_gives_the_child_these_credentials_alone(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    cli.environment |= {
        "AWS_PROFILE": "other",
        "AWS_ACCESS_KEY_ID": "AKIAOLD",
        "AWS_SECURITY_TOKEN": "old",
        "AWS_ROLE_ARN": "arn:old",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/old",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://old",
        "AWS_CA_BUNDLE": "/kept",
    }
    done = cli("exec", "data-reader", "--", sys.executable, "-c", SHOW, "--debug", "--", "a b")
    assert done.code == 0, done.err
    environment, arguments = json.loads(done.out)
    assert arguments == ["--debug", "--", "a b"]
    given = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    expiration = given.pop("AWS_CREDENTIAL_EXPIRATION")
    assert datetime.fromisoformat(expiration).tzinfo is not None
    assert given == {
        "AWS_ACCESS_KEY_ID": broker.credentials["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": broker.credentials["secret_access_key"],
        "AWS_SESSION_TOKEN": broker.credentials["session_token"],
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": "/kept",
    }
    assert cache_files(cli) == []


def test_exec_keeps_the_callers_region(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli.environment["AWS_DEFAULT_REGION"] = "us-west-2"
    done = cli("exec", "data-reader", "--", sys.executable, "-c", SHOW)
    environment = json.loads(done.out)[0]
    assert environment["AWS_DEFAULT_REGION"] == "us-west-2"
    assert "AWS_REGION" not in environment


def test_exec_is_the_command_its_exit_code_included(cli: Cli, logged_in: Tokens):
    code = "import sys; sys.exit(43)"
    assert cli("exec", "data-reader", "--", sys.executable, "-c", code).code == 43
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    assert cli("exec", "data-reader", "--", sys.executable, "-c", code).code == -15


def test_exec_of_nothing_issues_nothing(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    cases = [
        (["no-such-command-here"], 127),
        ([str(tmp_path / "missing")], 127),
        ([str(plain)], 126),
        ([str(tmp_path)], 126),
    ]
    for words, code in cases:
        assert cli.inside("exec", "data-reader", "--", *words).code == code
    assert cli.inside("exec", "data-reader").code == 2
    assert cli.inside("exec", "data-reader", "--").code == 2
    assert cli.inside("exec", "data-reader", "true").code == 2
    assert broker.count("/v1/credentials") == 0


def test_exec_of_a_file_that_the_kernel_does_not_know(cli: Cli, logged_in: Tokens, tmp_path: Path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\x01\x02")
    garbage.chmod(0o700)
    assert cli("exec", "data-reader", "--", str(garbage)).code == 126


def test_debug_says_more_and_nothing_secret(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    for words in (
        ["--debug", "creds", "data-reader"],
        ["creds", "data-reader", "--debug"],
        ["credential-process", "data-reader", "--debug"],
        ["exec", "data-reader", "--debug", "--", "true"],
    ):
        done = cli(*words)
        assert done.code == 0
        assert "POST /v1/credentials -> 200" in done.err
        assert not any(secret in done.err for secret in SECRETS)


def test_interrupted_it_ends_quietly_with_130(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.delay = 30
    process = cli.start("creds", "data-reader")
    broker.wait_until_asked("/v1/credentials")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_leaves_is_no_error(cli: Cli, logged_in: Tokens):
    reading, writing = os.pipe()
    os.close(reading)
    process = cli.start("roles", stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 141


def test_the_aws_sdk_takes_the_answer(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    """botocore runs the helper itself, from a profile, and believes what it prints."""
    command = f"{sys.executable} -m broker.entry credential-process data-reader"
    config = tmp_path / "config"
    config.write_text(f"[profile p]\ncredential_process = {command}\n")
    code = (
        "import botocore.session as s; c = s.Session(profile='p').get_credentials();"
        "f = c.get_frozen_credentials(); print(c.method, f.access_key, f.token, f.account_id)"
    )
    environment = cli.environment | {"AWS_CONFIG_FILE": str(config), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().split() == [
        "custom-process",
        broker.credentials["access_key_id"],
        broker.credentials["session_token"],
        "111122223333",
    ]
