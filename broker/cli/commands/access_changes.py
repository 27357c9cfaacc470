"""`broker access changes|approve|withdraw`: access policies that wait for another admin."""

from __future__ import annotations

import argparse
import re
from urllib.parse import urlencode

from broker.cli import answers, server
from broker.cli.command import Command, no_arguments
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, confirm, is_interactive, note

_PAGE = 100
_PATH = "/v1/access/changes"
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


def configure_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a change of `broker access changes`")


def configure_approve(parser: argparse.ArgumentParser) -> None:
    configure_id(parser)
    parser.add_argument("--yes", action="store_true", help="approve without asking")


def changes(arguments: argparse.Namespace) -> int:
    """GET /v1/access/changes, page by page; newest first."""
    session = Session(server.find(), debug=arguments.debug)
    after: str | None = None
    while True:
        query = {"limit": str(_PAGE)} | ({} if after is None else {"after": after})
        page = session.get(f"{_PATH}?{urlencode(query)}")
        for change in answers.objects(page, "changes"):
            _show(change)
        following = page.get("next")
        if not isinstance(following, str) or following == after:
            return 0
        after = following


def approve(arguments: argparse.Namespace) -> int:
    """Show what it changes, ask, and put it in force."""
    path = _path(arguments.id)
    if not arguments.yes and not is_interactive():
        raise WrongUsage("nobody is there to confirm the change: add --yes")
    session = Session(server.find(), debug=arguments.debug)
    change = session.get(path)
    _show(change)
    for one in answers.objects(change, "changes"):
        print(f"    {_line(one)}")
    if not arguments.yes and not confirm("Approve this?"):
        note("Nothing was changed.")
        return 1
    applied = session.post(f"{path}/approve", {})
    note(f"Approved: applied as version {clean(applied.get('version'), 20)}.")
    return 0


def withdraw(arguments: argparse.Namespace) -> int:
    """POST /v1/access/changes/ID/withdraw."""
    path = _path(arguments.id)
    session = Session(server.find(), debug=arguments.debug)
    session.post(f"{path}/withdraw", {})
    note(f"Withdrawn: {clean(arguments.id, 80)}.")
    return 0


def _path(change_id: str) -> str:
    if not _ID.fullmatch(change_id):
        raise WrongUsage(f"{change_id!r} is not a change's id; see `broker access changes`")
    return f"{_PATH}/{change_id}"


def _show(change: dict[str, object]) -> None:
    who = change.get("author_handle") or change.get("author")
    state = clean(change.get("state"), 20)
    if state == "pending" and change.get("outdated") is True:
        state = "pending, but another version was applied since"
    print(
        f"{clean(change.get('id'), 80)}  {state}  by {clean(who, 120)}  "
        f"on version {clean(change.get('base_version'), 20)}, until "
        f"{clean(change.get('expires_at'), 40)}"
    )
    gains = change.get("gains")
    for gain in gains if isinstance(gains, list) else []:
        print(f"    waits because: {clean(gain)}")


def _line(change: dict[str, object]) -> str:
    """One change as the server's diff has it, in words."""
    sign = {"added": "+", "removed": "-", "changed": "~"}.get(str(change.get("change")), "?")
    parts = (change.get(key) for key in ("kind", "subject", "name", "field"))
    what = " ".join(clean(part) for part in parts if part)
    values = (change.get("before"), change.get("after"))
    terms = " -> ".join(clean(value) for value in values if value)
    return f"{sign} {what}" + (f": {terms}" if terms else "")


COMMANDS = {
    "access changes": Command(
        "Access policies that wait for another admin, or waited: who proposed what, and why it "
        "waits.",
        "  broker access changes",
        no_arguments,
        changes,
    ),
    "access approve": Command(
        "Approve an access policy that another admin proposed: shows what it changes, asks, and "
        "puts it in force. Refused where another version was applied since.",
        "  broker access approve chg-abcdefghijklmnopqrstuvwxyz",
        configure_approve,
        approve,
    ),
    "access withdraw": Command(
        "Withdraw an access policy that waits: one's own, or, as an admin, another's.",
        "  broker access withdraw chg-abcdefghijklmnopqrstuvwxyz",
        configure_id,
        withdraw,
    ),
}
