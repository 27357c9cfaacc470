"""`broker creds`: fresh credentials on stdout, in the form that a shell or program reads."""

from __future__ import annotations

import argparse

from broker.cli import credentials, formats, restriction, server
from broker.cli.command import Command, add_wanted, wanted
from broker.cli.credentials import Credentials
from broker.cli.session import Session
from broker.cli.terminal import clean, for_people, is_interactive, local_time, note


def configure(parser: argparse.ArgumentParser) -> None:
    add_wanted(parser)
    restriction.add_option(parser)
    parser.add_argument(
        "--format",
        choices=tuple(formats.FORMATS),
        default="json",
        help="json is the shape of AWS's credential_process (default)",
    )


def creds(arguments: argparse.Namespace) -> int:
    """POST /v1/credentials, never cached."""
    asked, restrict = wanted(arguments), restriction.read(arguments.restrict)
    session = Session(server.find(), debug=arguments.debug)
    issued = credentials.issue(session, asked, client="creds", restrict=restrict)
    print(formats.FORMATS[arguments.format](issued))
    if is_interactive():
        note(f"broker: {summary(asked.role, issued)}")
    return 0


def summary(role: str, issued: Credentials) -> str:
    """One line for the person: until when, and what bound it."""
    account = f" in {issued.account_id}" if issued.account_id else ""
    text = f"{role}{account} until {local_time(issued.expires_at)}"
    if issued.granted_seconds is not None:
        text += f" ({for_people(issued.granted_seconds)}"
        text += f", bound by {clean(issued.bound_by, 40)})" if issued.bound_by else ")"
    return text


COMMANDS = {
    "creds": Command(
        "Print temporary credentials for a role. Each call is a new issuance in the audit log.",
        '  eval "$(broker creds data-reader --format env)"\n'
        "  broker creds data-reader --format fish | source\n"
        "  broker creds data-reader --format powershell | Out-String | Invoke-Expression\n"
        "  broker creds data-reader --duration 30m --set bucket=reports --reason TICKET-7\n"
        "  broker creds data-reader --restrict deny-deletes.json",
        configure,
        creds,
    )
}
