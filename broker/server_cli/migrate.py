"""`broker migrate`: bring the database's schema to this version's, and make the first keys."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError

from broker.adapters import kms_sealing, kms_signing
from broker.adapters.key_place import KeyPlace, KmsReference
from broker.adapters.migrations import migrate
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.checkpoints import SqlCheckpoints
from broker.adapters.store.durability import grant_to_application
from broker.adapters.store.engine import Database
from broker.adapters.store.log_keys import SqlLogKeys
from broker.adapters.store.schema import factors
from broker.adapters.store.sealing_keys import SqlSealingKeys
from broker.app import canonical_origin
from broker.errors import StartupError
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "migrate",
        help="create or upgrade the database schema",
        description="Create or upgrade the database schema. Safe to run twice, and at once."
        " Where nothing is sealed or signed yet and there are no keys, those are created too.",
    )
    parser.add_argument(
        "--app-role",
        metavar="NAME",
        help="PostgreSQL: grant this role what the server needs, without the right to change or"
        " delete audit records",
    )
    parser.add_argument(
        "--no-keys",
        action="store_true",
        help="leave the keys alone: whoever owns the tables need not hold the keys that sign them",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    revision = asyncio.run(migrate(settings.database.url.get_secret_value()))
    print(f"The database schema is current (revision {revision}).")
    if arguments.app_role is not None:
        asyncio.run(_grant(settings, arguments.app_role))
        print(f"The role {arguments.app_role} may do what the server does; run it as that role.")
    if not arguments.no_keys:
        _create_first_keys(settings)
    return 0


def _create_first_keys(settings: Settings) -> None:
    sealing, signing = (
        settings.key_place(reference)
        for reference in (settings.keys.sealing, settings.keys.signing)
    )
    path = sealing.path
    if path is None:
        asyncio.run(_begin_in_kms(settings, sealing, _begin_sealing))
    elif not path.exists() and not asyncio.run(_holds_sealed_secrets(settings)):
        FileKeyRing.create(path)
        print(
            f"Created the sealing keys in {path} (mode 0600). "
            "Back them up, apart from the database."
        )
    path = signing.path
    if path is None:
        asyncio.run(_begin_in_kms(settings, signing, _begin_signing))
    elif not path.exists() and not asyncio.run(_was_signed(settings)):
        keys = SigningKeys.create(path, log_origin(settings.server.public_url))
        print(
            f"Created the log's signing key in {path} (mode 0600). Back it up, apart from the "
            f"database, and give auditors its verifier key:\n{keys.signer.key}"
        )


async def _begin_in_kms(
    settings: Settings,
    place: KeyPlace,
    begin: Callable[[Settings, Database, KmsReference, str | None], Awaitable[None]],
) -> None:
    if not isinstance(place.at, KmsReference):
        raise TypeError("not a key of KMS")
    database = Database.open(settings.database.url.get_secret_value())
    try:
        await begin(settings, database, place.at, place.profile)
    finally:
        await database.aclose()


async def _begin_sealing(
    settings: Settings, database: Database, key: KmsReference, profile: str | None
) -> None:
    """Where secrets are sealed already, the server names the cure when it starts."""
    store = SqlSealingKeys(database)
    if await store.all() or await _holds_sealed_secrets(settings):
        return
    await kms_sealing.create(key, profile, store)
    print(f"Made the first sealing key; it is in the database, wrapped by {key}.")


async def _begin_signing(
    settings: Settings, database: Database, key: KmsReference, profile: str | None
) -> None:
    store = SqlLogKeys(database)
    if await store.history() is not None or await _was_signed(settings):
        return
    vkey = await kms_signing.adopt(key, profile, log_origin(settings.server.public_url), store)
    print(f"{key} signs the log; give auditors its verifier key:\n{vkey}")


def log_origin(public_url: str) -> str:
    """What a new log is called: the host it is first served from, with a port that is not the
    scheme's. It keeps that name wherever it moves.
    """
    return canonical_origin(public_url).partition("://")[2]


async def _was_signed(settings: Settings) -> bool:
    """A signing key that went missing must be restored: nobody would trust a new one."""
    database = Database.open(settings.database.url.get_secret_value())
    try:
        return await SqlCheckpoints(database).latest() is not None
    finally:
        await database.aclose()


async def _grant(settings: Settings, role: str) -> None:
    database = Database.open(settings.database.url.get_secret_value())
    try:
        if database.dialect != "postgresql":
            raise StartupError("--app-role: only PostgreSQL has roles")
        try:
            await grant_to_application(database, role)
        except ProgrammingError as fault:
            raise StartupError(f"--app-role {role}: {fault.orig}") from None
    finally:
        await database.aclose()


async def _holds_sealed_secrets(settings: Settings) -> bool:
    """A ring that went missing must be restored: a new one in its place would open nothing."""
    database = Database.open(settings.database.url.get_secret_value())
    try:
        async with database.read() as conn:
            return (await conn.execute(select(factors.c.id).limit(1))).first() is not None
    finally:
        await database.aclose()
