"""`broker access trust-policy ROLE`: the trust policy to paste into AWS, on stdout alone."""

from __future__ import annotations

import argparse
import json
from urllib.parse import quote

from broker.cli import answers, cached, server
from broker.cli.command import Command
from broker.cli.failure import WrongUsage
from broker.cli.session import Session
from broker.cli.terminal import clean, note


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", metavar="ROLE", help="a role of the access policy")
    parser.add_argument(
        "--hop", metavar="ARN", help="that of a role on the way, where the role has `via`"
    )


def trust_policy(arguments: argparse.Namespace) -> int:
    """GET /v1/access/trust-policy/{role}."""
    if not cached.is_role_name(arguments.role):
        raise WrongUsage(f"{arguments.role!r} is not a role's name")
    session = Session(server.find(), debug=arguments.debug)
    found = session.get(f"/v1/access/trust-policy/{quote(arguments.role, safe='')}")
    hops = answers.objects(found, "hops")
    chosen = found if arguments.hop is None else _hop(hops, arguments.hop)
    policy = chosen.get("policy")
    if not isinstance(policy, dict):
        raise answers.not_a_broker("policy is not an object")
    # ASCII, so that nothing in it can reach the terminal as a control sequence.
    print(json.dumps(policy, indent=2, ensure_ascii=True))
    note(f"The trust policy of {clean(chosen.get('role_arn'))},")
    note(f"for {clean(chosen.get('principal'))}.")
    notes = chosen.get("notes")
    for text in notes if isinstance(notes, list) else []:
        note(f"- {clean(text)}")
    if arguments.hop is None:
        for hop in hops:
            arn = clean(hop.get("role_arn"))
            note(f"- The role is reached by way of {arn}, which needs one too: --hop {arn}")
    return 0


def _hop(hops: list[dict[str, object]], arn: str) -> dict[str, object]:
    for hop in hops:
        if hop.get("role_arn") == arn:
            return hop
    known = ", ".join(clean(hop.get("role_arn")) for hop in hops) or "there is none"
    raise WrongUsage(f"--hop {arn}: the role is not reached by way of it; {known}")


COMMANDS = {
    "access trust-policy": Command(
        "The trust policy that lets the broker into a role, and nobody else (admins). It holds "
        "the role's external id.",
        "  broker access trust-policy data-reader > trust.json\n"
        "  aws iam update-assume-role-policy --role-name DataReader "
        "--policy-document file://trust.json",
        configure,
        trust_policy,
    )
}
