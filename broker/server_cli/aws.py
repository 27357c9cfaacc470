"""`broker aws bootstrap`: what AWS needs for an access policy, as code to review and apply.

Owns: where the access policy and its external ids come from, and the files. It
calls nothing at AWS. Does not own: the options (`aws_options`), what is needed
(`issuance/aws_setup`), or the formats (`aws_formats`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from broker import __version__
from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from broker.access.policy import AccessPolicy
from broker.access.versions import StoredPolicy, with_external_ids
from broker.adapters.migrations import check_schema
from broker.adapters.store.access import SqlAccessStore
from broker.cli.paths import write_private
from broker.cli.terminal import clean, note
from broker.errors import AuditUnavailable, Conflict, StartupError
from broker.issuance.aws_setup import AccountSetup, AwsSetup, aws_setup
from broker.server_cli.aws_formats import cloudformation, plain_json, terraform
from broker.server_cli.aws_options import add_extras, add_hub, add_what, choices_of, hub_of
from broker.server_cli.checks.database import open_existing
from broker.server_cli.configuration import find_config
from broker.settings import load

_MAX_BYTES = 1024 * 1024
_EXAMPLES = """examples:
  broker aws bootstrap --policy access.yaml --hub-trust ec2 > broker.tf
  broker aws bootstrap --policy access.yaml --account prod --hub-trust irsa \\
      --oidc-provider arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE \\
      --service-account broker/broker --with-doctor --output aws/
  broker aws bootstrap --policy access.yaml --hub-arn arn:aws:iam::111122223333:role/BrokerHub \\
      --existing data-reader --format cloudformation
"""  # noqa: E501 - a command as it is typed


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("aws", help="what AWS needs, as code")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bootstrap = commands.add_parser(
        "bootstrap",
        help="the broker's role, and what lets it into each role, as code",
        description="Print what AWS needs for an access policy: the broker's own role (the hub) "
        "with the least it needs, the roles with trust policies that let in the broker's calls "
        "and nothing else, and those on the way (via). Calls nothing at AWS. The output holds "
        "the roles' external ids.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_what(bootstrap)
    add_hub(bootstrap)
    add_extras(bootstrap)
    bootstrap.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises StartupError."""
    policy = _policy(arguments)
    try:
        setup = aws_setup(policy, hub_of(arguments, policy), choices_of(arguments, policy))
        files = _files(setup, arguments)
    except Conflict as refused:
        raise StartupError(refused.detail) from refused
    if arguments.output is None:
        if len(files) > 1:
            numbers = ", ".join(account.id for account in setup.accounts)
            raise StartupError(f"the roles lie in {numbers}: --output DIR writes a file for each")
        sys.stdout.write("".join(file.text for file in files))
    else:
        _write(files, arguments.output)
    _tell(setup, files)
    return 0


# The access policy.


def _policy(arguments: argparse.Namespace) -> AccessPolicy:
    config = find_config(arguments.config)
    stored: StoredPolicy | None = None
    text = None if arguments.policy is None else _read(arguments.policy)
    if text is None:
        stored = _in_force(config)
        text = stored.text
    providers = frozenset(arguments.provider) or _providers(config)
    try:
        policy = parse_policy(text, providers=providers)
    except PolicyRefused as refused:
        lines = (
            f"{arguments.policy or 'access policy'}:{f.line}:{f.column}: {f.message}; {f.instead}"
            for f in refused.findings
        )
        raise StartupError("\n".join(clean(line) for line in lines)) from refused
    if stored is None and config is not None and _generates(policy):
        stored = _in_force(config)
    return policy if stored is None else with_external_ids(policy, stored.external_ids)


def _generates(policy: AccessPolicy) -> bool:
    return any(role.generates_external_id for role in policy.roles.values())


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as opened:
                data = opened.read(_MAX_BYTES + 1)
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise StartupError(f"{name} can't be read: {fault}") from fault


def _providers(config: Path | None) -> frozenset[str]:
    if config is None:
        return frozenset({"corp"})
    return frozenset(provider.name for provider in load(config).oidc)


def _in_force(config: Path | None) -> StoredPolicy:
    if config is None:
        raise StartupError(
            "name the access policy (--policy FILE), or the settings (--config FILE)"
        )
    stored = asyncio.run(_stored(load(config).database.url.get_secret_value()))
    if stored is None:
        raise StartupError("no access policy is applied: `broker access apply FILE`")
    return stored


async def _stored(url: str) -> StoredPolicy | None:
    database = open_existing(url)
    try:
        await check_schema(database)
        return await SqlAccessStore(database).current_policy()
    except AuditUnavailable as out:
        raise StartupError(f"the database can't be reached: {out.log_detail}") from out
    finally:
        await database.aclose()


# What comes out.


@dataclass(frozen=True, slots=True)
class _File:
    account: str
    name: str
    text: str


def _files(setup: AwsSetup, arguments: argparse.Namespace) -> list[_File]:
    if arguments.format == "json":
        if arguments.output is None:
            return [_File("", plain_json.FILE, plain_json.render(setup, setup.accounts))]
        return [
            _File(account.id, plain_json.FILE, plain_json.render(setup, [account]))
            for account in setup.accounts
        ]
    found: list[_File] = []
    for account in setup.accounts:
        heading = _heading(setup, account)
        if arguments.format == "terraform":
            found.append(
                _File(account.id, terraform.FILE, terraform.render(setup, account, heading))
            )
        elif cloudformation.only_existing(account):
            raise StartupError(
                f"every role of account {account.id} exists already, and CloudFormation changes "
                "none that it did not make: use --format terraform or json"
            )
        else:
            found.append(
                _File(account.id, cloudformation.FILE, cloudformation.render(account, heading))
            )
    return found


def _heading(setup: AwsSetup, account: AccountSetup) -> list[str]:
    place = account.id if account.name is None else f"{account.id} ({account.name})"
    first = setup.accounts[0].id
    after = (
        f"Apply it after those of {', '.join(a.id for a in _before(setup, account))}: AWS takes no "
        "trust policy that names a role which does not exist."
    )
    kept = (
        f"The broker's own role is {setup.hub_arn}. If it is ever made anew, apply this again: a "
        "trust policy keeps the role that was there when it was written."
    )
    return [
        f"Written by `broker aws bootstrap` {__version__} for account {place}.",
        "It holds the roles' external ids: keep it as you keep the access policy.",
        kept,
        *(setup.notes if account.id == first else [after]),
    ]


def _before(setup: AwsSetup, account: AccountSetup) -> list[AccountSetup]:
    return list(setup.accounts[: setup.accounts.index(account)])


def _write(files: list[_File], directory: Path) -> None:
    for file in files:
        path = directory.absolute() / file.account / file.name
        try:
            write_private(str(path), file.text.encode("ascii"))
        except OSError as fault:
            raise StartupError(f"{path} can't be written: {fault.strerror}") from fault
        note(str(path))


def _tell(setup: AwsSetup, files: list[_File]) -> None:
    """On stderr, so that the output stays the code."""
    if setup.left_out:
        note(
            f"broker: left out, since they are not in partition {setup.partition}: "
            f"{', '.join(setup.left_out)}. Run this again for the broker's role there (--account)."
        )
    for text in setup.notes:
        note(f"broker: {text}")
    for file in files:
        if file.name == cloudformation.FILE and len(file.text) > cloudformation.MAX_DIRECT:
            note(
                f"broker: the template for {file.account} is over {cloudformation.MAX_DIRECT} "
                "bytes: CloudFormation takes it from S3 alone (`deploy --s3-bucket`)"
            )
    if len(setup.accounts) > 1:
        order = ", ".join(account.id for account in setup.accounts)
        note(f"broker: apply them in this order: {order}")
    note("broker: then ask `broker doctor`.")
