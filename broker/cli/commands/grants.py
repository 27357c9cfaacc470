"""`broker grant`, `broker grants` and `broker revoke`: roles for a time."""

from __future__ import annotations

import argparse
import json
import secrets

from broker.cli import answers, cached, pages, person, server
from broker.cli.command import Command
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, note, table
from broker.cli.times import both, local, moment


def configure_grant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "person", metavar="PERSON", help="a principal id, provider/e-mail, e-mail or handle"
    )
    parser.add_argument("role", metavar="ROLE", help="a role of the access policy")
    parser.add_argument(
        "--from", dest="begins", metavar="TIME", help="'2026-11-25 14:00' (local) or RFC 3339"
    )
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--until", metavar="TIME", help="as --from")
    end.add_argument("--for", dest="lasts", metavar="TIME", help="45m, 8h, 3d or seconds")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the log")
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def grant(arguments: argparse.Namespace) -> int:
    """POST /v1/grants, under a key of its own: a lost answer makes no second grant."""
    asked = _asked(arguments)
    session = Session(server.find(), debug=arguments.debug)
    asked |= _receiver(session, arguments.person)
    answer = session.send(
        "POST",
        "/v1/grants",
        body=json.dumps(asked).encode("ascii"),
        headers={"Idempotency-Key": secrets.token_urlsafe(18)},
    )
    made = answers.members(answer)
    if arguments.json:
        print(json.dumps(made))
        return 0
    print(clean(answers.text(made, "id"), 64))
    note(f"{clean(made.get('handle'))} has {clean(made.get('role'))}")
    note(f"  from   {both(made.get('not_before'))}")
    note(f"  until  {both(made.get('expires_at'))}")
    note(f"  credentials can be had until {both(made.get('usable_until'))}")
    if str(made.get("usable_until")) <= str(made.get("not_before")):
        note("  which is never: AWS gives none for less than 15 minutes; grant it for longer")
    return 0


def _asked(arguments: argparse.Namespace) -> dict[str, object]:
    if not cached.is_role_name(arguments.role):
        raise WrongUsage(f"{arguments.role!r} is not a role's name")
    asked: dict[str, object] = {"role": arguments.role, "reason": arguments.reason}
    if arguments.begins is not None:
        asked["not_before"] = moment(arguments.begins, "--from")
    if arguments.until is not None:
        asked["expires_at"] = moment(arguments.until, "--until")
        return asked
    try:
        asked["duration"] = cached.parse_duration(arguments.lasts)
    except ValueError as error:
        raise WrongUsage(f"--for: {error}") from None
    return asked


def _receiver(session: Session, text: str) -> dict[str, object]:
    """A delegated admin may not search the list of people, and need not with provider/e-mail."""
    if person.is_address(text):
        return {"user": text}
    return {"principal": person.resolved(session, text)}


def configure_grants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--person", metavar="PERSON", help="theirs alone")
    parser.add_argument("--role", metavar="ROLE", help="of this role alone")
    parser.add_argument("--active", action="store_true", help="those in force now")
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def grants(arguments: argparse.Namespace) -> int:
    """GET /v1/grants, page by page."""
    session = Session(server.find(), debug=arguments.debug)
    query: dict[str, str] = {}
    if arguments.person is not None:
        query["principal"] = person.resolved(session, arguments.person)
    if arguments.role is not None:
        query["role"] = arguments.role
    if arguments.active:
        query["active"] = "true"
    found = pages.whole(session, "/v1/grants", "grants", query)
    if arguments.json:
        print(json.dumps(found))
        return 0
    if not found:
        print("There are no grants to show.")
        return 0
    table(
        ("ID", "PERSON", "ROLE", "STATE", "FROM", "UNTIL", "GIVEN BY", "REASON"),
        (
            (
                one.get("id"),
                one.get("handle"),
                one.get("role"),
                one.get("state"),
                local(one.get("not_before")),
                local(one.get("expires_at")),
                one.get("granted_by"),
                one.get("reason"),
            )
            for one in found
        ),
    )
    return 0


def configure_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grant", metavar="GRANT_ID", help="g-..., of `broker grants`")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the log")


def revoke(arguments: argparse.Namespace) -> int:
    """POST /v1/grants/{id}/revoke."""
    target = f"/v1/grants/{person.grant_id(arguments.grant)}/revoke"
    done = Session(server.find(), debug=arguments.debug).post(target, {"reason": arguments.reason})
    note(f"Revoked: {clean(done.get('handle'))} no longer has {clean(done.get('role'))} by it.")
    note("Credentials issued before end by themselves; `broker suspend` stops a person at once.")
    return 0


COMMANDS = {
    "grant": Command(
        "Give a person a role for a time (admins). Times are local unless they say their offset.",
        '  broker grant alice@example.com deployer --for 2h --reason "incident 4711"\n'
        "  broker grant corp/bob@example.com data-reader --from '2026-11-25 14:00' "
        "--until '2026-11-25 18:00' --reason audit",
        configure_grant,
        grant,
    ),
    "grants": Command(
        "Grants: your own, and for admins and auditors all.",
        "  broker grants --active\n  broker grants --person bob@example.com --json",
        configure_grants,
        grants,
    ),
    "revoke": Command(
        "Take a grant back (admins, or the person who has it). Nothing more is issued by it.",
        "  broker revoke g-abcdefghijklmnopqrstuvwxyz --reason over",
        configure_revoke,
        revoke,
    ),
}
