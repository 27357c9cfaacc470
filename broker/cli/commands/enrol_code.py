"""`broker enrol-code`: the one-time code with which a person enrols a second factor."""

from __future__ import annotations

import argparse

from broker.cli import answers, person, server
from broker.cli.command import Command
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, note


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "person", metavar="PERSON", nargs="?", help="provider/e-mail, or a principal id"
    )
    parser.add_argument(
        "--group",
        metavar="PROVIDER/GROUP",
        help="one for each known member who has no second factor yet",
    )


def enrol_code(arguments: argparse.Namespace) -> int:
    """POST /v1/enrolment-codes. The code alone is on stdout; with --group, one a line after who
    it is for.
    """
    if (arguments.person is None) == (arguments.group is None):
        raise WrongUsage("name a person, or a --group")
    if arguments.group is not None:
        return _for_group(arguments)
    invited = person.reference(arguments.person)
    session = Session(server.find(), debug=arguments.debug)
    answer = session.post("/v1/enrolment-codes", invited)
    print(clean(answers.text(answer, "code"), 200))
    expires_at = answer.get("expires_at")
    until = f" It expires at {clean(expires_at, 40)}." if expires_at else ""
    note(f"Give this code to {clean(arguments.person)} alone, over a channel you trust.{until}")
    return 0


def _for_group(arguments: argparse.Namespace) -> int:
    session = Session(server.find(), debug=arguments.debug)
    after: object = None
    count = 0
    while True:
        asked = {"group": arguments.group, **({} if after is None else {"after": after})}
        answer = session.post("/v1/enrolment-codes", asked)
        for one in answers.objects(answer, "codes"):
            count += 1
            who = clean(answers.text(one, "handle"), 300)
            print(f"{who}\t{clean(answers.text(one, 'code'), 200)}", flush=True)
        following = answer.get("next")
        if not isinstance(following, str) or following == after:
            break
        after = following
    if count:
        note(f"{count} codes, good for a day; earlier ones of these people are void.")
    else:
        note("No known member of this group lacks a second factor.")
    return 0


COMMANDS = {
    "enrol-code": Command(
        "Make a one-time code that lets a person enrol their second factor (admins).",
        "  broker enrol-code corp/grace@example.com\n  broker enrol-code p-abcdefghij234567\n"
        "  broker enrol-code --group corp/analysts",
        configure,
        enrol_code,
    )
}
