"""Tokens: refreshed once by many, kept until replaced, given up when the broker says so."""

from __future__ import annotations

import json
import stat

import pytest

from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import CODE, FakeBroker, Reply, Seen
from tests.cli.terminals import type_on_terminal


def test_twenty_processes_refresh_once(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=30)
    broker.delay = 0.2
    processes = [cli.start("whoami", "--json") for _ in range(20)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert json.loads(out)["handle"] == "alice@example.com"
    assert broker.refreshes == 1
    assert broker.count("/v1/me") == 20


def test_a_token_with_a_minute_left_is_not_refreshed(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=120)
    assert cli("whoami").code == 0
    assert broker.refreshes == 0


def test_a_rejected_token_is_refreshed_once_and_the_request_repeated(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.access_tokens.clear()  # a restart, a revocation, a clock that jumped
    assert cli("whoami").code == 0
    assert broker.refreshes == 1
    assert broker.count("/v1/me") == 2


def test_a_broker_that_rejects_every_token_is_asked_twice(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies["/v1/me"] = Reply.problem(401, "unauthenticated", "Sign in first.")
    done = cli("whoami")
    assert done.code == 3
    assert "unauthenticated" in done.err
    assert broker.count("/v1/me") == 2
    assert broker.refreshes == 1


def test_many_processes_with_a_rejected_token_refresh_once(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.access_tokens.clear()
    broker.delay = 0.2
    processes = [cli.start("whoami") for _ in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6
    for process in processes:
        process.communicate()
    assert broker.refreshes == 1


def test_a_refused_refresh_is_a_logout(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=1)
    broker.refresh_token = "bkr_another"
    done = cli("whoami")
    assert done.code == 3
    assert "broker login" in done.err
    assert not list(cli.home.rglob("tokens.json"))
    before = broker.count("/oauth/token")
    assert cli("whoami").code == 3
    assert broker.count("/oauth/token") == before


@pytest.mark.parametrize(
    "reply",
    [
        Reply(502, b"<html>bad gateway", "text/html"),
        Reply.of({"error": "temporarily_unavailable"}, 503),
        Reply.problem(503, "audit_unavailable"),
        Reply.of({"access_token": "x"}),
        Reply(200, b'{"access_token"', truncate=True),
    ],
)
def test_a_refresh_that_fails_otherwise_keeps_the_old_token(
    cli: Cli, broker: FakeBroker, log_in, reply: Reply
):
    """The server takes the old one for 60 s more: a lost reply must not end the login."""
    log_in(expires_in=1)
    broker.replies["/oauth/token"] = reply
    done = cli.inside("whoami")
    assert done.code in (1, 4)
    del broker.replies["/oauth/token"]
    assert cli.inside("whoami").code == 0


def test_a_login_that_others_could_have_written_is_not_used(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    (path,) = cli.home.rglob("tokens.json")
    path.chmod(0o644)
    assert cli("whoami").code == 3
    path.chmod(0o600)
    assert cli("whoami").code == 0


def test_a_broken_token_file_is_no_login(cli: Cli, logged_in: Tokens):
    (path,) = cli.home.rglob("tokens.json")
    for content in (b"", b"{", b"[]", b'{"login_id": 1}', b"\xff\xfe", b"null"):
        path.write_bytes(content)
        assert cli.inside("whoami").code == 3, content


def test_refreshed_tokens_stay_private(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=1)
    cli("whoami")
    (path,) = cli.home.rglob("tokens.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_bytes())["refresh_token"] == broker.refresh_token


def test_a_killed_process_leaves_no_lock_behind(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=1)
    broker.delay = 30
    process = cli.start("whoami")
    broker.wait_until_asked("/oauth/token")
    process.kill()
    process.communicate()
    broker.delay = 0
    assert cli("whoami").code == 0


def test_without_a_terminal_nobody_is_asked_for_a_code(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.needs_factor = "mfa_stale"
    for words in (["creds", "data-reader"], ["credential-process", "data-reader"]):
        done = cli(*words)
        assert done.code == 5
        assert "mfa_stale" in done.err
        assert done.out == ""
    assert "broker mfa verify" in done.err
    assert broker.count("/v1/mfa/verify") == 0


def test_mfa_verify_takes_a_piped_code(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.needs_factor = "mfa_stale"
    assert cli("mfa", "verify", stdin=f"{CODE}\n".encode()).code == 0
    assert cli("creds", "data-reader").code == 0


@pytest.mark.parametrize(
    "code", ["000000", "", "12345", "\uff11\uff12\uff13\uff14\uff15\uff16", "123456; rm"]
)
def test_mfa_verify_refuses_what_is_no_code_or_wrong(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, code: str
):
    assert cli.inside("mfa", "verify", stdin=f"{code}\n".encode()).code == 5
    assert broker.count("/v1/mfa/verify") == (1 if code == "000000" else 0)


def test_on_a_terminal_the_code_is_asked_for_and_not_echoed(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.needs_factor = "mfa_required"
    code, shown = type_on_terminal(
        cli, ["creds", "data-reader"], [(b"Code of your authenticator: ", f"{CODE}\n".encode())]
    )
    assert code == 0
    assert b"ASIAEXAMPLEEXAMPLE00" in shown
    assert CODE.encode() not in shown
    assert b"bound by role_default" in shown


def test_a_wrong_code_is_not_asked_for_again(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.needs_factor = "mfa_required"
    code, shown = type_on_terminal(
        cli, ["creds", "data-reader"], [(b"Code of your authenticator: ", b"000000\n")]
    )
    assert code == 5
    assert b"ASIA" not in shown
    assert broker.count("/v1/mfa/verify") == 1


def test_credential_process_asks_nobody_even_on_a_terminal(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.needs_factor = "mfa_required"
    code, shown = type_on_terminal(cli, ["credential-process", "data-reader"], [])
    assert code == 5
    assert b"Code of your authenticator" not in shown


def test_a_keep_alive_that_the_server_ended_is_not_reused(cli: Cli, broker: FakeBroker, log_in):
    log_in(expires_in=1)

    def close_after(request: Seen) -> Reply:
        return Reply.of(broker.new_pair(), Connection="close")

    broker.replies["/oauth/token"] = close_after
    assert cli("whoami").code == 0
