"""`broker mfa verify` and `broker mfa reset`."""

from __future__ import annotations

import argparse

from broker.cli import person, server, terminal
from broker.cli.command import Command, no_arguments
from broker.cli.failure import WrongUsage
from broker.cli.session import Session


def verify(arguments: argparse.Namespace) -> int:
    """POST /v1/mfa/verify, with a code that is typed, or piped: never an argument."""
    session = Session(server.find(), debug=arguments.debug, may_ask=False)
    session.verify_factor(terminal.ask_code())
    terminal.note("Second factor verified.")
    return 0


def configure_reset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", metavar="PERSON", help="their principal id: p-...")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def reset(arguments: argparse.Namespace) -> int:
    """POST /v1/users/{id}/mfa/reset."""
    principal = person.principal_id(arguments.person)
    if not arguments.yes:
        if not terminal.is_interactive():
            raise WrongUsage("nobody is there to confirm: add --yes")
        if not terminal.confirm(f"Drop the second factor of {principal} and end their logins?"):
            terminal.note("Nothing was changed.")
            return 1
    Session(server.find(), debug=arguments.debug).post(f"/v1/users/{principal}/mfa/reset", {})
    terminal.note(f"Reset. {principal} enrols again with a code of `broker enrol-code`.")
    return 0


COMMANDS = {
    "mfa verify": Command(
        "Verify your second factor again, for what asks for a fresh one. The code is asked for; "
        "it is never an argument, which others could see.",
        "  broker mfa verify",
        no_arguments,
        verify,
    ),
    "mfa reset": Command(
        "Drop a person's second factors and end their logins. They enrol again with a new code.",
        "  broker mfa reset p-abcdefghij234567",
        configure_reset,
        reset,
    ),
}
