"""`[[audit.sinks]]`: what is refused before anything starts, and what the log is told."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.sinks.files import FileSink, StdoutSink
from broker.adapters.sinks.s3 import S3Sink
from broker.adapters.sinks.syslog import SyslogSink
from broker.adapters.sinks.webhook import WebhookSink
from broker.errors import StartupError
from broker.settings import Settings, load
from broker.sink_setup import deliveries, entry
from tests.sinks.conftest import make_batch
from tests.sinks.receivers import syslog_receiver

SECRET = "a secret of enough length"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(f"{SECRET}\n")
    return str(path)


def settings(tmp_path: Path, text: str) -> Settings:
    config = tmp_path / "broker.toml"
    config.write_text(text)
    return load(config)


async def test_every_kind_is_made_from_its_table(tmp_path: Path, secret: str) -> None:
    found = settings(
        tmp_path,
        f"""
        [[audit.sinks]]
        name = "console"
        kind = "stdout"
        format = "ocsf"
        [[audit.sinks]]
        name = "disk"
        kind = "file"
        path = "{tmp_path}/audit.jsonl"
        from = "beginning"
        [[audit.sinks]]
        name = "syslog"
        kind = "syslog"
        host = "logs.example.com"
        [[audit.sinks]]
        name = "siem"
        kind = "webhook"
        url = "https://siem.example.com/in/PATH-THAT-IS-A-SECRET"
        secret_file = "{secret}"
        [[audit.sinks]]
        name = "archive"
        kind = "s3"
        bucket = "audit-logs"
        encryption = "aws:kms"
        kms_key_id = "alias/audit"
        """,
    )
    made = deliveries(found.audit.sinks, "https://broker.example.com")
    kinds = [StdoutSink, FileSink, SyslogSink, WebhookSink, S3Sink]
    assert [type(one.sink) for one in made] == kinds
    assert [one.entry.start for one in made] == ["now", "beginning", "now", "now", "now"]
    described = {one.name: dict(one.entry.description) for one in made}
    assert described["console"] == {"kind": "stdout", "format": "ocsf"}
    assert described["siem"] == {
        "kind": "webhook",
        "format": "native",
        "url": "https://siem.example.com",
        "path_sha256": sha256(b"/in/PATH-THAT-IS-A-SECRET").hexdigest(),
        "body": "lines",
        "signed": True,
    }
    assert described["archive"]["kms_key_id"] == "alias/audit"
    assert "A-SECRET" not in json.dumps(described)
    assert SECRET not in json.dumps(described)
    assert SECRET not in repr(found)
    assert SECRET not in repr(made)
    for one in made:
        await one.sink.aclose()


async def test_a_broker_of_any_name_is_named_in_syslog_in_ascii(tmp_path: Path) -> None:
    with syslog_receiver() as receiver:
        text = f"""
        [server]
        public_url = "https://bröker.example.com"
        [[audit.sinks]]
        name = "syslog"
        kind = "syslog"
        host = "127.0.0.1"
        port = {receiver.port}
        tls = false
        """
        found = settings(tmp_path, text)
        (one,) = deliveries(found.audit.sinks, found.server.public_url)
        await one.sink.deliver(make_batch(1, 1))
        await one.sink.aclose()
    assert b" xn--brker-kua.example.com broker - " in receiver.messages[0]


def test_the_environment_may_have_them_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"name": "console", "kind": "stdout", "from": "beginning"}
    monkeypatch.setenv("BROKER_AUDIT__SINKS", json.dumps([one]))
    (sink,) = load(None).audit.sinks
    assert entry(sink).start == "beginning"


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([{"name": "a", "kind": "carrier-pigeon"}], "kind"),
    ([{"name": "a"}], "kind"),
    ([{"name": "A!", "kind": "stdout"}], "name"),
    ([{"name": "a", "kind": "stdout", "colour": "red"}], "unknown key"),
    ([{"name": "a", "kind": "stdout", "from": "yesterday"}], "from"),
    ([{"name": "a", "kind": "stdout"}, {"name": "a", "kind": "stdout"}], "same name"),
    ([{"name": "a", "kind": "stdout"}, {"name": "b", "kind": "stdout"}], "one standard output"),
    (
        [{"name": "a", "kind": "file", "path": "x"}, {"name": "b", "kind": "file", "path": "./x"}],
        "same file",
    ),
    ([{"name": "a", "kind": "webhook", "url": "https://x.example"}], "secret_file"),
    ([{"name": "a", "kind": "webhook", "url": "http://x.example", "secret": SECRET}], "https"),
    (
        [{"name": "a", "kind": "webhook", "url": "https://u:p@x.example", "secret": SECRET}],
        "user names",
    ),
    ([{"name": "a", "kind": "webhook", "url": "https://x.example", "secret": "short"}], "under 16"),
    (
        [
            {
                "name": "a",
                "kind": "webhook",
                "url": "https://x.example",
                "authorization": "a\r\nb: c",
            }
        ],
        "one line",
    ),
    ([{"name": "a", "kind": "syslog", "host": "x\n"}], "host"),
    ([{"name": "a", "kind": "syslog", "host": "x", "tls": False, "ca_file": "y"}], "tls = true"),
    ([{"name": "a", "kind": "syslog", "host": "x", "key_file": "y"}], "certificate_file"),
    ([{"name": "a", "kind": "s3", "bucket": "UPPER"}], "bucket"),
    ([{"name": "a", "kind": "s3", "bucket": "logs", "kms_key_id": "k"}], "aws:kms"),
    ([{"name": "a", "kind": "s3", "bucket": "logs", "bucket_owner": "me"}], "bucket_owner"),
    ([{"name": "a", "kind": "stdout", "batch_records": 0}], "batch_records"),
]


@pytest.mark.parametrize(("sinks", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_what_can_not_be_meant_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, sinks: list[dict[str, Any]], match: str
) -> None:
    monkeypatch.setenv("BROKER_AUDIT__SINKS", json.dumps(sinks))
    with pytest.raises(StartupError) as refused:
        load(None)
    assert match in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_secret_that_others_may_read_stops_the_start(tmp_path: Path, secret: str) -> None:
    Path(secret).chmod(0o644)
    with pytest.raises(StartupError, match="chmod 600"):
        settings(
            tmp_path,
            '[[audit.sinks]]\nname = "a"\nkind = "webhook"\nurl = "https://x.example"\n'
            f'secret_file = "{secret}"\n',
        )
