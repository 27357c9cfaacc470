"""`broker suspend` and `broker reinstate`: and what is left to do in AWS."""

from __future__ import annotations

import argparse
import json

from broker.cli import answers, person, server
from broker.cli.command import Command
from broker.cli.commands.users import configure_person
from broker.cli.session import Session
from broker.cli.terminal import clean, note
from broker.cli.times import both


def configure(parser: argparse.ArgumentParser) -> None:
    configure_person(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the log")
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def suspend(arguments: argparse.Namespace) -> int:
    """POST /v1/users/{id}/suspend. The policies to paste are on stdout."""
    session = Session(server.find(), debug=arguments.debug)
    who = person.resolved(session, arguments.person)
    done = session.post(f"/v1/users/{who}/suspend", {"reason": arguments.reason})
    if arguments.json:
        print(json.dumps(done))
        return 0
    since = both(done.get("suspended_at"))
    if done.get("already_suspended") is True:
        note(f"{who} was suspended already, since {since}: {clean(done.get('reason'))}")
    else:
        revoked = done.get("grants_revoked")
        grants = len(revoked) if isinstance(revoked, list) else 0
        note(f"Suspended {who} at {since}.")
        note(f"Ended: {done.get('login_sessions_ended')} logins, {grants} grants.")
    _print_roles(done, "Until they are reinstated, each of these roles needs")
    return 0


def reinstate(arguments: argparse.Namespace) -> int:
    """POST /v1/users/{id}/reinstate. The policies to paste are on stdout."""
    session = Session(server.find(), debug=arguments.debug)
    who = person.resolved(session, arguments.person)
    done = session.post(f"/v1/users/{who}/reinstate", {"reason": arguments.reason})
    if arguments.json:
        print(json.dumps(done))
        return 0
    note(f"Reinstated {who} at {both(done.get('lifted_at'))}.")
    note("They log in anew, with the second factor they had; revoked grants stay revoked.")
    _print_roles(done, "What was issued before must stay denied: replace the earlier policy by")
    return 0


def _print_roles(done: dict[str, object], heading: str) -> None:
    roles = answers.objects(done, "roles")
    if not roles:
        note("No credentials of theirs are alive in AWS: nothing is left to do there.")
        return
    note(f"{done.get('live_issuances_total')} credentials are alive in AWS, which can't be")
    note(f"recalled, only denied. {heading} this inline policy:")
    for role in roles:
        last = both(role.get("last_expires_at"))
        print(f"\n# role    {clean(role.get('role_arn'))}")
        print(f"# policy  {clean(role.get('policy_name'))}")
        print(f"# alive   {clean(role.get('live_issuances'))}, the last until {last};")
        print("#         afterwards the policy can be dropped")
        if role.get("may_chain") is True:
            print("# beware  they may have gone on to other roles: put it on those too")
        print(json.dumps(role.get("policy"), indent=2, ensure_ascii=True))


COMMANDS = {
    "suspend": Command(
        "Stop a person at once (admins): no login, no token, no grant is left, on any replica. "
        "Prints the policy that stops the credentials they already hold.",
        '  broker suspend alice@example.com --reason "laptop stolen"',
        configure,
        suspend,
    ),
    "reinstate": Command(
        "Let a suspended person log in again (admins).",
        '  broker reinstate alice@example.com --reason "laptop found"',
        configure,
        reinstate,
    ),
}
