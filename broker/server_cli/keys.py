"""`broker keys init|rotate`: the key ring that seals second-factor secrets."""

from __future__ import annotations

import argparse

from broker.adapters.sealing import FileKeyRing
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "keys",
        help="create or rotate the sealing keys",
        description="Create or rotate the key ring that seals second-factor secrets.",
        epilog="Back the key file up apart from the database: either alone opens nothing.",
    )
    parser.add_argument("action", choices=["init", "rotate"])
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    path = load_settings(arguments.config).keys.sealing_path
    if arguments.action == "init":
        FileKeyRing.create(path)
        print(f"Created {path} (mode 0600).")
    else:
        FileKeyRing.rotate(path)
        print(f"Added a key to {path}; new secrets are sealed with it. Restart the servers.")
    return 0
