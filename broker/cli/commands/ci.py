"""`broker ci ROLE`: credentials inside a CI job, by the job's own token. No secret is stored."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

from broker.cli import ci_output, ci_token, restriction, server
from broker.cli.ci_endpoint import Endpoint
from broker.cli.ci_job import Job
from broker.cli.command import Command, add_wanted, wanted
from broker.cli.commands.exec import without_credentials
from broker.cli.credentials import Credentials
from broker.cli.terminal import clean, note

_NOT_FOUND = 127
_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def configure(parser: argparse.ArgumentParser) -> None:
    add_wanted(parser)
    restriction.add_option(parser)
    parser.add_argument("--server", metavar="URL", help="the broker (default: BROKER_SERVER)")
    parser.add_argument(
        "--audience", metavar="TEXT", help="the token's audience (default: the broker's address)"
    )
    parser.add_argument(
        "--format",
        choices=ci_output.FORMATS,
        default="auto",
        help="auto: as the platform hands variables to later steps, else lines for `eval`",
    )
    parser.add_argument(
        "--end", action="store_true", help="give the job token back (after the command, if any)"
    )


def ci(arguments: argparse.Namespace) -> int:
    """Exchange the job's token once, then fetch credentials with what it gave."""
    asked, restrict = wanted(arguments), restriction.read(arguments.restrict)
    broker = server.find(arguments.server)
    source = ci_token.find(os.environ, arguments.audience or broker.origin, debug=arguments.debug)
    job = Job(broker, source, asked.role, debug=arguments.debug)
    command: list[str] | None = arguments.command
    if command is None:
        if arguments.end:
            job.end()
        else:
            ci_output.hand_over(job.issue(asked, restrict), arguments.format, os.environ)
        return 0
    if shutil.which(command[0]) is None:
        note(f"broker: {clean(command[0], 200)}: command not found")
        return _NOT_FOUND
    try:
        return _run(command, lambda: job.issue(asked, restrict))
    finally:
        if arguments.end:
            job.end()


def _run(command: list[str], issue: Callable[[], Credentials]) -> int:
    """The command with a source of credentials that outlives any one of them; its exit code."""
    endpoint = Endpoint(issue)
    first = endpoint.credentials()  # a refusal is told before anything runs
    environment = without_credentials(os.environ)
    environment.update(endpoint.environment)
    if first.region is not None:
        environment.setdefault("AWS_REGION", first.region)
        environment.setdefault("AWS_DEFAULT_REGION", first.region)
    endpoint.start()
    sys.stdout.flush()
    try:
        with subprocess.Popen(command, env=environment) as child:

            def forward(number: int, _frame: FrameType | None) -> None:
                child.send_signal(number)

            before = {number: signal.signal(number, forward) for number in _FORWARDED}
            try:
                code = child.wait()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
    finally:
        endpoint.close()
    # As shells say it of a command that a signal ended.
    return 128 - code if code < 0 else code


COMMANDS = {
    "ci": Command(
        "Get a role's credentials inside a CI job, by the OIDC token of its platform: GitHub "
        "Actions, GitLab CI, Buildkite, CircleCI, Bitbucket, HCP Terraform, a projected Kubernetes "
        "token, or BROKER_CI_TOKEN and BROKER_CI_TOKEN_FILE. With a command after `--`, its "
        "credentials stay fresh as long as it runs.",
        "  broker ci deployer -- terraform apply\n"
        '  eval "$(broker ci deployer --format env)"\n'
        "  broker ci deployer          # on GitHub: for all later steps, masked\n"
        "  broker ci deployer --end    # in the job's last step",
        configure,
        ci,
        takes_command=True,
        command_optional=True,
    )
}
