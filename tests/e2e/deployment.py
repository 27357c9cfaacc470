"""A deployed broker: real server processes with real settings, as an operator would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.devstack.aws import AwsStandIn, HubCredentials
from broker.devstack.browser import ScriptedBrowser
from broker.devstack.terminal import Ran, Terminal
from tests.e2e.canaille import Canaille, CanaillePerson
from tests.e2e.processes import Process, free_port

POLICY = Path(__file__).with_name("access.yaml")


@dataclass(slots=True)
class User:
    """A person with an enrolled second factor, a browser and a logged-in terminal."""

    person: CanaillePerson
    browser: ScriptedBrowser
    terminal: Terminal

    @property
    def access_token(self) -> str:
        """The bearer token that the client keeps, for calls that stock HTTP clients make."""
        ran = self.terminal.run("whoami")
        assert ran.code == 0, ran.err
        for path in self.terminal.home.rglob("*"):
            if path.is_file() and (token := _find_token(path)):
                return token
        raise AssertionError("the client keeps no access token")


def _find_token(path: Path) -> str | None:
    found = re.search(r"bka_[A-Za-z0-9_-]{43}", path.read_text("utf-8", "replace"))
    return found.group() if found else None


@dataclass(slots=True)
class Deployment:
    """`ports[0]` is the public one. Every process shares one database and one key ring."""

    folder: Path
    database_url: str
    canaille: Canaille
    aws: AwsStandIn
    hub: HubCredentials
    ports: tuple[int, ...]
    extra: Mapping[str, str] = field(default_factory=dict)
    servers: list[Process] = field(default_factory=list)
    stopped: list[Process] = field(default_factory=list)
    browsers: list[ScriptedBrowser] = field(default_factory=list)

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        self.command("migrate")
        for port in self.ports:
            self.start_server(port)

    def start_server(self, port: int) -> Process:
        process = Process(
            [sys.executable, "-m", "broker.entry", "server", "--config", str(self._config())],
            self.folder / f"server-{port}.log",
            {**self._environment(), "BROKER_SERVER__PORT": str(port)},
            self.folder,
        )
        self.servers.append(process)
        process.wait_for(f"http://127.0.0.1:{port}/readyz")
        return process

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
        self.stopped += self.servers
        self.servers.clear()
        for browser in self.browsers:
            browser.close()

    def command(self, *arguments: str) -> str:
        """A server-side command on this host, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "broker.entry", *arguments, "--config", str(self._config())],
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=self.folder,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def enrolled(self, name: str) -> User:
        """Sign in, enrol with a code from `broker recover`, and log the terminal in."""
        person = self.canaille.person(name)
        browser = ScriptedBrowser()
        self.browsers.append(browser)
        asked = person.sign_in(browser, f"{self.public_url}/login")
        assert asked.path == "/mfa/enroll", asked.html
        who = ("--issuer", self.canaille.issuer, "--subject", name)
        code = self.command("recover", *who).splitlines()[0]
        person.sign_in(browser, f"{self.public_url}/mfa/enroll", enrolment_code=code)
        terminal = Terminal(self.public_url, self.folder / "homes" / name)
        ran = terminal.log_in(person, browser)
        assert ran.code == 0, ran.err
        return User(person, browser, terminal)

    def apply_policy(self, admin: User) -> Ran:
        ran = admin.terminal.run("access", "apply", str(POLICY), "--yes")
        assert ran.code == 0, ran.err
        return ran

    def _config(self) -> Path:
        path = self.folder / "broker.toml"
        if not path.exists():
            secret = self.folder / "client-secret"
            secret.touch(0o600)
            secret.write_text(self.canaille.client_secret)
            path.write_text(
                f'[server]\npublic_url = "{self.public_url}"\nlog_level = "debug"\n'
                f"[database]\nurl = {json.dumps(self.database_url)}\n"
                f'[[oidc]]\nname = "corp"\nissuer = "{self.canaille.issuer}"\n'
                f'client_id = "{self.canaille.client_id}"\nclient_secret_file = "{secret}"\n'
                f'[[aws]]\nregion = "us-east-1"\nsts_endpoint_url = "{self.aws.url}"\n'
                f'[keys]\nsealing = "file:{self.folder}/keys/sealing"\n'
                f'signing = "file:{self.folder}/keys/signing"\n'
                f"[audit]\nallow_unsafe_durability = true\n"  # tests' PostgreSQL syncs nothing
                f"[bootstrap]\n"
                f'admins = [{{issuer = "{self.canaille.issuer}", subject = "grace"}}]\n'
            )
        return path

    def _environment(self) -> dict[str, str]:
        hub = self.hub
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {
            **kept,
            "AWS_ACCESS_KEY_ID": hub.access_key_id,
            "AWS_SECRET_ACCESS_KEY": hub.secret_access_key,
            "AWS_SESSION_TOKEN": hub.session_token or "",
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.extra,
        }


def free_ports(count: int) -> tuple[int, ...]:
    return tuple(free_port() for _ in range(count))
