"""The log's public side: signed heads, keys, proofs and tiles, checked as a stranger would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.adapters.signing import SigningKeys
from broker.app import create_app
from broker.audit.chain import leaf_hash
from broker.audit.checkpoint import Checkpoint, opened
from broker.audit.merkle import NO_LEAVES, verify_consistency, verify_inclusion
from broker.audit.note import VerifierKey
from broker.audit.receipt import Receipt, hashes
from broker.audit.tiles import unbundle
from broker.errors import StartupError
from broker.settings import Settings
from tests.web.conftest import Running, running
from tests.web.journeys import POLICY, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, Person
from tests.web.standins import StandInSts


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Signs at once."""
    audit = settings.audit.model_copy(update={"checkpoint_seconds": 0.1})
    return settings.model_copy(update={"audit": audit})


async def trusted(stranger: httpx.AsyncClient) -> list[VerifierKey]:
    body = (await stranger.get("/v1/audit/keys")).json()
    assert body["origin"] == "broker.test"
    return [VerifierKey.parse(vkey) for vkey in body["keys"]]


async def newest(stranger: httpx.AsyncClient, at_least: int = 1) -> Checkpoint:
    """The first checkpoint that covers so many records."""
    async with asyncio.timeout(30):
        while True:
            answer = await stranger.get("/v1/audit/checkpoint")
            if answer.status_code == 200:
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                checkpoint = opened(answer.text, await trusted(stranger))
                if checkpoint.size >= at_least:
                    return checkpoint
            await asyncio.sleep(0.02)


async def proof(stranger: httpx.AsyncClient, kind: str, **query: int) -> Any:
    answer = await stranger.get(f"/v1/audit/proof/{kind}", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    return answer.json()


async def test_a_stranger_follows_the_log_by_what_is_public(broker: Running) -> None:
    stranger = broker.client()
    nothing = await stranger.get("/v1/audit/checkpoint")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    await logged_in_person(broker, ADA)
    first = await newest(stranger)
    await logged_in_admin(broker)
    second = await newest(stranger, first.size + 1)
    body = await proof(stranger, "consistency", **{"from": first.size, "to": second.size})
    sizes_and_roots = (first.size, second.size, first.root, second.root)
    verify_consistency(*sizes_and_roots, hashes(body["hashes"]))

    width = second.size
    tile = await stranger.get(f"/v1/audit/tile/0/000.p/{width}")
    assert tile.headers["content-type"] == "application/octet-stream"
    assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
    leaves = [tile.content[at : at + 32] for at in range(0, len(tile.content), 32)]
    assert NO_LEAVES.extend(leaves).after.root == second.root
    for seq in (1, width):
        body = await proof(stranger, "inclusion", seq=seq, size=width)
        leaf = bytes.fromhex(body["leaf"])
        assert leaf == leaves[seq - 1]
        verify_inclusion(leaf, seq - 1, width, hashes(body["hashes"]), second.root)


async def test_entry_bundles_are_for_auditors_and_hash_to_the_tiles(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    ada = await logged_in_person(broker, ADA)
    stranger = broker.client()
    size = (await newest(stranger, 4)).size
    path = f"/v1/audit/tile/entries/000.p/{size}"
    assert (await stranger.get(path)).status_code == 401
    assert (await ada.api.get(path, headers=bearer(ada))).status_code == 403
    answer = await admin.api.get(path, headers=bearer(admin))
    assert answer.headers["cache-control"].startswith("private")
    tile = (await stranger.get(f"/v1/audit/tile/0/000.p/{size}")).content
    assert b"".join(leaf_hash(one) for one in unbundle(answer.content)) == tile


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/audit/tile/0/009", 404),
        ("/v1/audit/tile/0/000", 404),
        ("/v1/audit/tile/0/0", 404),
        ("/v1/audit/tile/9999/000", 404),
        ("/v1/audit/tile/../records", 401),
        ("/v1/audit/tile/%2e%2e/records", 404),
        ("/v1/audit/tile/entries%2f000.p/1", 404),
        ("/v1/audit/proof/inclusion?seq=1&size=999", 404),
        ("/v1/audit/proof/inclusion?seq=0&size=1", 422),
        ("/v1/audit/proof/inclusion?seq=2&size=1", 404),
        ("/v1/audit/proof/inclusion?seq=1", 422),
        ("/v1/audit/proof/inclusion?seq=a&size=1", 422),
        ("/v1/audit/proof/inclusion?seq=1&size=99999999999999999999", 422),
        ("/v1/audit/proof/consistency?from=2&to=1", 404),
        ("/v1/audit/proof/consistency?from=-1&to=1", 422),
        ("/v1/audit/proof/consistency?from=1&to=999", 404),
    ],
)
async def test_what_is_not_there_is_refused(broker: Running, path: str, status: int) -> None:
    await logged_in_person(broker, ADA)
    answer = await broker.client().get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "immutable" not in answer.headers["cache-control"]


async def test_an_idle_log_stays_idle(broker: Running) -> None:
    admin = await logged_in_admin(broker)
    checkpoint = await newest(broker.client(), 3)
    # Five more looks of the publisher, and nothing more to sign.
    await asyncio.sleep(0.3)
    page = (await admin.api.get("/v1/audit/records", headers=bearer(admin))).json()["records"]
    signed = [one for one in page if one["type"] == "audit.checkpoint"]
    assert page[-1] == signed[-1]
    assert len(page) == (await newest(broker.client())).size
    assert checkpoint.size <= len(page)


async def test_credentials_come_with_a_receipt_that_the_log_goes_on_to_contain(
    broker: Running,
) -> None:
    admin = await logged_in_admin(broker)
    applied = await admin.api.put(
        "/v1/access", content=POLICY, headers={**bearer(admin), "if-none-match": "*"}
    )
    assert applied.status_code == 200
    ada = await logged_in_person(broker, ADA)
    answer = await ada.api.post(
        "/v1/credentials",
        json={"role": "data-reader", "parameters": {"bucket": "reports"}},
        headers=bearer(ada),
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    receipt = Receipt.parse(body["receipt"])
    stranger = broker.client()
    checkpoint = receipt.verify(await trusted(stranger))
    subject = receipt.members()["subject"]
    assert isinstance(subject, dict)
    assert subject["issuance"] == body["issuance_id"]
    assert body["credentials"]["secret_access_key"] not in receipt.record.decode()
    later = await newest(stranger, checkpoint.size + 1)
    path = await proof(stranger, "consistency", **{"from": checkpoint.size, "to": later.size})
    sizes_and_roots = (checkpoint.size, later.size, checkpoint.root, later.root)
    verify_consistency(*sizes_and_roots, hashes(path["hashes"]))


async def test_without_its_signing_key_the_broker_does_not_start(settings: Settings) -> None:
    settings.keys.signing_path.unlink()
    with pytest.raises(StartupError, match="broker migrate"):
        async with running(settings):
            pass


async def test_another_key_in_the_place_of_the_logs_is_noticed(settings: Settings) -> None:
    async with running(settings) as broker:
        await logged_in_person(broker, ADA)
        await newest(broker.client())
    settings.keys.signing_path.unlink()
    SigningKeys.create(settings.keys.signing_path, "broker.test")
    with pytest.raises(StartupError, match="not of this log's keys"):
        async with running(settings):
            pass


async def test_after_a_rotation_old_checkpoints_verify_and_new_ones_are_of_the_new_key(
    settings: Settings,
) -> None:
    async with running(settings) as broker:
        await logged_in_person(broker, ADA)
        old_keys = await trusted(broker.client())
        await newest(broker.client())
    old = settings.keys.signing_path
    SigningKeys.rotate(old)
    async with running(settings) as broker:
        stranger = broker.client()
        kept = await newest(stranger)
        assert (await trusted(stranger))[:1] == old_keys
        await logged_in_person(broker, Person("bob"))
        await newest(stranger, kept.size + 2)
        note = (await stranger.get("/v1/audit/checkpoint")).text
        assert opened(note, (await trusted(stranger))[1:]).size > kept.size


def dumped(database: Path) -> Callable[[], None]:
    """What puts the database back as it is now."""
    dump = database.read_bytes()

    def put_back() -> None:
        for leftover in database.parent.glob(f"{database.name}-*"):
            leftover.unlink()
        database.write_bytes(dump)

    return put_back


async def test_a_broker_on_an_older_database_does_not_start_unless_the_loss_is_accepted(
    settings: Settings, tmp_path: Path
) -> None:
    audit = settings.audit.model_copy(update={"checkpoint_copies": (f"file:{tmp_path}/copy",)})
    settings = settings.model_copy(update={"audit": audit})
    database = Path(settings.database.url.get_secret_value().partition("///")[2])
    async with running(settings) as broker:
        await logged_in_person(broker, ADA)
    put_back = dumped(database)
    async with running(settings) as broker:
        await logged_in_person(broker, Person("bob"))
    put_back()
    with pytest.raises(StartupError, match="--accept-rollback"):
        async with running(settings):
            pass
    app = create_app(settings, providers={}, sts=StandInSts(), accept_rollback=True)
    async with app.router.lifespan_context(app):
        assert (await app.state.parts.checkpoints.latest()) == (tmp_path / "copy").read_text()
    async with running(settings) as broker:
        await logged_in_person(broker, Person("carol"))
