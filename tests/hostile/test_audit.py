"""The audit log: what callers may try to write into it, hide in it, or do to it."""

from __future__ import annotations

import json

import pytest

from broker.audit.verify import export_line
from tests.hostile.world import Person, World, problem


@pytest.fixture
def ada(world: World) -> Person:
    return world.resident("audit-ada", "analysts")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for path in (
            "/v1/audit",
            "/v1/audit/records",
            "/v1/audit/records/1",
            "/v1/audit/settings",
            "/v1/audit/export",
            "/v1/audit/checkpoint",
            "/v1/audit/keys",
            "/v1/audit/tile/0/000",
            "/v1/settings",
            "/metrics",
        )
        for method in ("PUT", "POST", "PATCH", "DELETE")
    ],
)
def test_api_turns_it_off(world: World, method: str, path: str) -> None:
    """An admin tries to change, stop, redirect or empty the log by the API: there is no way."""
    before, seq = world.state(), world.head()
    answer = world.admin.api(method, path, json={"enabled": False, "url": "https://evil.example"})
    assert answer.status_code in (404, 405)
    assert (world.state(), world.records(seq)) == (before, [])


def test_openapi_offers_no_way(world: World) -> None:
    """Nothing under /v1/audit is anything but a GET."""
    paths = world.client().get("/openapi.json").json()["paths"]
    audit = {path: set(ops) for path, ops in paths.items() if path.startswith("/v1/audit")}
    assert audit
    assert set().union(*audit.values()) == {"get"}


MARKS = ["\r\n", "\n", "\x00", "\u2028", "\u2029", "\x85", "\x1b[2J", '","seq":1,"x":"', "\u202e"]


@pytest.mark.parametrize("mark", MARKS)
def test_line_breaks_in_every_field(world: World, mark: str) -> None:
    """CR, LF, NUL, U+2028 and JSON in a provider's claims and in headers: one event is one
    record on one line, and the chain holds."""
    hostile = f"a{mark}b"
    seq = world.head()
    name = f"marked-{mark.encode().hex()}"
    who = world.sign_in(
        name, name=hostile, groups=[hostile], email=f"{hostile}@example.com", picture=hostile
    )
    records = world.records(seq)
    assert [record["type"] for record in records] == ["login.succeeded"]
    who.get(
        "/mfa",
        headers={
            "user-agent": hostile.encode("utf-8", "replace")
            .replace(b"\0", b"")
            .replace(b"\r", b"")
            .replace(b"\n", b"")
        },
    )
    rows = world.rows("SELECT record FROM audit_records WHERE seq > ?", seq)
    for (row,) in rows:
        assert len(bytes(row).splitlines()) == 1
        assert len(bytes(row).decode().splitlines()) == 1
    assert verified(world)


def verified(world: World) -> bool:
    """Whether the log, as exported, verifies with the command's own code."""
    lines = b"".join(
        export_line(record, leaf, chain)
        for record, leaf, chain in world.rows(
            "SELECT record, leaf, chain FROM audit_records ORDER BY seq"
        )
    )
    path = world.folder / "export.jsonl"
    path.write_bytes(lines)
    done = world.client_command("audit", "verify", str(path))
    return "internally consistent" in done


def test_flood_of_denials(world: World, ada: Person) -> None:
    """Three hundred refusals of two kinds, to hide one of a third: the log grows by the first of
    each kind in each minute, and the third is there."""
    seq = world.head()
    for number in range(300):
        assert ada.ask(role="no-such-role" if number % 2 else "neither").status_code == 404
    assert problem(ada.ask(role="by-team")) == (403, "not_entitled")
    mine = [r for r in world.records(seq) if r["actor"]["id"] == ada.id]
    # At most two minutes are touched.
    assert len(mine) <= 6
    assert {r["subject"]["role"] for r in mine} == {"no-such-role", "neither", "by-team"}


def test_flood_of_roles_that_are_not_there(world: World) -> None:
    """Ever new role names make no record each: kinds are bounded for each source."""
    who = world.person("audit-flooder")
    seq = world.head()
    for number in range(120):
        assert who.ask(role=f"made-up-{number}").status_code == 404
    mine = [r for r in world.records(seq) if r["actor"]["id"] == who.id]
    assert 32 <= len(mine) <= 2 * 34


def test_flood_of_failed_logins(world: World) -> None:
    """An anonymous flood from one address makes one record of its kind a minute; another
    address's first failure is there still."""
    seq = world.head()
    flooder = world.client(address="198.51.100.77")
    for _ in range(50):
        flooder.get("/login/callback?code=x&state=y")
    world.client(address="198.51.100.78").get("/login/callback?code=x&state=y")
    by = [r["actor"]["ip"] for r in world.records(seq) if r["type"] == "login.failed"]
    assert 1 <= by.count("198.51.100.77") <= 2
    assert by.count("198.51.100.78") == 1


def test_readers_are_auditors(world: World, ada: Person) -> None:
    """Anybody else asks for records, exports and entry bundles."""
    for path in ("/v1/audit/records", "/v1/audit/export", "/v1/audit/tile/entries/000"):
        assert problem(ada.api("GET", path)) == (403, "forbidden"), path
        assert problem(world.client().get(path)) == (401, "unauthenticated"), path


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=99999999999999999999",
        "after=1e3",
        "limit=0",
        "limit=1001",
        "limit=true",
        "type=nothing",
        "principal=%00",
        "principal=" + "p" * 65,
        "since=0001-01-01T00:00:00%2B14:00",
        "until=9999-12-31T23:59:59-14:00",
        "since=1e300",
        "since=NaN",
        "after=1&after=2",
        "principal='%20OR%201=1--",
        "principal=%ff",
    ],
)
def test_queries_that_break_readers(world: World, query: str) -> None:
    """Numbers, times and names at the edge of what a database takes: a refusal or an empty
    list, never a crash."""
    answer = world.admin.api("GET", f"/v1/audit/records?{query}")
    assert answer.status_code in (200, 400, 422), (answer.status_code, answer.text)
    if answer.status_code == 200 and "principal" in query:
        assert answer.json()["records"] == []


def test_the_log_is_whole(world: World, ada: Person) -> None:
    """After all that the log verifies from its first record to its last, with no gap."""
    sequence = [row[0] for row in world.rows("SELECT seq FROM audit_records ORDER BY seq")]
    assert sequence == list(range(1, len(sequence) + 1))
    assert verified(world)
    exported = world.admin.api("GET", "/v1/audit/export").text.splitlines()
    assert [json.loads(json.loads(line)["record"])["seq"] for line in exported[:3]] == [1, 2, 3]
