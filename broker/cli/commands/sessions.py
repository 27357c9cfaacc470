"""`broker sessions`: one's own logins."""

from __future__ import annotations

import argparse

from broker.cli import pages, server
from broker.cli.command import Command
from broker.cli.commands.users import end, print_sessions
from broker.cli.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--end", metavar="ID", help="end this one: ls-...")
    what.add_argument("--end-others", action="store_true", help="end all but this one")
    what.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def sessions(arguments: argparse.Namespace) -> int:
    """GET or DELETE /v1/me/sessions."""
    session = Session(server.find(), debug=arguments.debug)
    if arguments.end_others or arguments.end is not None:
        end(session, "/v1/me/sessions", arguments.end)
        return 0
    found = pages.whole(session, "/v1/me/sessions", "sessions", {})
    print_sessions(found, as_json=arguments.json)
    return 0


COMMANDS = {
    "sessions": Command(
        "Your logins that are not over, and ending those you do not know.",
        "  broker sessions\n  broker sessions --end-others",
        configure,
        sessions,
    )
}
