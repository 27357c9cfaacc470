"""Each wrong setting of the reference is one clear line and exit code 1, as the reference says."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.adapters.checkpoint_copies import FileCopy
from broker.adapters.signing import SigningKeys
from broker.audit.checkpoint import Checkpoint
from tests.e2e.processes import free_port, until
from tests.server_cli.conftest import POLICY, Host
from tests.server_cli.preloaded import Ended, Preloaded
from tests.server_cli.test_server import start
from tools.reference.wrong_settings import AT_START, IN_DOCTOR, Wrong, toml_value

START_CASES = [one for cases in AT_START.values() for one in cases]


@dataclass
class Machine:
    """A host on which `broker server` would start, as far as one database file goes."""

    folder: Path
    settings: dict[str, Any]
    environment: dict[str, str]
    request: pytest.FixtureRequest
    held: list[socket.socket] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "broker.db"

    @property
    def key_files(self) -> Path:
        return self.folder / "keys"


@pytest.fixture(scope="module")
def preloaded() -> Iterator[Preloaded]:
    with Preloaded() as running:
        yield running


@pytest.fixture
def machine(
    tmp_path: Path, sqlite_url: str, _keys: Path, request: pytest.FixtureRequest
) -> Iterator[Machine]:
    shutil.copytree(_keys, tmp_path / "keys")
    for name in ("sealing", "signing"):
        (tmp_path / "keys" / name).chmod(0o600)
    settings: dict[str, Any] = {
        "server": {"public_url": "https://broker.example.com", "port": free_port()},
        "database": {"url": sqlite_url},
        "oidc": [{"name": "corp", "issuer": "https://idp.example.com", "client_id": "broker"}],
        # Nobody answers there, which stops nothing.
        "aws": [{"region": "us-east-1", "sts_endpoint_url": f"http://127.0.0.1:{free_port()}"}],
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    made = Machine(tmp_path, settings, environment, request)
    yield made
    for one in made.held:
        one.close()


# --- the scenes: what is done to a host before ------------------------------------------------


def _write(name: str, content: bytes, mode: int = 0o600) -> Callable[[Machine], None]:
    def scene(machine: Machine) -> None:
        (machine.folder / name).write_bytes(content)
        (machine.folder / name).chmod(mode)

    return scene


def _port_taken(machine: Machine) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    machine.held.append(taken)
    machine.settings["server"]["port"] = taken.getsockname()[1]


def _database_closed(machine: Machine) -> None:
    machine.settings["database"]["url"] = f"postgresql+asyncpg://b@127.0.0.1:{free_port()}/b"


def _no_tables(machine: Machine) -> None:
    machine.database.unlink()
    machine.database.touch(0o600)


def _at_revision(revision: str) -> Callable[[Machine], None]:
    def scene(machine: Machine) -> None:
        with closing(sqlite3.connect(machine.database)) as conn, conn:
            conn.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    return scene


def _older_schema(machine: Machine) -> None:
    names = sorted(path.stem for path in (ROOT / "migrations" / "versions").glob("*.py"))
    _at_revision(names[0].split("_")[0])(machine)


def _unsafe_durability(machine: Machine) -> None:
    machine.settings["database"]["url"] = machine.request.getfixturevalue("postgresql_url")


def _policy_applied(machine: Machine) -> None:
    with closing(sqlite3.connect(machine.database)) as conn, conn:
        conn.execute(
            "INSERT INTO access_policies (number, text, sha256, applied_at, applied_by)"
            " VALUES (1, ?, ?, 0, 'system')",
            (POLICY, "0" * 64),
        )


def _rolled_back(machine: Machine) -> None:
    """A head was signed and copied that the database has not come to."""
    keys = SigningKeys.load(machine.key_files / "signing")
    head = Checkpoint(keys.signer.key.name, 1000, bytes(32)).signed(keys.signer)
    asyncio.run(FileCopy(machine.folder / "outside").push(head))
    machine.settings["audit"] = {"checkpoint_copies": [f"file:{machine.folder}/outside"]}


def _key(name: str, change: Callable[[Path], None]) -> Callable[[Machine], None]:
    return lambda machine: change(machine.key_files / name)


def _damage(path: Path) -> None:
    path.write_text("canary-not-a-key")


ROOT = Path(__file__).parents[2]
SCENES: Mapping[str, Callable[[Machine], None]] = {
    "not toml": _write("broker.toml", b"[server\n"),
    "not utf-8": _write("broker.toml", b'[server]\nhost = "\xff"\n'),
    "port taken": _port_taken,
    "database closed": _database_closed,
    "no tables": _no_tables,
    "older schema": _older_schema,
    "newer schema": _at_revision("ffff"),
    "unsafe durability": _unsafe_durability,
    "open secret": _write("oidc-secret", b"canary-secret", 0o644),
    "empty secret": _write("oidc-secret", b"\n"),
    "policy applied": _policy_applied,
    "open sealing keys": _key("sealing", lambda path: path.chmod(0o644)),
    "no sealing keys": _key("sealing", lambda path: path.unlink()),
    "damaged sealing keys": _key("sealing", _damage),
    "open signing key": _key("signing", lambda path: path.chmod(0o644)),
    "no signing key": _key("signing", lambda path: path.unlink()),
    "rolled back": _rolled_back,
}


def _with(settings: dict[str, Any], wrong: Mapping[str, Any]) -> dict[str, Any]:
    """`wrong` over `settings`: sections are merged, an item of a list with the first one."""
    merged = dict(settings)
    for name, value in wrong.items():
        base = settings.get(name, {})
        if isinstance(value, list):
            merged[name] = [_merged(base[0], item) for item in value]
        else:
            merged[name] = _merged(base, value)
    return merged


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in {**base, **over}.items() if item is not None}


def _toml(settings: Mapping[str, Any]) -> str:
    lines = []
    for name, value in settings.items():
        for section in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {toml_value(item)}" for key, item in section.items()]
    return "\n".join(lines) + "\n"


def _named(case: Wrong) -> str:
    return case.what


@pytest.mark.parametrize("case", START_CASES, ids=_named)
def test_it_stops_the_start_with_one_line(
    machine: Machine, preloaded: Preloaded, case: Wrong
) -> None:
    if case.scene:
        SCENES[case.scene](machine)
    config = machine.folder / "broker.toml"
    if not config.exists():
        config.write_text(_toml(_with(machine.settings, case.settings)))
    ended = preloaded.run(machine.folder, {**machine.environment, **case.environment}, "server")
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    assert "canary" not in ended.err
    said = [line for line in ended.err.splitlines() if line.startswith("broker: ")]
    assert len(said) == case.lines, ended.err
    assert any(case.says in line for line in said), ended.err


# --- what doctor finds ---------------------------------------------------------------------------


def _provider_closed(host: Host) -> None:
    host.settings["oidc"][0]["issuer"] = f"http://127.0.0.1:{free_port()}"


def _sts_closed(host: Host) -> None:
    host.settings["aws"][0]["sts_endpoint_url"] = f"http://127.0.0.1:{free_port()}"


def _clock_off_at_provider(host: Host) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    host.provider.date = format_datetime(ahead, usegmt=True)


def _clock_off_at_aws(host: Host) -> None:
    host.aws.faults.clock_offset = 600


def _policy_without_groups(host: Host) -> None:
    host.apply("version: 1\nadmins: []\n")


def _no_credentials(host: Host) -> None:
    for name in [name for name in host.environment if name.startswith("AWS_") and "KEY" in name]:
        del host.environment[name]
    host.environment.pop("AWS_SESSION_TOKEN", None)


def _no_audience(host: Host) -> None:
    file = host.folder / "access.yaml"
    file.write_text(
        POLICY + "workloads:\n  deploy:\n    issuer: https://token.actions.githubusercontent.com\n"
        '    claims: {repository_id: "42"}\n'
    )


DOCTOR_SCENES: Mapping[str, Callable[[Host], None]] = {
    "provider closed": _provider_closed,
    "sts closed": _sts_closed,
    "clock off at provider": _clock_off_at_provider,
    "clock off at aws": _clock_off_at_aws,
    "policy without groups": _policy_without_groups,
    "no credentials": _no_credentials,
    "no admin": _policy_without_groups,
    "no audience": _no_audience,
}


def _doctor(host: Host, preloaded: Preloaded, case: Wrong) -> Ended:
    DOCTOR_SCENES[case.scene](host)
    (host.folder / "broker.toml").write_text(_toml(_with(host.settings, case.settings)))
    file = host.folder / "access.yaml"
    policy = ("--policy", str(file)) if file.exists() else ()
    return preloaded.run(host.folder, host.environment, "doctor", *policy)


@pytest.mark.parametrize("case", IN_DOCTOR, ids=_named)
def test_doctor_finds_it(host: Host, preloaded: Preloaded, case: Wrong) -> None:
    ended = _doctor(host, preloaded, case)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.out + ended.err
    found = [
        line for line in ended.out.splitlines() if line.startswith("fail") and case.says in line
    ]
    assert len(found) == 1, ended.out


def test_the_server_starts_without_provider_and_sts_and_says_degraded(
    host: Host, tmp_path: Path
) -> None:
    """One outage does not stop the other people: /readyz keeps its 200, and names what is out."""
    up = host.settings["oidc"][0]
    down = {**up, "name": "down", "issuer": f"http://127.0.0.1:{free_port()}"}
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    host.settings["server"] = {"public_url": url, "port": port}
    host.settings["oidc"] = [up, down]
    _sts_closed(host)
    (host.folder / "broker.toml").write_text(_toml(host.settings))
    process = start(host.environment | {"BROKER_SERVER__PUBLIC_URL": url}, host.folder)
    try:
        degraded = {"status": "degraded", "detail": "STS aws, provider down"}

        def said() -> bool:
            answer = httpx.get(f"{url}/readyz", trust_env=False)
            assert answer.status_code == 200
            return bool(answer.json() == degraded)

        until(said, "/readyz names what can't be reached", seconds=60)
        with httpx.Client(base_url=url, trust_env=False) as browser:
            there = browser.get("/login", params={"provider": "corp"})
            assert there.status_code == 303
            assert there.headers["location"].startswith(host.provider.issuer)
            assert browser.get("/login", params={"provider": "down"}).status_code == 403
    finally:
        assert process.stop() == 0
