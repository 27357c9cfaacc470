"""The whole broker with a witness: what it serves, what it says, and when it does not start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from broker.adapters.signing import SigningKeys
from broker.app import create_app
from broker.audit.cosignature import cosigned_by
from broker.audit.note import BadNote
from broker.errors import StartupError
from broker.settings import Settings
from tests.web.conftest import running
from tests.web.journeys import logged_in_person
from tests.web.people import ADA, Person
from tests.web.standins import StandInSts
from tests.web.test_audit_proof import dumped
from tests.witness.strict import Answer, StrictWitness, serving


@pytest.fixture
def witness(settings: Settings) -> Iterator[tuple[StrictWitness, str]]:
    made = StrictWitness(SigningKeys.load(settings.keys.signing_path).signer.key)
    with serving(made) as url:
        yield made, url


@pytest.fixture
def witnessed(settings: Settings, witness: tuple[StrictWitness, str]) -> Settings:
    """Signs at once, and has it cosigned."""
    made, url = witness
    audit = {
        "allow_unsafe_durability": True,
        "checkpoint_seconds": 0.1,
        "witnesses": [{"url": url, "key": str(made.signer.key)}],
    }
    everything = settings.model_dump() | {"audit": audit}
    everything["database"] = {"url": settings.database.url.get_secret_value()}
    return Settings(**everything)


async def cosigned(client: httpx.AsyncClient, witness: StrictWitness, at_least: int = 1) -> int:
    """The size of the first checkpoint served that the witness has cosigned."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.get("/v1/audit/checkpoint")
            try:
                cosigned_by(answer.text, witness.signer.key)
            except BadNote:
                pass
            else:
                size = int(answer.text.split("\n")[1])
                if size >= at_least:
                    return size
            await asyncio.sleep(0.05)


async def says(client: httpx.AsyncClient, words: str) -> None:
    async with asyncio.timeout(60):
        while words not in (await client.get("/readyz")).text:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def test_cosigned_checkpoints_are_served_and_a_failing_witness_shows(
    witnessed: Settings, witness: tuple[StrictWitness, str]
) -> None:
    made, _ = witness
    async with running(witnessed) as broker:
        stranger = broker.client()
        await logged_in_person(broker, ADA)
        size = await cosigned(stranger, made)
        await says(stranger, '"ok"')
        made.twist = lambda _: Answer(503)
        await logged_in_person(broker, Person("bob"))
        await says(stranger, "checkpoint copy (witness)")
        made.twist = None
        await cosigned(stranger, made, size + 1)
        await says(stranger, '"ok"')


async def test_a_database_older_than_what_the_witness_saw_is_refused_until_accepted(
    witnessed: Settings, witness: tuple[StrictWitness, str]
) -> None:
    made, url = witness
    database = Path(witnessed.database.url.get_secret_value().partition("///")[2])
    async with running(witnessed) as broker:
        await logged_in_person(broker, ADA)
    put_back = dumped(database)
    async with running(witnessed) as broker:
        await logged_in_person(broker, Person("bob"))
    put_back()
    seen = made.latest["broker.test"].size
    with pytest.raises(StartupError, match="--accept-rollback") as refused:
        async with running(witnessed):
            pass
    assert f"witness:{url}: broker.test {seen}" in str(refused.value)
    app = create_app(witnessed, providers={}, sts=StandInSts(), accept_rollback=True)
    async with app.router.lifespan_context(app):
        pass
    # It still disagrees, which shows, and is not asked about again.
    async with running(witnessed) as broker:
        await logged_in_person(broker, Person("carol"))
        await says(broker.client(), "checkpoint copy (witness)")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://witness.example.com", None),
        ("https://witness.example.com", "x"),
        ("https://witness.example.com", "broker.test+1b2c3d4e+AQ"),
    ],
)
def test_what_is_no_witness_is_refused(
    witness: tuple[StrictWitness, str], url: str, key: str | None
) -> None:
    one = {"url": url, "key": key or str(witness[0].signer.key)}
    with pytest.raises(ValueError, match="witnesses"):
        Settings(audit={"witnesses": [one]})  # type: ignore[arg-type]  # as TOML would have it
