"""`broker server` as an operator starts it: what it needs, what it says when that is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import Process, free_port

CLOSED = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "", "HOME": "/nonexistent"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    port = free_port()
    return {
        "PATH": os.environ["PATH"],
        **CLOSED,
        "BROKER_SERVER__PUBLIC_URL": f"http://127.0.0.1:{port}",
        "BROKER_SERVER__PORT": str(port),
        "BROKER_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path}/broker.db",
        # Nobody answers there: the server starts all the same, since STS may come back.
        "BROKER_AWS": f'[{{"sts_endpoint_url": "http://127.0.0.1:{free_port()}"}}]',
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "broker.entry", *words]


def run(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def migrated(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    done = run(environment, tmp_path, "migrate")
    assert done.returncode == 0, done.stderr
    return environment


def start(environment: dict[str, str], folder: Path) -> Process:
    process = Process(command("server"), folder / "server.log", environment, folder)
    process.wait_for(f"{environment['BROKER_SERVER__PUBLIC_URL']}/readyz")
    return process


def test_it_serves_and_ends_at_sigterm(migrated, tmp_path):
    process = start(migrated, tmp_path)
    url = migrated["BROKER_SERVER__PUBLIC_URL"]
    assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
    assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 200
    process.child.send_signal(signal.SIGTERM)
    assert process.child.wait(30) == 0
    assert "Traceback" not in process.output()


def test_metrics_are_kept_off_the_public_port_where_they_have_their_own(migrated, tmp_path):
    port = free_port()
    process = start(migrated | {"BROKER_SERVER__METRICS_PORT": str(port)}, tmp_path)
    url = migrated["BROKER_SERVER__PUBLIC_URL"]
    try:
        assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 404
        own = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert (own.status_code, own.headers["content-type"][:10]) == (200, "text/plain")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/me", trust_env=False).status_code == 404
    finally:
        assert process.stop() == 0


def one_line(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("broker: ")]
    assert len(said) == 1, done.stderr
    for text in expected:
        assert text in said[0]


def test_a_database_without_tables_is_one_line(environment, tmp_path):
    one_line(run(environment, tmp_path, "server"), "broker migrate")


def test_a_taken_port_is_one_line(migrated, tmp_path):
    with socket.create_server(("127.0.0.1", int(migrated["BROKER_SERVER__PORT"]))):
        done = run(migrated, tmp_path, "server")
    one_line(done, "can't listen", migrated["BROKER_SERVER__PORT"])


def test_key_files_that_others_may_read_are_one_line(migrated, tmp_path):
    (tmp_path / "keys" / "sealing").chmod(0o644)
    one_line(run(migrated, tmp_path, "server"), "keys/sealing", "chmod 600")


def test_whoever_migrates_need_not_hold_the_keys(environment, tmp_path):
    done = run(environment, tmp_path, "migrate", "--no-keys")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "keys").exists()
    one_line(run(environment, tmp_path, "server"), "keys/sealing", "broker keys init")


def test_a_key_ring_that_went_missing_is_not_made_anew_over_sealed_secrets(migrated, tmp_path):
    (tmp_path / "keys" / "sealing").unlink()
    one_line(run(migrated, tmp_path, "server"), "keys/sealing")


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("BROKER_SERVER__PROT", "1", "server.prot"),
        ("BROKER_SERVR__PORT", "1", "BROKER_SERVR__PORT"),
        ("BROKER_SERVER__PUBLIC_URL", "http://broker.example.com", "https://"),
        ("BROKER_SERVER__PUBLIC_URL", "https://broker.example.com/path", "path"),
        ("BROKER_DATABASE__URL", "mysql://localhost/broker", "postgresql+asyncpg"),
        ("BROKER_MFA__ENROLMENT", "closed", "mfa.enrolment"),
        ("BROKER_KEYS__SEALING", "vault:secret", "file:PATH"),
        ("BROKER_OIDC", '[{"name": "corp", "issuer": "https://idp"}]', "client_id"),
        ("BROKER_BOOTSTRAP", '{"admins": [{"issuer": "https://idp"}]}', "{issuer, subject}"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(environment, tmp_path, setting, value, expected):
    one_line(run(environment | {setting: value}, tmp_path, "server"), expected)
