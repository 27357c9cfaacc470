"""`broker users`: who is known, and their logins."""

from __future__ import annotations

import argparse
import json

from broker.cli import answers, pages, person, server
from broker.cli.command import Command
from broker.cli.session import Session
from broker.cli.terminal import clean, note, table
from broker.cli.times import both, local

_Members = dict[str, object]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--group", metavar="PROVIDER/GROUP", help="members at their last login")
    parser.add_argument("--search", metavar="TEXT", help="part of a handle or address")
    parser.add_argument("--workloads", action="store_true", help="workloads instead of people")
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def users(arguments: argparse.Namespace) -> int:
    """GET /v1/users, page by page."""
    query = {"kind": "workload"} if arguments.workloads else {}
    if arguments.group:
        query["group"] = arguments.group
    if arguments.search:
        query["q"] = arguments.search
    session = Session(server.find(), debug=arguments.debug)
    found = pages.whole(session, "/v1/users", "users", query)
    if arguments.json:
        print(json.dumps(found))
        return 0
    table(
        ("HANDLE", "ID", "RIGHTS", "SECOND FACTOR", "LOGINS", "LAST LOGIN", "STATE"),
        (
            (
                user.get("handle"),
                user.get("id"),
                _joined(user.get("rights")),
                "yes" if user.get("second_factor") is True else "no",
                user.get("live_sessions"),
                local(user.get("last_login_at")),
                "suspended" if user.get("suspended_at") else "active",
            )
            for user in found
        ),
    )
    return 0


def configure_person(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "person", metavar="PERSON", help="a principal id, provider/e-mail, e-mail or handle"
    )


def configure_shown(parser: argparse.ArgumentParser) -> None:
    configure_person(parser)
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def show(arguments: argparse.Namespace) -> int:
    """GET /v1/users/{id}."""
    session = Session(server.find(), debug=arguments.debug)
    user = session.get(f"/v1/users/{person.resolved(session, arguments.person)}")
    if arguments.json:
        print(json.dumps(user))
        return 0
    verified = "" if user.get("email_verified") is True else " (not verified)"
    rows = (
        ("handle", user.get("handle")),
        ("id", user.get("id")),
        ("kind", user.get("kind")),
        ("provider", user.get("provider")),
        ("e-mail", f"{user['email']}{verified}" if user.get("email") else None),
        ("groups", _joined(user.get("groups"))),
        ("rights", _joined(user.get("rights"))),
        ("second factor", "confirmed" if user.get("second_factor") is True else "none"),
        ("live logins", user.get("live_sessions")),
        ("known since", both(user.get("created_at"))),
        ("last login", both(user.get("last_login_at"))),
        ("suspended", both(user.get("suspended_at"))),
        ("because", user.get("suspended_reason")),
    )
    for name, value in rows:
        print(f"{name + ':':<15}{'-' if value in (None, '') else clean(value)}")
    return 0


def sessions(arguments: argparse.Namespace) -> int:
    """GET /v1/users/{id}/sessions."""
    session = Session(server.find(), debug=arguments.debug)
    who = person.resolved(session, arguments.person)
    found = pages.whole(session, f"/v1/users/{who}/sessions", "sessions", {})
    print_sessions(found, as_json=arguments.json)
    return 0


def configure_end(parser: argparse.ArgumentParser) -> None:
    configure_person(parser)
    parser.add_argument("--session", metavar="ID", help="this one alone: ls-...")


def end_sessions(arguments: argparse.Namespace) -> int:
    """DELETE /v1/users/{id}/sessions, or one of them."""
    session = Session(server.find(), debug=arguments.debug)
    who = person.resolved(session, arguments.person)
    end(session, f"/v1/users/{who}/sessions", arguments.session)
    return 0


def end(session: Session, target: str, only: str | None) -> None:
    """End the logins at this address, or `only` one of them, and say how many."""
    if only is not None:
        target = f"{target}/{person.login_session_id(only)}"
    ended = answers.members(session.send("DELETE", target)).get("ended")
    count = len(ended) if isinstance(ended, list) else 0
    note(f"Ended {count} login{'' if count == 1 else 's'}, on every replica.")


def print_sessions(found: list[_Members], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    table(
        ("ID", "CLIENT", "LOGGED IN", "SECOND FACTOR", "ENDS", "ADDRESS", "USER AGENT"),
        (
            (
                f"{one.get('id')}{' (this one)' if one.get('current') is True else ''}",
                one.get("client"),
                local(one.get("auth_time")),
                local(one.get("mfa_time")),
                local(one.get("expires_at")),
                one.get("ip") or "-",
                one.get("user_agent") or "-",
            )
            for one in found
        ),
    )


def _joined(value: object) -> str:
    return (", ".join(str(item) for item in value) if isinstance(value, list) else "") or "-"


COMMANDS = {
    "users": Command(
        "Who is known here: everybody who has logged in (auditors and admins).",
        "  broker users\n  broker users --group corp/analysts --json",
        configure,
        users,
    ),
    "users show": Command(
        "One person or workload (auditors and admins).",
        "  broker users show alice@example.com\n  broker users show p-abcdefghij234567",
        configure_shown,
        show,
    ),
    "users sessions": Command(
        "A person's logins that are not over (auditors and admins).",
        "  broker users sessions corp/alice@example.com",
        configure_shown,
        sessions,
    ),
    "users end-sessions": Command(
        "End a person's logins with all their tokens, on every replica at once (admins).",
        "  broker users end-sessions alice@example.com\n"
        "  broker users end-sessions p-abcdefghij234567 --session ls-0123456789abcdef0123",
        configure_end,
        end_sessions,
    ),
}
