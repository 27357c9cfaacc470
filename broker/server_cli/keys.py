"""`broker keys`: the ring that seals second-factor secrets, and the key of the log."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.adapters import kms_sealing, kms_signing
from broker.adapters.key_place import KeyPlace, KmsReference
from broker.adapters.keys import load_sealing, load_signing
from broker.adapters.migrations import check_schema
from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from broker.adapters.store.engine import Database
from broker.adapters.store.log_keys import SqlLogKeys
from broker.adapters.store.records import append
from broker.adapters.store.resealing import reseal
from broker.adapters.store.sealing_keys import SqlSealingKeys
from broker.audit.note import VerifierKey
from broker.audit.record import SYSTEM, Event, EventType, Outcome
from broker.errors import StartupError
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.server_cli.migrate import log_origin
from broker.settings import Settings

_RESTART = "Restart the servers; then `broker keys reseal` seals the secrets of before anew."


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "keys",
        help="create or rotate the sealing keys, or the log's signing key",
        description="Create or rotate the key ring that seals second-factor secrets, or with"
        " --signing the key that signs the audit log. The old signing key signs the new one over,"
        " and is erased where it was in a file; what it signed verifies for ever.",
        epilog="Back a key file up apart from the database: either alone opens nothing."
        " `rotate --to awskms:ARN` moves on to a key in AWS KMS; change [keys] then.",
    )
    parser.add_argument("action", choices=["init", "rotate", "reseal"])
    parser.add_argument(
        "--signing", action="store_true", help="the log's signing key, not the sealing keys"
    )
    parser.add_argument(
        "--to", metavar="awskms:ARN", help="rotate: the key in AWS KMS that comes next"
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    successor = _successor(arguments, settings)
    if arguments.action == "reseal":
        if arguments.signing:
            raise StartupError("the log's signing key seals nothing: leave out --signing")
        return asyncio.run(_reseal(settings))
    act = _signing if arguments.signing else _sealing
    return asyncio.run(act(arguments.action, settings, successor))


def _successor(arguments: argparse.Namespace, settings: Settings) -> KeyPlace | None:
    if arguments.to is None:
        return None
    if arguments.action != "rotate":
        raise StartupError("--to is for `broker keys rotate`: init makes the keys of the settings")
    try:
        return settings.key_place(str(KmsReference.parse(arguments.to)))
    except ValueError as error:
        raise StartupError(f"--to: {error}") from None


# --- The sealing keys ------------------------------------------------------------------------


async def _sealing(action: str, settings: Settings, successor: KeyPlace | None) -> int:
    place = settings.key_place(settings.keys.sealing)
    if place.path is not None and successor is None:
        if action == "init":
            FileKeyRing.create(place.path)
            print(f"Created {place.path} (mode 0600).")
        else:
            FileKeyRing.rotate(place.path)
            print(f"Added a key to {place.path}; new secrets are sealed with it.")
            print(_RESTART)
        return 0
    async with _database(settings) as database:
        store = SqlSealingKeys(database)
        if action == "init":
            await kms_sealing.create(_in_kms(place), place.profile, store)
            print(f"Created a data key under {place}; it is in the database, wrapped.")
            return 0
        new = successor or place
        if place.path is not None:
            await kms_sealing.move_file(place.path, _in_kms(new), new.profile, store)
            print(f"The keys of {place.path} are in the database, wrapped by {new}.")
        elif str(new) == str(place):
            await kms_sealing.rotate(_in_kms(new), new.profile, store)
            print(f"Added a data key under {new}; new secrets are sealed with it.")
        else:
            await kms_sealing.move(_in_kms(place), place.profile, _in_kms(new), new.profile, store)
            print(f"The sealing keys are wrapped by {new}, and a new one was added.")
        _say_what_is_next("sealing", place, new)
    return 0


async def _reseal(settings: Settings) -> int:
    """1 where a secret stays as it is, since nothing opens it."""
    async with _database(settings) as database:
        ring = await load_sealing(settings.key_place(settings.keys.sealing), database)
        done = await reseal(database, ring)
    print(f"Secrets sealed again: {done.count}. The current key is {ring.current}.")
    for principal_id in done.unopened:
        print(
            f"A secret of {principal_id} opens under no key of the ring: restore the key that"
            f" sealed it, or `broker mfa reset {principal_id}`.",
            file=sys.stderr,
        )
    return 1 if done.unopened else 0


# --- The log's signing key -------------------------------------------------------------------


async def _signing(action: str, settings: Settings, successor: KeyPlace | None) -> int:
    place = settings.key_place(settings.keys.signing)
    origin = log_origin(settings.server.public_url)
    if action == "init" and place.path is not None:
        key = SigningKeys.create(place.path, origin).signer.key
        print(f"Created {place.path} (mode 0600).")
    elif action == "init":
        async with _database(settings) as database:
            store = SqlLogKeys(database)
            key = await kms_signing.adopt(_in_kms(place), place.profile, origin, store)
        print(f"{place} is the log's key from now on.")
    elif successor is not None:
        key = await _hand_over(settings, place, successor)
        _say_what_is_next("signing", place, successor)
    elif place.path is not None:
        key = await _rotate_file(settings)
        print(
            f"Put a new key into {place.path}. Restart the servers; clients follow by themselves."
        )
    else:
        raise StartupError("make another key in KMS, and name it with --to awskms:ARN")
    print(f"Auditors verify with: {key}")
    return 0


async def _hand_over(settings: Settings, place: KeyPlace, successor: KeyPlace) -> VerifierKey:
    async with _database(settings) as database:
        old = await load_signing(place, database)
        return await kms_signing.hand_over(
            old, str(place), _in_kms(successor), successor.profile, SqlLogKeys(database)
        )


async def _rotate_file(settings: Settings) -> VerifierKey:
    """The rotation is recorded, so a database that can't be reached stops it before it begins."""
    async with _database(settings) as database:
        # A file that handed the log over to KMS must not name another successor.
        await load_signing(settings.key_place(settings.keys.signing), database)
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
        return keys.signer.key


# --- Both ------------------------------------------------------------------------------------


def _in_kms(place: KeyPlace) -> KmsReference:
    if isinstance(place.at, KmsReference):
        return place.at
    raise StartupError(f"{place} is no key in AWS KMS")


def _say_what_is_next(which: str, place: KeyPlace, new: KeyPlace) -> None:
    if str(place) != str(new):
        print(f'Now set [keys] {which} = "{new}".')
    print(_RESTART if which == "sealing" else "Restart the servers.")
    if place.path is not None:
        print(f"Then erase {place.path}: nothing needs it any more.")


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    """Raises StartupError unless it is at this version's schema."""
    database = Database.open(settings.database.url.get_secret_value())
    try:
        await check_schema(database)
        yield database
    finally:
        await database.aclose()
