"""`broker exec ROLE -- COMMAND`: the command inherits the credentials, nothing is written."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping

from broker.cli import credentials, formats, restriction, server
from broker.cli.command import Command, add_wanted, wanted
from broker.cli.credentials import Credentials
from broker.cli.session import Session
from broker.cli.terminal import clean, note

# What an SDK would take credentials, or a profile with others, from.
_COMPETING = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_ACCOUNT_ID",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_CREDENTIAL_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    }
)
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


def configure(parser: argparse.ArgumentParser) -> None:
    add_wanted(parser)
    restriction.add_option(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Look for the program first: nothing is issued for one that is not there."""
    program = arguments.command[0]
    if shutil.which(program) is None:
        return _cannot_run(program, exists=os.path.sep in program and os.access(program, os.F_OK))
    asked, restrict = wanted(arguments), restriction.read(arguments.restrict)
    session = Session(server.find(), debug=arguments.debug)
    issued = credentials.issue(session, asked, client="exec", restrict=restrict)
    environment = child_environment(os.environ, issued)
    sys.stdout.flush()
    if os.name != "posix":
        # On Windows exec returns to the shell at once, before the command has ended.
        return os.spawnvpe(os.P_WAIT, program, arguments.command, environment)  # noqa: S606 - theirs
    try:
        os.execvpe(program, arguments.command, environment)  # noqa: S606 - their command
    except FileNotFoundError:
        return _cannot_run(program, exists=False)
    except OSError:
        return _cannot_run(program, exists=True)


def child_environment(inherited: Mapping[str, str], issued: Credentials) -> dict[str, str]:
    """The caller's environment with these credentials alone. A region that the caller chose
    stays theirs.
    """
    kept = without_credentials(inherited)
    has_region = bool(kept.get("AWS_REGION") or kept.get("AWS_DEFAULT_REGION"))
    given = formats.environment(issued)
    if has_region:
        given = {name: value for name, value in given.items() if not name.endswith("REGION")}
    return {**kept, **given}


def without_credentials(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that an SDK would take other credentials from."""
    return {name: value for name, value in inherited.items() if name not in _COMPETING}


def _cannot_run(program: str, *, exists: bool) -> int:
    reason = "can't be executed" if exists else "command not found"
    note(f"broker: {clean(program, 200)}: {reason}")
    return _NOT_EXECUTABLE if exists else _NOT_FOUND


COMMANDS = {
    "exec": Command(
        "Run a command with fresh credentials of a role in its environment, in place of any "
        "others. Its exit code is the command's; 127 where there is no such command.",
        "  broker exec data-reader -- aws s3 ls\n"
        "  broker exec data-reader --duration 1h --set bucket=reports -- terraform plan",
        configure,
        execute,
        takes_command=True,
    )
}
