"""Logging in through the loopback redirect, and out again."""

from __future__ import annotations

import http.client
import re
import stat
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply, serving


def secret_values(broker: FakeBroker) -> list[str]:
    return [*broker.access_tokens, str(broker.refresh_token)]


def test_login_stores_tokens_privately_and_remembers_the_server(cli: Cli, broker: FakeBroker):
    del cli.environment["BROKER_SERVER"]
    done = cli("login", "--server", broker.origin)
    assert (done.code, done.out) == (0, "")
    assert broker.origin in done.err
    assert "/oauth/authorize?" in done.err
    for secret in secret_values(broker):
        assert secret not in done.err
    for path in [cli.home, *cli.home.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert cli("whoami").code == 0


def test_a_umask_that_lets_everybody_in_changes_nothing(cli: Cli, broker: FakeBroker):
    code = "import os,sys; os.umask(0); from broker.entry import main; sys.exit(main())"
    words = [cli.argv()[0], "-c", code, "login"]
    subprocess.run(words, env=cli.environment, check=True, capture_output=True, timeout=60)
    for path in cli.home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_authorization_request_is_fresh_each_time(cli: Cli, broker: FakeBroker):
    cli("login")
    cli("login")
    first, second = [seen.query for seen in broker.seen if seen.path == "/oauth/authorize"]
    for query in (first, second):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", query["redirect_uri"])
        assert query["response_type"] == "code"
        assert len(query["state"]) >= 43
        assert len(query["code_challenge"]) == 43
    assert first["state"] != second["state"]
    assert first["code_challenge"] != second["code_challenge"]


def test_a_second_login_ends_the_first_on_the_broker(cli: Cli, broker: FakeBroker):
    cli("login")
    first = broker.refresh_token
    assert cli("login").code == 0
    assert broker.revoked == [first]
    assert cli("whoami").code == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", "https://evil.example"),
        ("token_endpoint", "https://evil.example/oauth/token"),
        ("token_endpoint", "http://127.0.0.1:1/oauth/token"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("revocation_endpoint", "//evil.example/revoke"),
        ("code_challenge_methods_supported", ["plain"]),
        ("code_challenge_methods_supported", 7),
    ],
)
def test_metadata_that_points_elsewhere_is_refused(
    cli: Cli, broker: FakeBroker, name: str, value: object
):
    broker.metadata = {name: value}
    done = cli("login")
    assert done.code == 4, done.err
    assert broker.count("/oauth/authorize") == 0


def test_an_answer_of_another_issuer_is_refused(cli: Cli, broker: FakeBroker):
    broker.authorize_answer = lambda answer: {**answer, "iss": "https://evil.example"}
    assert cli("login").code == 1
    assert broker.count("/oauth/token") == 0


def test_an_answer_that_hides_its_issuer_is_refused(cli: Cli, broker: FakeBroker):
    broker.authorize_answer = lambda answer: {k: v for k, v in answer.items() if k != "iss"}
    assert cli("login").code == 1
    assert broker.count("/oauth/token") == 0


def test_a_person_who_denies_is_told_so(cli: Cli, broker: FakeBroker):
    broker.authorize_answer = lambda answer: {
        "error": "access_denied",
        "state": answer["state"],
        "iss": answer["iss"],
    }
    done = cli("login")
    assert done.code == 1
    assert "access_denied" in done.err


def test_a_code_of_someone_else_is_refused_by_the_broker(cli: Cli, broker: FakeBroker):
    broker.authorize_answer = lambda answer: {**answer, "code": "stolen"}
    done = cli("login")
    assert done.code == 1
    assert "invalid_grant" in done.err
    assert cli("whoami").code == 3


def fetch(
    url: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, dict[str, str]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=10)
    connection.request(
        method, url.partition(parts.netloc)[2], headers={"Host": host or parts.netloc}
    )
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body = response.read().decode()
    connection.close()
    return response.status, body, headers


def test_the_listener_ignores_everything_but_its_answer(cli: Cli, broker: FakeBroker):
    process = cli.start("login", "--no-browser")
    assert process.stderr is not None
    url = next(line.decode().strip() for line in process.stderr if b"/oauth/authorize?" in line)
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    redirect, state = query["redirect_uri"], query["state"]
    port = urlsplit(redirect).port

    def answer(**values: str) -> str:
        return f"{redirect}?{urlencode(values)}"

    strangers = [
        (redirect, "GET", None),
        (answer(code="x"), "GET", None),
        (answer(code="x", state="wrong", iss=broker.origin), "GET", None),
        (answer(code="x", state="ü", iss=broker.origin), "GET", None),
        (answer(state=state, iss=broker.origin), "GET", None),
        (answer(code="x", error="y", state=state), "GET", None),
        (answer(code="x", state=state) + "&code=y", "GET", None),
        (answer(code="x", state=state).replace("/callback", "/callback/"), "GET", None),
        (answer(code="x", state=state).replace("/callback", "/other"), "GET", None),
        (answer(code="x", state=state), "POST", None),
        (answer(code="x", state=state, iss=broker.origin), "GET", f"evil.example:{port}"),
        (answer(code="x" * 5000, state=state), "GET", None),
    ]
    for stranger in strangers:
        status, body, _ = fetch(*stranger)
        assert status >= 400, stranger
        assert state not in body
    assert process.poll() is None

    # A browser's idle, speculative connection must not block the real one.
    idle = http.client.HTTPConnection("127.0.0.1", port or 0, timeout=10)
    idle.connect()
    status, _, headers = fetch(url)
    assert status == 303
    status, body, headers = fetch(headers["location"])
    assert status == 200
    assert "you may close this window" in body
    assert state not in body
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert process.wait(30) == 0
    process.communicate()
    idle.close()


def test_a_server_must_be_https_or_loopback(cli: Cli):
    done = cli("login", "--server", "http://broker.example.com")
    assert done.code == 2
    assert "https://broker.example.com" in done.err


@pytest.mark.parametrize(
    "address",
    [
        "broker.example.com",
        "https://user:pass@broker.example.com",
        "https://broker.example.com/path",
        "https://broker.example.com?x=1",
        "ftp://broker.example.com",
        "https://broker.example.com:99999",
        "https://broker example.com",
        "http://127.0.0.1.evil.example",
        "https://../..",
        "",
    ],
)
def test_an_address_that_is_none_is_wrong_usage(cli: Cli, address: str):
    done = (
        cli.inside("login", "--server", address)
        if address
        else cli.inside("login", "--server", " ")
    )
    assert done.code == 2, done.err
    assert "pass" not in done.err


def test_logout_ends_the_login_here_and_there(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    cli("credential-process", "data-reader")
    done = cli("logout")
    assert done.code == 0
    assert broker.revoked == [logged_in.refresh_token]
    kept = [path for path in cli.home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in kept] == ["server"]
    assert cli("whoami").code == 3
    assert cli("credential-process", "data-reader").code == 3
    assert cli("logout").code == 0


def test_logout_from_an_unreachable_broker_still_forgets(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies["/oauth/revoke"] = Reply(502, b"<html>", "text/html")
    done = cli("logout")
    assert done.code == 4
    assert "logged out here" in done.err
    assert not list(cli.home.rglob("tokens.json"))
    assert cli("whoami").code == 3


def test_logins_to_two_brokers_are_kept_apart(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    with serving() as other:
        assert cli("login", "--server", other.origin).code == 0
        assert cli("whoami").code == 0  # BROKER_SERVER still says the first
        assert broker.count("/v1/me") == 1
        del cli.environment["BROKER_SERVER"]
        assert cli("whoami").code == 0  # the last login is remembered
        assert other.count("/v1/me") == 1


def test_with_a_browser_that_fails_the_address_is_still_printed(cli: Cli, tmp_path: Path):
    cli.environment["BROWSER"] = str(tmp_path / "no-such-browser")
    cli.environment["PATH"] = "/nonexistent"
    process = cli.start("login")
    assert process.stderr is not None
    url = next(line.decode().strip() for line in process.stderr if b"/oauth/authorize?" in line)
    _, _, headers = fetch(url)
    fetch(headers["location"])
    assert process.wait(30) == 0
    process.communicate()
