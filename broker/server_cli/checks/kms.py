"""Keys in AWS KMS: there, of the right kind, allowed, and the ones that the database knows."""

from __future__ import annotations

from broker.adapters.keys import load_sealing, load_signing
from broker.adapters.store.engine import Database
from broker.errors import StartupError
from broker.server_cli.checks.check import Check, fail, ok
from broker.settings import Settings

_CURE = "the broker does not start otherwise: see Keys in AWS KMS in docs/audit.md"


async def kms_checks(settings: Settings, database: Database) -> list[Check]:
    """None for keys in files. Nothing is signed; every sealing key is opened."""
    found = []
    for name, reference, load in (
        ("sealing keys", settings.keys.sealing, load_sealing),
        ("signing keys", settings.keys.signing, load_signing),
    ):
        place = settings.key_place(reference)
        if place.path is not None:
            continue
        try:
            await load(place, database)
        except StartupError as fault:
            found.append(fail(name, str(fault), _CURE))
        else:
            found.append(ok(name, reference))
    return found
