"""`broker doctor`: everything that a first run gets wrong, each finding with its cure.

Owns: which checks run, at once where they can, and how their findings are
shown. It changes nothing. Does not own the checks (`checks`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from broker.access.policy import AccessPolicy
from broker.cli.terminal import clean
from broker.errors import StartupError
from broker.issuance.trust_judgement import Level
from broker.server_cli import add_config_option
from broker.server_cli.checks.aws import Footing, footing_in, identity_checks, unusable
from broker.server_cli.checks.check import Check, fail, ok
from broker.server_cli.checks.database import Stored, database_checks
from broker.server_cli.checks.host import host_checks
from broker.server_cli.checks.policy import policy_checks
from broker.server_cli.checks.providers import provider_checks
from broker.server_cli.checks.roles import role_checks
from broker.server_cli.configuration import find_config
from broker.server_cli.logs import configure_logging
from broker.settings import Settings, load

# Of all roles together, so that an AWS that hangs does not hold up a hundred one after another.
_ROLES_SECONDS = 120.0
_ROLES_AT_ONCE = 8


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check what a first run gets wrong",
        description="Check settings, key files, database, clocks, OpenID providers, the broker's "
        "AWS identity, and each role of the access policy: each finding with its cure. Changes "
        "nothing; exits 1 on a failure.",
        epilog="A role that can't be judged by reading is tried: sts:AssumeRole for 900 s under a "
        "session policy that denies everything. Examples: broker doctor --config broker.toml   "
        "broker doctor --policy access.yaml --json",
    )
    add_config_option(parser)
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="check the roles of this file (default: of the access policy in force)",
    )
    parser.add_argument(
        "--no-try", action="store_true", help="read alone: call sts:AssumeRole for no role"
    )
    parser.add_argument("--json", action="store_true", help="the findings as a list, for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    configure_logging("error")
    # What the adapters would log is among the findings.
    logging.disable(logging.CRITICAL)
    runner = asyncio.Runner()
    checks = runner.run(_examine(arguments))
    _show(checks, as_json=arguments.json)
    code = 1 if any(check.level is Level.FAIL for check in checks) else 0
    sys.stdout.flush()
    # A look-up or a credential_process that hangs is a thread, and threads can't be stopped: the
    # interpreter would wait for them. Nothing is left to write.
    os._exit(code)


async def _examine(arguments: argparse.Namespace) -> list[Check]:
    config = find_config(arguments.config)
    try:
        settings = load(config)
    except StartupError as fault:
        cure = "correct it in the settings file or the environment (BROKER_SECTION__NAME)"
        return [fail("settings", line, cure) for line in str(fault).splitlines()]
    where = "defaults and the environment" if config is None else str(config)
    return [ok("settings", where), *await _checks(settings, arguments)]


async def _checks(settings: Settings, arguments: argparse.Namespace) -> list[Check]:
    stored = Stored()
    async with _footings(settings) as (footings, unusable_ones):
        of_database, *others = await asyncio.gather(
            database_checks(settings, stored),
            *(provider_checks(oidc) for oidc in settings.oidc),
            *(identity_checks(footing) for footing in footings.values()),
        )
        of_policy, policy = policy_checks(settings, stored, arguments.policy)
        of_roles = [] if policy is None else await _roles(policy, footings, arguments)
    found = [*host_checks(settings), *of_database]
    for more in (*others, unusable_ones, of_policy, of_roles):
        found += more
    return found


@asynccontextmanager
async def _footings(settings: Settings) -> AsyncIterator[tuple[dict[str, Footing], list[Check]]]:
    footings: dict[str, Footing] = {}
    checks: list[Check] = []
    async with AsyncExitStack() as stack:
        for aws in settings.aws:
            try:
                footings[aws.partition] = await stack.enter_async_context(footing_in(aws))
            except StartupError as fault:
                checks += unusable(aws, fault)
        yield footings, checks


async def _roles(
    policy: AccessPolicy, footings: dict[str, Footing], arguments: argparse.Namespace
) -> list[Check]:
    """In the file's order, whichever is done first."""
    turns = asyncio.Semaphore(_ROLES_AT_ONCE)

    async def one(name: str) -> list[Check]:
        async with turns:
            return await role_checks(policy.roles[name], footings, may_try=not arguments.no_try)

    tasks = {name: asyncio.create_task(one(name)) for name in policy.roles}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=_ROLES_SECONDS)
    found: list[Check] = []
    for name, task in tasks.items():
        if task.done():
            found += task.result()
        else:
            task.cancel()
            message = f"not checked within {_ROLES_SECONDS:.0f} s"
            late = fail(f"role {name}", message, "see what hangs above, and run it again")
            found.append(replace(late, role=name))
    return found


def _show(checks: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([check.as_json() for check in checks], indent=2))
        return
    for check in checks:
        print(f"{check.level.value:<5} {clean(check.name)}: {clean(check.message)}")
        if check.cure is not None:
            print(f"      cure: {clean(check.cure)}")
    count = Counter(check.level for check in checks)
    print(
        f"{len(checks)} checks: {count[Level.OK]} ok, {count[Level.WARN]} warned of, "
        f"{count[Level.FAIL]} failed"
    )
