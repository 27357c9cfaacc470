"""`broker whoami` and `broker roles`."""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from broker.cli import answers, server
from broker.cli.command import Command
from broker.cli.session import Session
from broker.cli.terminal import clean, for_people, local_time, table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def whoami(arguments: argparse.Namespace) -> int:
    """GET /v1/me."""
    broker = server.find()
    me = Session(broker, debug=arguments.debug).get("/v1/me")
    if arguments.json:
        print(json.dumps(me))
        return 0
    rows = [
        ("server", broker.origin),
        ("handle", me.get("handle")),
        ("id", me.get("id")),
        ("kind", me.get("kind")),
        ("e-mail", me.get("email")),
        ("groups", _joined(me.get("groups"))),
        ("rights", _joined(me.get("rights"))),
        ("logged in", _time(me.get("auth_time"))),
        ("second factor", _time(me.get("mfa_time"))),
        ("login ends", _time(me.get("session_expires_at"))),
    ]
    for name, value in rows:
        print(f"{name + ':':<15}{clean(value) if value else '-'}")
    return 0


def roles(arguments: argparse.Namespace) -> int:
    """GET /v1/roles."""
    answer = Session(server.find(), debug=arguments.debug).get("/v1/roles")
    offered = answers.objects(answer, "roles")
    if arguments.json:
        print(json.dumps(offered))
        return 0
    if not offered:
        print("No role is offered to you.")
        return 0
    table(
        ("ROLE", "ACCOUNT", "AVAILABILITY", "AT MOST", "PARAMETERS", "DESCRIPTION"),
        (
            (
                role.get("name"),
                f"{role.get('account_id')} {role.get('account_name') or ''}".strip(),
                role.get("availability"),
                _duration(role.get("max_duration")),
                _parameters(role.get("parameters")),
                role.get("description") or "",
            )
            for role in offered
        ),
    )
    return 0


def _joined(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else ""


def _duration(value: object) -> str:
    return for_people(value) if type(value) is int and value >= 0 else "-"


def _parameters(value: object) -> str:
    return ",".join(value) if isinstance(value, dict) and value else "-"


def _time(value: object) -> str:
    """In the person's time zone; as it came where it is no time."""
    try:
        return local_time(datetime.fromisoformat(str(value))) if value else ""
    except ValueError:
        return str(value)


COMMANDS = {
    "whoami": Command(
        "Who the broker takes you for, and until when.",
        "  broker whoami\n  broker whoami --json",
        configure,
        whoami,
    ),
    "roles": Command(
        "The AWS roles you can have: standing now, granted for a time, or on request.",
        "  broker roles\n  broker roles --json | jq -r '.[].name'",
        configure,
        roles,
    ),
}
