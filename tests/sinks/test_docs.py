"""docs/operations/sinks.md: its settings start a broker, its code verifies what one sends."""

from __future__ import annotations

import asyncio
import hmac
import time
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.sinks.files import FileSink, Rotation
from broker.adapters.sinks.webhook import WebhookConfig, WebhookSink
from broker.adapters.store.records import AuditRecords
from broker.audit.ocsf import ACTIVITIES, OcsfClass
from broker.audit.verify import Verifier
from broker.settings import load
from broker.sink_setup import entry
from tests.docs.pages import DOCS, Block, blocks
from tests.sinks.conftest import Log, make_batch, until
from tests.sinks.receivers import webhook_receiver

PAGE = DOCS / "operations" / "sinks.md"
SECRET = b"a secret of enough length"


def block(file: str) -> Block:
    (found,) = [one for one in blocks(PAGE) if one.file == file]
    return found


def test_the_settings_are_settings(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_bytes(SECRET)
    config = tmp_path / "broker.toml"
    config.write_text(block("broker.toml").text.replace("/etc/broker/siem-secret", str(secret)))
    sinks = load(config).audit.sinks
    assert [one.kind for one in sinks] == ["webhook", "syslog", "s3", "file", "stdout"]
    assert entry(sinks[2]).start == "beginning"


async def test_the_receivers_code_tells_the_brokers_requests_from_others() -> None:
    code: dict[str, Any] = {}
    exec(block("receiver.py").text, code)
    is_from_broker = code["is_from_broker"]
    with webhook_receiver(SECRET) as receiver:
        sink = WebhookSink(WebhookConfig(receiver.url, 30.0, secret=SECRET))
        await sink.deliver(make_batch())
        await sink.aclose()
    (posted,) = receiver.seen
    headers, body = posted.headers, posted.body
    assert is_from_broker(SECRET, headers, body)
    assert not is_from_broker(b"another secret of length", headers, body)
    assert not is_from_broker(SECRET, headers, body + b" ")
    assert not is_from_broker(SECRET, {}, body)
    later = str(int(time.time()) + 10)
    assert not is_from_broker(SECRET, headers | {"Broker-Timestamp": later}, body)
    old = str(int(time.time()) - 3600)
    signed = hmac.new(SECRET, old.encode() + b"." + body, "sha256").hexdigest()
    sent_again = {"Broker-Timestamp": old, "Broker-Signature": f"v1={signed}"}
    assert not is_from_broker(SECRET, sent_again, body)


async def test_rotated_files_with_repeats_verify_by_the_pages_command(
    log: Log, tmp_path: Path
) -> None:
    (command,) = [line.strip() for line in PAGE.read_text("utf-8").splitlines() if "awk" in line]
    sink = FileSink("siem", tmp_path / "audit.jsonl", Rotation(4096, 100))
    await log.record(150)
    async with log.delivering(sink, batch_records=10):
        await until(log.done)
        await log.store.move("siem", 40)
        await until(log.done)
    shell = await asyncio.create_subprocess_shell(command, cwd=tmp_path)
    assert await shell.wait() == 0
    verifier = Verifier()
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    assert all(verifier.feed(line) for line in lines)
    found = verifier.close()
    assert found.consistent
    assert found.head == await AuditRecords(log.database).head()


@pytest.mark.parametrize("ocsf_class", OcsfClass)
def test_the_table_of_classes_is_the_mapping(ocsf_class: OcsfClass) -> None:
    (row,) = [
        line for line in PAGE.read_text("utf-8").splitlines() if f"({ocsf_class.value}) |" in line
    ]
    for event_type, activity in ACTIVITIES.items():
        named = f"`{event_type}`" in row or f"`{event_type.partition('.')[0]}.*`" in row
        assert named == (activity.ocsf_class is ocsf_class), event_type
