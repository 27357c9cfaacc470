"""`broker dev`: everything on one machine, to try, to demonstrate and to develop against.

Owns: starting the stand-ins, a throw-away database and key ring, the broker
itself, and either the tour or a plain list of how to use it. Everything listens
on loopback and is gone when the command ends.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from broker.adapters.migrations import migrate
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.devstack import people, tour
from broker.devstack.aws import AwsStandIn, HubCredentials, seed_demo
from broker.devstack.browser import ScriptedPerson
from broker.devstack.oidc import Client, Person, create_provider
from broker.devstack.terminal import Terminal
from broker.devstack.threads import listen, served
from broker.server_cli.logs import configure_logging
from broker.server_cli.migrate import log_origin
from broker.server_cli.recover import create_enrolment_code
from broker.server_cli.server import serving
from broker.settings import Settings, load

_REGION = "us-east-1"
_CLIENT_SECRET = "broker-dev-client"  # noqa: S105 - of a stand-in that lives on loopback


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "dev",
        help="run everything locally, with stand-ins for OpenID Connect and AWS",
        description="Run the broker with a local OpenID provider and an AWS stand-in.",
        epilog="examples: broker dev        broker dev --tour",
    )
    parser.add_argument(
        "--tour", action="store_true", help="walk through it step by step, then end"
    )
    parser.add_argument("--port", type=int, default=None, help="the broker's port (default: 8080)")
    parser.add_argument("--log-level", default="error", choices=["debug", "info", "error"])
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    configure_logging(arguments.log_level)
    port = arguments.port if arguments.port is not None else (0 if arguments.tour else 8080)
    with local_stack(port) as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(stack, show_tour=arguments.tour))


@dataclass(frozen=True, slots=True)
class Stack:
    """The running stand-ins, and the settings of a broker that uses them."""

    settings: Settings
    aws: AwsStandIn
    hub: HubCredentials
    issuer: str
    folder: Path


@contextmanager
def local_stack(port: int) -> Iterator[Stack]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-dev-")))
        if port == 0:
            with listen() as probe:
                port = probe.getsockname()[1]
        public_url = f"http://127.0.0.1:{port}"
        oidc = listen()
        issuer = f"http://127.0.0.1:{oidc.getsockname()[1]}"
        client = Client("broker", _CLIENT_SECRET, f"{public_url}/login/callback")
        stack.enter_context(served(create_provider(issuer, client, people.PEOPLE), oidc))
        aws = stack.enter_context(AwsStandIn.start(region=_REGION))
        demo = seed_demo(aws, external_id=tour.EXTERNAL_ID)
        _use_as_base_credentials(demo.hub)
        yield Stack(_settings(folder, port, public_url, issuer, aws), aws, demo.hub, issuer, folder)


def _use_as_base_credentials(hub: HubCredentials) -> None:
    """The broker finds its AWS identity where botocore looks; here, in the environment. It is a
    role session, as on EC2, ECS or EKS: so issuing is role chaining, one hour at most.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_ACCESS_KEY_ID"] = hub.access_key_id
    os.environ["AWS_SECRET_ACCESS_KEY"] = hub.secret_access_key
    if hub.session_token:
        os.environ["AWS_SESSION_TOKEN"] = hub.session_token
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def _settings(folder: Path, port: int, public_url: str, issuer: str, aws: AwsStandIn) -> Settings:
    return load(
        None,
        {
            "server": {"public_url": public_url, "port": port},
            "database": {"url": f"sqlite+aiosqlite:///{folder}/broker.db"},
            "oidc": [
                {
                    "name": people.PROVIDER,
                    "title": "Local provider",
                    "issuer": issuer,
                    "client_id": "broker",
                    "client_secret": _CLIENT_SECRET,
                }
            ],
            "aws": [{"region": _REGION, "sts_endpoint_url": aws.url}],
            "keys": {"sealing": f"file:{folder}/sealing", "signing": f"file:{folder}/signing"},
            # Signed often, so that there is something to see soon.
            "audit": {
                "checkpoint_seconds": 3,
                "checkpoint_copies": [f"file:{folder}/outside/checkpoint"],
            },
            "bootstrap": {"admins": [{"provider": people.PROVIDER, "email": people.GRACE.email}]},
        },
    )


async def _run(stack: Stack, *, show_tour: bool) -> int:
    settings = stack.settings
    FileKeyRing.create(settings.keys.sealing_path)
    SigningKeys.create(settings.keys.signing_path, log_origin(settings.server.public_url))
    await migrate(settings.database.url.get_secret_value())
    async with serving(settings) as finished:
        stage = _stage(stack)
        if not show_tour:
            await asyncio.to_thread(tour.prepare, stage)
            _say(_how_to_use(stack, stage))
            await finished
            return 0
        _say(f"The broker is at {settings.server.public_url}, on SQLite. The OpenID provider and")
        _say("AWS are stand-ins on this machine; the AWS one enforces what AWS documents.")
        try:
            await asyncio.to_thread(tour.walk, stage)
        except tour.TourFailed as failure:
            print(f"\nThe tour failed: {failure}", file=sys.stderr)
            return 1
        _say(
            "\nThat was the whole path, on real HTTP. `make dev` leaves it running to try by hand."
        )
        return 0


def _stage(stack: Stack) -> tour.Stage:
    loop = asyncio.get_running_loop()

    def enrolment_code(email: str) -> str:
        making = create_enrolment_code(stack.settings, provider=people.PROVIDER, email=email)
        return asyncio.run_coroutine_threadsafe(making, loop).result()

    def member(person: Person) -> tour.Member:
        home = stack.folder / person.username
        return tour.Member(
            ScriptedPerson(person.username, person.password),
            Terminal(stack.settings.server.public_url, home),
        )

    return tour.Stage(
        aws=stack.aws,
        hub=stack.hub,
        region=_REGION,
        alice=member(people.ALICE),
        bob=member(people.BOB),
        grace=member(people.GRACE),
        enrolment_code=enrolment_code,
        log_key=str(SigningKeys.load(stack.settings.keys.signing_path).signer.key),
        folder=stack.folder,
        say=_say,
    )


def _say(words: str) -> None:
    print(words, flush=True)


def _how_to_use(stack: Stack, stage: tour.Stage) -> str:
    url = stack.settings.server.public_url
    rows = [
        f"    {person.username:8} password {person.password:8} "
        f"TOTP secret {member.person.totp_secret}  {person.name}"
        for person, member in (
            (people.ALICE, stage.alice),
            (people.BOB, stage.bob),
            (people.GRACE, stage.grace),
        )
    ]
    return "\n".join(
        [
            f"The broker runs at {url}, with a local OpenID provider at {stack.issuer}",
            f"and an AWS stand-in at {stack.aws.url}. Stop it with Ctrl-C; nothing is kept.",
            "",
            "People (add the TOTP secret to an authenticator app, or use a tool such as oathtool):",
            *rows,
            "",
            "Try, in another terminal:",
            f"    broker login --server {url}",
            "    broker roles",
            "    broker creds data-reader --format env",
            f"    export AWS_ENDPOINT_URL={stack.aws.url}",
            "    broker exec data-reader -- aws s3 cp s3://reports/public/q3.csv -",
            f"The access policy is {tour.POLICY.name}: broker access export",
        ]
    )
