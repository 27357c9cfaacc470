"""`broker keys init|rotate`: the ring that seals second-factor secrets, and the log's key."""

from __future__ import annotations

import argparse
import asyncio

from broker.adapters.migrations import check_schema
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from broker.adapters.store.records import append
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.server_cli.migrate import log_origin
from broker.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "keys",
        help="create or rotate the sealing keys, or the log's signing key",
        description="Create or rotate the key ring that seals second-factor secrets, or with"
        " --signing the key that signs the audit log. The old signing key signs the new one over"
        " and is erased; what it signed verifies for ever.",
        epilog="Back the key file up apart from the database: either alone opens nothing.",
    )
    parser.add_argument("action", choices=["init", "rotate"])
    parser.add_argument(
        "--signing", action="store_true", help="the log's signing key, not the sealing keys"
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    if arguments.signing:
        return _signing(arguments.action, settings)
    path = settings.keys.sealing_path
    if arguments.action == "init":
        FileKeyRing.create(path)
        print(f"Created {path} (mode 0600).")
    else:
        FileKeyRing.rotate(path)
        print(f"Added a key to {path}; new secrets are sealed with it. Restart the servers.")
    return 0


def _signing(action: str, settings: Settings) -> int:
    path = settings.keys.signing_path
    if action == "init":
        keys = SigningKeys.create(path, log_origin(settings.server.public_url))
        print(f"Created {path} (mode 0600).")
    else:
        keys = asyncio.run(_rotate_signing(settings))
        print(f"Put a new key into {path}. Restart the servers; clients follow by themselves.")
    print(f"Auditors verify with: {keys.signer.key}")
    return 0


async def _rotate_signing(settings: Settings) -> SigningKeys:
    """The rotation is recorded, so a database that can't be reached stops it before it begins."""
    database = Database.open(settings.database.url.get_secret_value())
    try:
        await check_schema(database)
        keys = SigningKeys.rotate(settings.keys.signing_path)
        event = Event(
            EventType.KEYS_ROTATED,
            SYSTEM,
            Outcome.SUCCESS,
            subject={"origin": keys.log.origin, "purpose": "signing"},
            detail={"key": str(keys.signer.key), "previous": str(keys.log.keys[-2])},
        )
        async with database.begin() as conn:
            await append(conn, [event])
        return keys
    finally:
        await database.aclose()
