"""`broker access try --token FILE|-`: what the access policy makes of a CI job's token."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from broker.cli import answers, server
from broker.cli.command import Command
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean

_MAX_TOKEN = 64 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token",
        metavar="FILE",
        required=True,
        help="a file with the token, or - for standard input (never the token itself)",
    )


def try_token(arguments: argparse.Namespace) -> int:
    """POST /v1/access/try; 0 where an entry admits the job and the token verifies."""
    token = _read(arguments.token)
    session = Session(server.find(), debug=arguments.debug)
    value = session.post("/v1/access/try", {"token": token})
    verification = answers.text(value, "verification")
    print(f"token: {clean(verification)}")
    if value.get("audience_admitted") is False:
        print("audience: not the one that the entries name")
    admitting = answers.objects(value, "workloads") if "workloads" in value else []
    for one in admitting:
        mode = " (observes only)" if one.get("observes") is True else ""
        roles = one.get("roles")
        shown = ", ".join(clean(role, 64) for role in roles) if isinstance(roles, list) else ""
        print(f"admitted as {clean(one.get('workload'), 64)}{mode}, roles: {shown or 'none'}")
    for entry in answers.objects(value, "closest"):
        print(f"not {clean(entry.get('workload'), 64)}:")
        for failed in answers.objects(entry, "failed"):
            found = failed.get("found")
            has = "is missing" if found is None else f"is {clean(repr(found), 200)}"
            wanted = clean(failed.get("expected"), 300)
            print(f"  {clean(failed.get('claim'), 128)} {has}, wanted {wanted}")
    good = verification == "good" and value.get("audience_admitted") is True
    return 0 if good and admitting else 1


def _read(name: str) -> str:
    """Raises WrongUsage."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_TOKEN + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_TOKEN + 1)
    except OSError as error:
        raise WrongUsage(f"--token {clean(name, 200)}: {error.strerror}") from None
    if len(data) > _MAX_TOKEN or not data.isascii() or not data.strip():
        raise WrongUsage("--token: the file holds no token")
    return data.decode("ascii").strip()


COMMANDS = {
    "access try": Command(
        "Say what the access policy makes of a CI job's OIDC token: whether it verifies, which "
        "workload admits it, and of the closest others which claim failed. The token is not used "
        "up. For auditors and admins.",
        "  broker access try --token token.txt\n  pbpaste | broker access try --token -",
        configure,
        try_token,
    )
}
