"""The options of `broker aws bootstrap`, and what they mean.

Owns: their names and help, and refusing what AWS would not take. Does not own:
reading or writing anything (`aws`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from broker.access.policy import AccessPolicy, Account
from broker.adapters.key_place import KmsReference
from broker.errors import Conflict
from broker.issuance import hub_trust
from broker.issuance.aws_setup import Choices, Hub
from broker.issuance.hub_trust import HubTrust
from broker.server_cli import add_config_option

_HUB_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}", re.ASCII)


def add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="the access policy; - for standard input (default: the one in force, from the "
        "database of the settings)",
    )
    parser.add_argument(
        "--format", choices=["terraform", "cloudformation", "json"], default="terraform"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write DIR/ACCOUNT/broker.tf, .yaml or .json for each account (mode 0600); needed "
        "where roles lie in several accounts, but for json",
    )
    add_config_option(parser)
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME",
        help="a configured OpenID provider (default: those of the settings, else corp)",
    )


def add_hub(parser: argparse.ArgumentParser) -> None:
    hub = parser.add_argument_group("the broker's own role")
    hub.add_argument(
        "--account",
        metavar="ID|NAME",
        help="the account that it is in (default: the access policy's, where it has one alone)",
    )
    hub.add_argument("--hub-name", default="BrokerHub", metavar="NAME", help="(default: BrokerHub)")
    hub.add_argument(
        "--hub-trust",
        metavar="ec2|ecs|irsa|pod-identity|ARN",
        help="how the broker's host gets it: as instance profile, ECS task role, by a Kubernetes "
        "service account, or by assuming it with the role ARN",
    )
    hub.add_argument("--oidc-provider", metavar="ARN", help="irsa: the cluster's, in IAM")
    hub.add_argument(
        "--service-account",
        metavar="NAMESPACE/NAME",
        help="irsa, pod-identity: of the broker's pods",
    )
    hub.add_argument(
        "--oidc-audience",
        default="sts.amazonaws.com",
        metavar="TEXT",
        help="irsa: the token's audience (default: sts.amazonaws.com)",
    )
    hub.add_argument(
        "--hub-arn",
        metavar="ARN",
        help="it exists already: its trust policy stays, and it gets the policies it needs",
    )


def add_extras(parser: argparse.ArgumentParser) -> None:
    extras = parser.add_argument_group("what else")
    extras.add_argument(
        "--existing",
        action="append",
        default=[],
        metavar="ROLE|ARN|all",
        help="a role of the access policy, or a hop, that exists already: its trust policy and "
        "MaxSessionDuration alone",
    )
    extras.add_argument(
        "--with-doctor",
        action="store_true",
        help="let the broker read its account's roles, so that doctor tells more (iam:GetRole)",
    )
    extras.add_argument(
        "--with-revocation",
        action="store_true",
        help="let the broker put, read and drop inline policies on roles that say revocable: true",
    )
    extras.add_argument(
        "--sealing-key", metavar="ARN", help="where [keys] sealing is awskms: the KMS key"
    )
    extras.add_argument(
        "--signing-key", metavar="ARN", help="where [keys] signing is awskms: the KMS key"
    )


def hub_of(arguments: argparse.Namespace, policy: AccessPolicy) -> Hub:
    """Raises Conflict."""
    if arguments.hub_arn is not None:
        if arguments.hub_trust is not None:
            raise Conflict(
                "--hub-arn is a role that exists, whose trust policy stays: leave --hub-trust out"
            )
        if not hub_trust.ROLE_ARN.fullmatch(arguments.hub_arn):
            raise Conflict(f"{arguments.hub_arn[:120]!r} is no ARN of a role")
        return Hub(arguments.hub_arn, None)
    if not _HUB_NAME.fullmatch(arguments.hub_name):
        raise Conflict(f"{arguments.hub_name[:80]!r} is no name of a role in IAM")
    account = _account(arguments.account, policy.accounts)
    arn = f"arn:{account.partition}:iam::{account.id}:role/{arguments.hub_name}"
    return Hub(arn, _trust(arguments, account))


def _account(asked: str | None, accounts: Mapping[str, Account]) -> Account:
    if asked is None:
        if len(accounts) != 1:
            known = ", ".join(accounts) or "none"
            raise Conflict(
                f"say which account the broker runs in: --account ({known}, or 12 digits)"
            )
        return next(iter(accounts.values()))
    found = accounts.get(asked) or next((a for a in accounts.values() if a.id == asked), None)
    if found is not None:
        return found
    if not re.fullmatch(r"[0-9]{12}", asked, re.ASCII):
        raise Conflict(f"the access policy has no account {asked[:80]!r}: write its 12 digits")
    partitions = {account.partition for account in accounts.values()} or {"aws"}
    if len(partitions) > 1:
        raise Conflict(
            f"account {asked} may be in {', '.join(sorted(partitions))}: add it under accounts, "
            "with its partition"
        )
    return Account(asked, asked, asked, "", partitions.pop())


def _trust(arguments: argparse.Namespace, account: Account) -> HubTrust:
    partition, service_account = account.partition, arguments.service_account
    match arguments.hub_trust:
        case None:
            raise Conflict(
                "say how the broker's host gets its role: --hub-trust ec2, ecs, irsa, "
                "pod-identity or a role's ARN; or name one that exists with --hub-arn"
            )
        case "ec2":
            return hub_trust.ec2(partition)
        case "ecs":
            return hub_trust.ecs(partition, account.id)
        case "irsa":
            if arguments.oidc_provider is None or service_account is None:
                raise Conflict("--hub-trust irsa needs --oidc-provider and --service-account")
            return hub_trust.irsa(
                arguments.oidc_provider,
                service_account,
                arguments.oidc_audience,
                account=account.id,
            )
        case "pod-identity":
            return hub_trust.pod_identity(partition, service_account)
        case arn:
            return hub_trust.other_role(arn, partition=partition)


def choices_of(arguments: argparse.Namespace, policy: AccessPolicy) -> Choices:
    return Choices(
        existing=_existing(arguments.existing, policy),
        revocation=arguments.with_revocation,
        doctor=arguments.with_doctor,
        sealing_key=_key(arguments.sealing_key),
        signing_key=_key(arguments.signing_key),
    )


def _key(written: str | None) -> str | None:
    """As an ARN, or as the settings write it."""
    if written is None:
        return None
    try:
        return KmsReference.parse(f"awskms:{written.removeprefix('awskms:')}").arn
    except ValueError as fault:
        raise Conflict(f"{written[:120]!r} is no KMS key: {fault}") from fault


def _existing(named: list[str], policy: AccessPolicy) -> frozenset[str]:
    targets = {role.role_arn for role in policy.roles.values()}
    known = targets | {arn for role in policy.roles.values() for arn in role.via}
    found: set[str] = set()
    for name in named:
        if name == "all":
            found |= known
        elif name in policy.roles:
            found.add(policy.roles[name].role_arn)
        elif name in known:
            found.add(name)
        else:
            raise Conflict(f"--existing {name[:120]}: the access policy has no such role")
    return frozenset(found)
