"""`broker migrate`: bring the database's schema to this version's."""

from __future__ import annotations

import argparse
import asyncio

from broker.adapters.migrations import migrate
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="create or upgrade the database schema",
        description="Create or upgrade the database schema. Safe to run twice, and at once.",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    asyncio.run(migrate(settings.database.url.get_secret_value()))
    print("The database schema is current.")
    return 0
