"""`broker sinks`, and what doctor says of sinks: seen, moved and forgotten, on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.store.engine import Database
from broker.adapters.store.sinks import SinkEntry, SqlSinks
from broker.server_cli import main
from broker.server_cli.checks.sinks import sink_checks
from broker.settings import load
from tests.conftest import run_apart
from tests.store.journal_scene import log

SIEM = SinkEntry("siem", {"kind": "webhook", "url": "https://siem.example.com"}, "beginning")
OLD = SinkEntry("old", {"kind": "file", "path": "/var/log/audit.jsonl"})


@pytest.fixture
def url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that a server with two sinks has used, of which one fails and one is gone."""
    monkeypatch.setenv("BROKER_DATABASE__URL", sqlite_url)
    run_apart(_use(sqlite_url))
    return sqlite_url


async def _use(url: str) -> None:
    database = Database.open(url)
    store = SqlSinks(database)
    await store.configure([SIEM, OLD])
    await store.configure([SIEM])
    assert await store.claim("siem", SIEM.text, "someone")
    await store.fail("siem", "someone", "answered 503", retry_in=60)
    await database.aclose()


def records(url: str) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        database = Database.open(url)
        try:
            return await log(database)
        finally:
            await database.aclose()

    return run_apart(read())


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["sinks", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_stands_of_each_sink_is_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert "old: at record 0, 3 records behind, not in the settings" in out
    assert "siem: at record 0, 3 records behind, failed 1 times since 2" in out
    assert "answered 503" in out
    _, out, _ = run(capsys, "--json")
    old, siem = json.loads(out)
    assert (old["name"], old["removed"]) == ("old", True)
    assert (siem["lag"], siem["failures"], siem["last_error"]) == (3, 1, "answered 503")
    assert siem["destination"] == dict(SIEM.description)


def test_a_sink_is_moved_on_record(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "move", "siem", "--to", "2")
    assert (code, out) == (0, "siem goes on after record 2. This is on record.\n")
    moved = records(url)[-1]
    assert moved["type"] == "audit.sinks_changed"
    assert moved["subject"] == {"sink": "siem"}
    assert moved["detail"] == {
        "change": "moved",
        "before": {"position": 0},
        "after": {"position": 2},
        "position": 2,
    }
    assert run(capsys, "move", "siem", "--to", "now")[1].startswith("siem goes on after record 4.")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("move", "siem", "--to", "99"), "the log has the records 1 to 3"),
        (("move", "nobody", "--to", "0"), "there is no sink nobody"),
        (("forget", "nobody"), "there is no sink nobody"),
        (("forget", "siem"), "siem is in use: take it out of the settings first"),
    ],
)
def test_what_can_not_be_is_one_line(
    url: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    before = records(url)
    assert run(capsys, *words) == (1, "", f"broker: {complaint}\n")
    assert records(url) == before


@pytest.mark.parametrize("place", ["-1", "1.5", "soon", "٣", "1" * 19])
def test_a_place_is_a_number_or_a_word(
    url: str, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    with pytest.raises(SystemExit):
        main(["sinks", "move", "siem", "--to", place])
    assert "write a record's number" in capsys.readouterr().err or place == "-1"


def test_a_sink_that_is_out_of_use_is_forgotten(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "forget", "old")[0] == 0
    assert records(url)[-1]["detail"]["change"] == "forgotten"
    assert "old" not in run(capsys)[1]


def test_doctor_says_what_is_behind_unknown_or_in_the_clear(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("a secret of enough length")
    sinks = [
        {"name": "siem", "kind": "webhook", "url": "https://siem.example.com",
         "secret_file": str(secret)},
        {"name": "plain", "kind": "syslog", "host": "logs.example.com", "tls": False},
        {"name": "disk", "kind": "file", "path": str(tmp_path / "absent" / "audit.jsonl")},
    ]  # fmt: skip
    monkeypatch.setenv("BROKER_AUDIT__SINKS", json.dumps(sinks))
    settings = load(None)

    async def look() -> dict[str, str]:
        database = Database.open(url)
        try:
            return {one.name: one.message for one in await sink_checks(settings, database)}
        finally:
            await database.aclose()

    said = run_apart(look())
    assert "plain TCP" in said["sink plain"]
    assert "no folder" in said["sink disk"]
    assert "is in no [[audit.sinks]]" in said["sink old"]
    assert "the last of 1 failures: answered 503" in said["sink siem"]
