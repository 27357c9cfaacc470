"""`broker mfa verify` and `broker mfa reset`."""

from __future__ import annotations

import argparse

from broker.cli import person, server, terminal
from broker.cli.command import Command, no_arguments
from broker.cli.commands.users import configure_person
from broker.cli.failure import WrongUsage
from broker.cli.session import Session


def verify(arguments: argparse.Namespace) -> int:
    """POST /v1/mfa/verify, with a code that is typed, or piped: never an argument."""
    session = Session(server.find(), debug=arguments.debug, may_ask=False)
    session.verify_factor(terminal.ask_code())
    terminal.note("Second factor verified.")
    return 0


def configure_reset(parser: argparse.ArgumentParser) -> None:
    configure_person(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def reset(arguments: argparse.Namespace) -> int:
    """POST /v1/users/{id}/mfa/reset."""
    if not arguments.yes and not terminal.is_interactive():
        raise WrongUsage("nobody is there to confirm: add --yes")
    session = Session(server.find(), debug=arguments.debug)
    principal = person.resolved(session, arguments.person)
    question = f"Drop the second factor of {principal} and end their logins?"
    if not arguments.yes and not terminal.confirm(question):
        terminal.note("Nothing was changed.")
        return 1
    session.post(f"/v1/users/{principal}/mfa/reset", {})
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
        "  broker mfa reset corp/alice@example.com\n  broker mfa reset p-abcdefghij234567",
        configure_reset,
        reset,
    ),
}
