"""audit tail, export and verify."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from broker.audit.chain import GENESIS, chain_hash, leaf_hash
from broker.audit.verify import export_line
from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply, serving


def record(seq: int, **changes: object) -> dict[str, object]:
    return {
        "v": 1,
        "seq": seq,
        "time": "2026-01-02T03:04:05.000006Z",
        "type": "issuance.issued",
        "actor": {"id": "p-abcdefghij234567", "kind": "person", "handle": "alice@example.com"},
        "request_id": "req-1",
        "subject": {"role": "data-reader"},
        "outcome": "success",
        "detail": {"access_key_id": "ASIAEXAMPLE"},
    } | changes


def exported(count: int) -> bytes:
    chain, lines = GENESIS, []
    for seq in range(1, count + 1):
        data = json.dumps(record(seq), sort_keys=True, separators=(",", ":")).encode()
        leaf = leaf_hash(data)
        chain = chain_hash(chain, leaf)
        lines.append(export_line(data, leaf, chain))
    return b"".join(lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(exported(5))
    return path


def test_tail_shows_a_line_a_record_over_all_pages(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.records = [record(seq) for seq in range(1, 6)]
    done = cli("audit", "tail", "--since", "8h", "--type", "issuance.issued", "--principal", "p-1")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "alice@example.com" in lines[0]
    assert "role=data-reader" in lines[0]
    asked = broker.last("/v1/audit/records").query
    assert (asked["type"], asked["principal"], asked["after"]) == ("issuance.issued", "p-1", "4")
    assert asked["since"].endswith("Z")


def test_tail_as_json_and_cleaned(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.records = [record(1, actor={"handle": "\x1b[2J\u202e", "id": "x"})]
    done = cli("audit", "tail")
    assert done.out.rstrip("\n").isprintable()
    assert json.loads(cli("audit", "tail", "--json").out) == broker.records[0]


def test_tail_follows_until_interrupted(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.records = [record(1)]
    process = cli.start("audit", "tail", "--follow", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["seq"] == 1
    broker.records.append(record(2))
    assert json.loads(process.stdout.readline())["seq"] == 2
    process.send_signal(2)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("since", ["yesterday", "-1h", "9" * 9 + "d"])
def test_an_age_that_is_none_is_wrong_usage(cli: Cli, logged_in: Tokens, since: str):
    assert cli.inside("audit", "tail", f"--since={since}").code == 2


def test_export_streams_to_a_private_file(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    content = exported(200)
    broker.replies["/v1/audit/export"] = Reply(200, content, "application/x-ndjson")
    target = tmp_path / "out.jsonl"
    done = cli("audit", "export", "-o", str(target))
    assert (done.code, done.out) == (0, "")
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert cli("audit", "export").out.encode() == content
    cli("audit", "export", "--after", "7")
    assert broker.last("/v1/audit/export").query == {"after": "7"}


def test_an_export_that_breaks_off_leaves_no_file(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    broker.replies["/v1/audit/export"] = Reply(200, exported(3), truncate=True)
    target = tmp_path / "out" / "audit.jsonl"
    target.parent.mkdir()
    target.write_text("the last good one")
    assert cli("audit", "export", "-o", str(target)).code == 4
    assert [path.name for path in target.parent.iterdir()] == ["audit.jsonl"]
    assert target.read_text() == "the last good one"


def test_an_export_that_is_refused_leaves_no_file(
    cli: Cli, broker: FakeBroker, logged_in: Tokens, tmp_path: Path
):
    broker.replies["/v1/audit/export"] = Reply.problem(403, "forbidden")
    target = tmp_path / "audit.jsonl"
    done = cli("audit", "export", "-o", str(target))
    assert done.code == 1
    assert "forbidden" in done.err
    assert not target.exists()


def test_verify_needs_no_login(cli: Cli, broker: FakeBroker, log: Path):
    for done in (cli("audit", "verify", str(log)), cli("audit", "verify", "-", stdin=exported(5))):
        assert done.code == 0
        assert done.out.startswith("internally consistent: 5 records, seq 1..5, head chain ")
        assert "not checked against a signed checkpoint" in done.out
        assert "authentic" not in done.out
    assert broker.seen == []


def test_verify_names_the_first_bad_record(cli: Cli, log: Path):
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    spots = [(b"data-reader", b"data-writer", 3), (b'"leaf": "', b'"leaf":  "', 5)]
    for old, new, seq in spots:
        changed = [*lines]
        changed[seq - 1] = changed[seq - 1].replace(old, new)
        log.write_bytes(b"".join(changed))
        done = cli.inside("audit", "verify", str(log))
        assert done.code == 1
        assert done.out.startswith(f"broken at seq {seq}: ")
    log.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert cli.inside("audit", "verify", str(log)).out.startswith("broken at seq 2: ")


def test_a_log_that_is_no_log_is_broken_at_1(cli: Cli, log: Path):
    for content in (b"\x1b[2J\n", b"\xff\xfe\n", b"{}\n", b"\0" * 1000):
        log.write_bytes(content)
        done = cli.inside("audit", "verify", str(log))
        assert (done.code, done.out[:16]) == (1, "broken at seq 1:")
        assert done.out.rstrip("\n").isprintable()


def test_a_file_that_is_not_there_is_wrong_usage(cli: Cli, tmp_path: Path):
    assert cli("audit", "verify", str(tmp_path / "missing")).code == 2
    assert cli("audit", "verify", str(tmp_path)).code in (1, 2)


def test_verify_a_broker_sends_the_token_to_its_own_broker_alone(
    cli: Cli, broker: FakeBroker, logged_in: Tokens
):
    broker.replies["/v1/audit/export"] = Reply(200, exported(3), "application/x-ndjson")
    assert cli.inside("audit", "verify", broker.origin).code == 0
    assert "authorization" in broker.last("/v1/audit/export").headers
    with serving() as other:
        other.replies["/v1/audit/export"] = Reply(200, exported(3), "application/x-ndjson")
        other.replies["/logs/audit.jsonl"] = Reply(200, exported(2), "application/x-ndjson")
        assert cli.inside("audit", "verify", other.origin).code == 0
        assert "2 records" in cli.inside("audit", "verify", f"{other.origin}/logs/audit.jsonl").out
        assert not any("authorization" in request.headers for request in other.seen)
    broker.replies["/elsewhere"] = Reply(200, exported(3))
    cli.inside("audit", "verify", f"{broker.origin}/elsewhere")
    assert "authorization" not in broker.last("/elsewhere").headers


@pytest.mark.parametrize("url", ["http://example.com/x", "https://a@b.example/x", "https://"])
def test_a_url_that_is_not_fetched(cli: Cli, url: str):
    assert cli.inside("audit", "verify", url).code == 2
