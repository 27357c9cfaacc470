"""A running broker with its people, as the tutorials suppose it; stand-ins beside it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.devstack.aws import AwsStandIn, HubCredentials, seed_demo
from broker.devstack.browser import ScriptedPerson
from broker.devstack.oidc import Client, Person, create_provider
from broker.devstack.threads import listen, served
from tests.ci.issuer import RUNNER_SECRET, LocalIssuer
from tests.docs.pages import ROOT, Block
from tests.docs.reader import Reader, Terminal
from tests.e2e.processes import free_port
from tests.missing import missing

CLIENT_SECRET = "the-secret-of-the-client"
AWS_CLI = ROOT / ".venv-awscli" / "bin"
PEOPLE = (
    Person("you", "you", "you-0001", "you@example.com", "You"),
    Person("alice", "alice", "alice-0002", "alice@example.com", "Alice", ("analysts",)),
    Person("grace", "grace", "grace-0003", "grace@example.com", "Grace", ("platform",)),
)
_SETTINGS = """\
[server]
public_url = "http://127.0.0.1:8080"
port = 8080
[database]
url = "sqlite+aiosqlite:///broker.db"
[[oidc]]
name = "corp"
issuer = "https://idp.example.com"
client_id = "broker"
client_secret_file = "oidc-secret"
[bootstrap]
admins = [{ provider = "corp", email = "grace@example.com" }]
"""


@dataclass
class Outside:
    """What is not the broker's: the provider, AWS, and how a page's names are theirs."""

    issuer: str
    aws: AwsStandIn
    hub: HubCredentials
    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def own(self) -> dict[str, str]:
        return {
            "http://127.0.0.1:8080": self.origin,
            "port = 8080": f"port = {self.port}",
            "https://idp.example.com": self.issuer,
            "https://broker.example.com": self.origin,
        }

    def terminal(
        self, folder: Path, name: str, tools: Path, credentials: HubCredentials | None = None
    ) -> Terminal:
        """`credentials` are AWS's in its environment; none, as on a person's machine."""
        if not (AWS_CLI / "aws").exists():
            missing("the environment of the aws CLI is missing: run `make witnesses`")
        home = folder / name
        environment = {
            "PATH": f"{tools}:{AWS_CLI}:/usr/local/bin:/usr/bin:/bin",
            "BROKER_HOME": str(home / "broker"),
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": self.aws.region,
            # The stand-in's buckets have no host names of their own.
            "AWS_CONFIG_FILE": str(home / ".aws/config"),
            **(credentials.environment() if credentials else {}),
        }
        people = {one.username: one for one in PEOPLE}
        person = people.get(name)
        return Terminal(
            home,
            folder,
            environment,
            None if person is None else ScriptedPerson(person.username, person.password),
        )


@contextmanager
def outside() -> Iterator[Outside]:
    with ExitStack() as stack:
        port = free_port()
        provider = listen()
        issuer = f"http://127.0.0.1:{provider.getsockname()[1]}"
        client = Client("broker", CLIENT_SECRET, f"http://127.0.0.1:{port}/login/callback")
        stack.enter_context(served(create_provider(issuer, client, PEOPLE), provider))
        aws = stack.enter_context(AwsStandIn.start())
        yield Outside(issuer, aws, seed_demo(aws).hub, port)


@pytest.fixture
def around() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.fixture(scope="module")
def github() -> Iterator[LocalIssuer]:
    """GitHub's issuer and a runner's token service, on a loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    issuer = LocalIssuer()
    asyncio.run_coroutine_threadsafe(issuer.start(), loop).result(60)
    yield issuer
    asyncio.run_coroutine_threadsafe(issuer.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, github: LocalIssuer) -> Iterator[Reader]:
    """A broker that runs, with grace as its admin and alice; both have a second factor."""
    folder = tmp_path_factory.mktemp("office")
    tools = folder / "bin"
    tools.mkdir()
    launcher = tools / "broker"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker.entry "$@"\n')
    launcher.chmod(0o755)
    with outside() as around:
        root = around.aws.hub_credentials("root")
        server = around.terminal(folder, "server", tools, around.hub)
        terminals = {
            "server": server,
            "aws": around.terminal(folder, "aws", tools, root),
            "grace": around.terminal(folder, "grace", tools),
            "alice": around.terminal(folder, "alice", tools),
        }
        for name, token in (("job", ""), ("stranger", "99")):
            terminal = around.terminal(folder, name, tools)
            claims = {"aud": around.origin, **({"repository_id": token} if token else {})}
            terminal.environment = {
                **terminal.environment,
                "BROKER_SERVER": around.origin,
                **(
                    {"BROKER_CI_TOKEN": github.mint("github", **claims)}
                    if token
                    else {
                        "GITHUB_ACTIONS": "true",
                        "GITHUB_ENV": os.devnull,
                        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.origin}/runner/token?v=2",
                        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": RUNNER_SECRET,
                    }
                ),
            }
            terminals[name] = terminal
        own = around.own
        own['"https://token.actions.githubusercontent.com"'] = (
            f'"{github.issuer("github")}"\n    preset: github'
        )
        reader = Reader(terminals, own, ready=f"{around.origin}/readyz")
        try:
            _open(reader)
            yield reader
        finally:
            reader.close()


def _open(reader: Reader) -> None:
    """As the quick start does it."""

    def at(terminal: str, text: str, *, file: str | None = None, stays: bool = False) -> None:
        reader.follow(Block("sh", text, file, terminal, stays=stays, fails=False))

    at("server", _SETTINGS, file="broker.toml")
    at("server", "install -m 600 /dev/null oidc-secret")
    at("server", CLIENT_SECRET, file="oidc-secret")
    at("server", "broker migrate")
    at("server", "broker server --config broker.toml", stays=True)
    for name in ("grace", "alice"):
        recover = f"broker recover --provider corp --email {name}@example.com"
        at(name, f"{recover}\nbroker login --server http://127.0.0.1:8080")
