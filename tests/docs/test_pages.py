"""Every command of the quick start and the tutorials runs, as the page has it."""

from __future__ import annotations

import json
import re
import shutil
import site
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.docs.conftest import Outside
from tests.docs.pages import DOCS, ROOT, Block, blocks
from tests.docs.reader import Reader
from tools.reference import commands_page
from tools.reference.events_page import EVENTS

TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
# Everything that an install from an index would bring beside the wheel, as it is pinned.
_DEPENDENCIES = next(path for path in site.getsitepackages() if path.endswith("site-packages"))


def _checkout(folder: Path) -> None:
    for name in ("broker", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)


def test_the_quick_start(tmp_path: Path, around: Outside, postgresql) -> None:
    """From an empty machine with PostgreSQL: wheel, migrate, server, a login, an issuance."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    _checkout(checkout)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("createdb", "pg_dump", "pg_restore"):
        (tools / name).symlink_to(postgresql.server.bin_path / name)
    # The Python that the pinned packages are for, without any of them.
    launcher = tools / "python3"
    launcher.write_text(f'#!/bin/sh\nexec "{Path(sys.base_prefix) / "bin" / "python3"}" "$@"\n')
    launcher.chmod(0o755)
    uri = urlsplit(postgresql.server.get_uri(database="postgres"))
    you = around.terminal(checkout, "you", tools, around.hub)
    you.environment = {
        **you.environment,
        "PGUSER": uri.username or "postgres",
        "PGHOST": parse_qs(uri.query).get("host", [uri.hostname or ""])[0],
        "PGPORT": str(uri.port or 5432),
        # No index is asked: what the wheel needs is there.
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": _DEPENDENCIES,
        # The tests' PostgreSQL syncs nothing.
        "BROKER_AUDIT__ALLOW_UNSAFE_DURABILITY": "true",
    }
    aws = around.terminal(checkout, "aws", tools, around.aws.hub_credentials("root"))
    reader = Reader({"you": you, "aws": aws}, around.own, ready=f"{around.origin}/readyz")
    try:
        said = "".join(reader.follow(block) for block in blocks(DOCS / "quick-start.md"))
        home = reader.follow_text("you", "python -I -c 'import broker; print(broker.__file__)'")
        log = reader.follow_text("you", "broker audit export")
        for block in blocks(DOCS / "operations" / "backup.md"):
            reader.follow(block)
        restored = {"BROKER_DATABASE__URL": "postgresql+asyncpg:///broker_restored"}
        you.environment = {**you.environment, **restored}
        assert "is current" in reader.follow_text("you", "broker migrate")
        commands = reader.commands
    finally:
        reader.close()
        for name in ("broker", "broker_restored"):
            postgresql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    assert home.startswith(str(checkout / "broker-env"))
    assert ":assumed-role/ReadReports/" in said
    assert "region,revenue" in said
    records = [json.loads(json.loads(line)["record"]) for line in log.splitlines()]
    assert [one["type"] for one in records].count("issuance.issued") == 2
    # As the page promises; the three of this test and the three of backups are not on it.
    promised = re.search(r"in (\d+) commands", (DOCS / "quick-start.md").read_text("utf-8"))
    assert promised is not None
    assert commands - 6 == int(promised[1])


# What a README command needs that the office has already, or what runs it elsewhere.
_ELSEWHERE = {
    "make demo": "tests/devstack/test_tour.py",
    "make test": "this very suite",
    "pip install .": "the quick start installs the wheel",
    "pip install '.[server]'": "the quick start installs the wheel",
    "broker server --config broker.toml": "the office was started by it",
}
_README_POLICY = """\
version: 1
accounts: {prod: {id: "111122223333", region: us-east-1}}
admins: [{group: corp/platform}]
roles:
  data-reader:
    account: prod
    role_arn: arn:aws:iam::111122223333:role/DataReader
    external_id: broker-demo-4f6a1c
    role_maximum: 4h
    unscoped: true
entitlements: [{role: data-reader, to: {group: corp/analysts}, mode: standing}]
"""


@pytest.mark.timeout(600)
def test_the_readme_the_tutorials_and_the_runbooks(office: Reader) -> None:
    """In one office, since each costs a login; the README first, runbooks last."""
    office.follow(Block("yaml", _README_POLICY, "access.yaml", "grace", stays=False, fails=False))
    office.follow_text("grace", "broker access apply access.yaml --yes")
    for block in blocks(ROOT / "README.md"):
        if (kept := _runnable(block)) is not None:
            office.follow(kept)
    for page in TUTORIALS:
        found = blocks(page, default="grace")
        assert sum(len(block.commands) for block in found if block.kind == "sh") >= 5
        office.keep_fresh("grace")
        for block in found:
            office.follow(block)
    office.keep_fresh("grace")
    *incidents, last = blocks(DOCS / "operations" / "incidents.md", default="grace")
    for block in incidents:
        office.follow(block)
    _the_log_holds_what_the_reference_says(office)
    # It ends the logins of the only admin.
    office.follow(last)
    for block in blocks(DOCS / "operations" / "keys.md", default="server"):
        office.follow(block)


def _runnable(block: Block) -> Block | None:
    if block.file is not None:
        return block
    lines = [line for line in block.commands if line.partition("  #")[0].strip() not in _ELSEWHERE]
    return replace(block, text="\n".join(lines) + "\n") if lines else None


def _the_log_holds_what_the_reference_says(office: Reader) -> None:
    """Whatever was done above, each member of each record is in the reference."""
    log = office.follow_text("grace", "broker audit export")
    kinds = set()
    for line in log.splitlines():
        record = json.loads(json.loads(line)["record"])
        known = EVENTS[record["type"]].members
        assert {*record["subject"], *record["detail"]} <= known, record["type"]
        kinds.add(record["type"])
    assert {"ci.exchanged", "ci.rejected", "grant.revoked", "revocation.lifted"} <= kinds


def test_the_readme_names_commands_that_exist() -> None:
    known = {
        one.name for one in (*commands_page.client_commands(), *commands_page.server_commands())
    }
    readme = (ROOT / "README.md").read_text("utf-8")
    table = re.findall(r"^\| (`broker .*?) \|", readme, re.MULTILINE)
    assert len(table) > 10
    for cell in table:
        first = cell.split("`")[1].removeprefix("broker ")
        words = first.replace("\\|", "|").split("|")[0].split()
        assert " ".join(words[:2]) in known or words[0] in known, cell


def test_the_commands_run_elsewhere_do() -> None:
    for where in _ELSEWHERE.values():
        assert not where.endswith(".py") or (ROOT / where).exists(), where
