"""`broker enrol-code`: the one-time code with which a person enrols a second factor."""

from __future__ import annotations

import argparse

from broker.cli import answers, person, server
from broker.cli.command import Command
from broker.cli.session import Session
from broker.cli.terminal import clean, note


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", metavar="PERSON", help="provider/e-mail, or a principal id")


def enrol_code(arguments: argparse.Namespace) -> int:
    """POST /v1/enrolment-codes. The code alone is on stdout."""
    invited = person.reference(arguments.person)
    session = Session(server.find(), debug=arguments.debug)
    answer = session.post("/v1/enrolment-codes", invited)
    print(clean(answers.text(answer, "code"), 200))
    expires_at = answer.get("expires_at")
    until = f" It expires at {clean(expires_at, 40)}." if expires_at else ""
    note(f"Give this code to {clean(arguments.person)} alone, over a channel you trust.{until}")
    return 0


COMMANDS = {
    "enrol-code": Command(
        "Make a one-time code that lets a person enrol their second factor (admins).",
        "  broker enrol-code corp/grace@example.com\n  broker enrol-code p-abcdefghij234567",
        configure,
        enrol_code,
    )
}
