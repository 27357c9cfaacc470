"""`broker recover`: an enrolment code for a first admin, or one who lost every factor.

Runs on the server's host, with its settings: who can read the database and the
key ring there could do worse. It is recorded like any other act, as done by the
system, so that every admin and auditor sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
from datetime import datetime

from broker.adapters.migrations import check_schema
from broker.adapters.store.engine import Database
from broker.adapters.store.factors import SqlFactorStore
from broker.adapters.store.principals import SqlPeople
from broker.audit.record import SYSTEM, Event, EventType, Outcome, clean_text
from broker.errors import StartupError
from broker.identity.principal import Principal
from broker.identity.typed_codes import new_enrolment_code
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "recover",
        help="print a one-time enrolment code for a first or new admin",
        description="Print a one-time code with which a person may enrol a second factor.",
        epilog="examples:\n"
        "  broker recover --provider corp --email you@example.com\n"
        "  broker recover --issuer https://idp.example.com --subject 0a1b2c --reset-factors",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--provider", help="name of a configured OpenID provider")
    parser.add_argument("--email", help="the person's verified e-mail address there")
    parser.add_argument("--issuer", help="instead: the exact issuer")
    parser.add_argument("--subject", help="and the person's subject there")
    parser.add_argument(
        "--reset-factors",
        action="store_true",
        help="also drop the factors that the person has, and end their sessions",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    by_email = arguments.provider is not None and arguments.email is not None
    by_subject = arguments.issuer is not None and arguments.subject is not None
    if by_email == by_subject:
        raise StartupError("recover: give --provider and --email, or --issuer and --subject")
    settings = load_settings(arguments.config)
    code, expires_at = asyncio.run(_recover(settings, arguments, by_email=by_email))
    print(code)
    print(f"It works once, until {expires_at:%Y-%m-%d %H:%M} UTC: sign in at")
    print(f"{settings.server.public_url}/login and enter it on the enrolment page.")
    return 0


async def _recover(
    settings: Settings, arguments: argparse.Namespace, *, by_email: bool
) -> tuple[str, datetime]:
    if by_email and arguments.provider not in {provider.name for provider in settings.oidc}:
        raise StartupError(f"recover: no [[oidc]] entry is named {arguments.provider!r}")
    database = Database.open(settings.database.url.get_secret_value())
    try:
        await check_schema(database)
        people = SqlPeople(database)
        if by_email:
            person = await people.find_by_email(arguments.provider, arguments.email)
        else:
            person = await people.find_by_subject(arguments.issuer, arguments.subject)
            if person is None:
                raise StartupError("recover: nobody with that subject has signed in yet")
        await _clear_the_way(database, person, reset=arguments.reset_factors)
        return await _create(
            database,
            principal_id=None if by_email else person.id if person else None,
            provider=arguments.provider if by_email else None,
            email=arguments.email if by_email else None,
        )
    finally:
        await database.aclose()


async def _clear_the_way(database: Database, person: Principal | None, *, reset: bool) -> None:
    """A confirmed factor is what enrolling asks for; a code beside it would open nothing."""
    if person is None:
        return
    factors = SqlFactorStore(database)
    if reset:
        event = Event(
            EventType.MFA_RESET,
            SYSTEM,
            Outcome.SUCCESS,
            subject={"principal": person.id},
            detail=_operator(),
        )
        await factors.reset_factors(person.id, event)
    elif await factors.confirmed_factors(person.id):
        raise StartupError(
            f"recover: {person.handle} has a second factor; add --reset-factors to drop it"
        )


async def create_enrolment_code(settings: Settings, *, provider: str, email: str) -> str:
    """A code for a person who may not have signed in yet, as text to hand over."""
    database = Database.open(settings.database.url.get_secret_value())
    try:
        code, _ = await _create(database, principal_id=None, provider=provider, email=email)
    finally:
        await database.aclose()
    return code


async def _create(
    database: Database, *, principal_id: str | None, provider: str | None, email: str | None
) -> tuple[str, datetime]:
    text, code_hash = new_enrolment_code()
    subject = (
        {"principal": principal_id} if principal_id else {"provider": provider, "email": email}
    )
    event = Event(
        EventType.ENROLMENT_CODE_CREATED,
        SYSTEM,
        Outcome.SUCCESS,
        subject=subject,
        detail=_operator(),
    )
    expires_at = await SqlFactorStore(database).create_enrolment_code(
        code_hash,
        principal_id=principal_id,
        provider=provider,
        email=email,
        created_by=SYSTEM.id,
        event=event,
    )
    return text, expires_at


def _operator() -> dict[str, object]:
    """Who ran the command, as far as the operating system says."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"  # a container may run under a uid without a name
    return {"by": "broker recover", "os_user": clean_text(name)}
