"""The whole broker with both keys in KMS: what it issues, and what it does without KMS."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.adapters.key_place import KmsReference
from broker.adapters.store.engine import Database
from broker.audit.checkpoint import follow, opened
from broker.audit.delegate import certified
from broker.audit.note import VerifierKey
from broker.audit.receipt import Receipt
from broker.devstack.aws import Fault
from broker.errors import StartupError
from broker.issuance.trust_judgement import Level
from broker.server_cli import configuration, main
from broker.server_cli.checks.kms import kms_checks
from broker.settings import load
from tests.kms.conftest import Kms, allow
from tests.web.conftest import Running, running
from tests.web.journeys import POLICY, LoggedIn, bearer, logged_in_admin, logged_in_person
from tests.web.people import ADA, Browser, authorization


@pytest.fixture(autouse=True)
def no_logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process: they must not set up its logging for ever."""
    monkeypatch.setattr(configuration, "configure_logging", lambda _level: None)


@pytest.fixture
def references(kms: Kms) -> tuple[KmsReference, KmsReference]:
    """Sealing and signing."""
    return kms.sealing(), kms.signing()


@pytest.fixture
def config(references: tuple[KmsReference, KmsReference], sqlite_url: str, tmp_path: Path) -> Path:
    sealing, signing = references
    path = tmp_path / "broker.toml"
    path.write_text(
        f"""
[server]
public_url = "https://broker.test"
[database]
url = "{sqlite_url}"
[[oidc]]
name = "corp"
issuer = "https://idp.test"
client_id = "broker"
[mfa]
enrolment = "open"
[keys]
sealing = "{sealing}"
signing = "{signing}"
[audit]
checkpoint_seconds = 0.1
[bootstrap]
admins = [{{issuer = "https://idp.test", subject = "root"}}]
"""
    )
    return path


def rewrite(config: Path, text: str) -> None:
    config.write_text(text)


async def command(*words: str) -> int:
    return await asyncio.to_thread(main, words)


async def person_with_a_role(broker: Running) -> LoggedIn:
    admin = await logged_in_admin(broker)
    headers = {**bearer(admin), "if-none-match": "*"}
    applied = await admin.api.put("/v1/access", content=POLICY, headers=headers)
    assert applied.status_code == 200, applied.text
    return await logged_in_person(broker, ADA)


async def sign_in_again(broker: Running, browser: Browser) -> None:
    """With the second factor that is enrolled already."""
    again = replace(browser, client=broker.client())
    page = await again.sign_in(broker.provider.register(ADA))
    shown = await again.submit(page, "/mfa", {"code": again.code()})
    assert shown.status_code == 303, shown.text
    assert (await again.get("/oauth/authorize", params=authorization())).status_code == 200


async def receipt_of(ada: LoggedIn) -> Receipt:
    asked = {"role": "data-reader", "parameters": {"bucket": "reports"}}
    answer = await ada.api.post("/v1/credentials", json=asked, headers=bearer(ada))
    assert answer.status_code == 200, answer.text
    return Receipt.parse(answer.json()["receipt"])


async def keys_of(client: httpx.AsyncClient) -> dict[str, Any]:
    body = (await client.get("/v1/audit/keys")).json()
    assert isinstance(body, dict)
    return body


def trusted(body: dict[str, Any]) -> list[VerifierKey]:
    first = [VerifierKey.parse(body["keys"][0])]
    return follow(body["origin"], first, body["successions"])


async def ready(client: httpx.AsyncClient, says: str) -> None:
    async with asyncio.timeout(60):
        while says not in (await client.get("/readyz")).text:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def signed_up_to(client: httpx.AsyncClient, seq: int) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await client.get("/v1/audit/checkpoint")
            if answer.status_code == 200:
                keys = trusted(await keys_of(client))
                if opened(answer.text, keys).size >= seq:
                    return
            await asyncio.sleep(0.05)


async def test_receipts_are_signed_by_a_certified_delegate_and_checkpoints_by_kms(
    kms: Kms, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command("migrate", "--config", str(config)) == 0
    told = capsys.readouterr().out
    assert await command("migrate", "--config", str(config)) == 0
    assert "verifier key" not in capsys.readouterr().out  # once
    async with running(load(config)) as broker:
        ada = await person_with_a_role(broker)
        receipt = await receipt_of(ada)
        stranger = broker.client()
        published = await keys_of(stranger)
        assert published["keys"][-1] in told
        keys = trusted(published)
        receipt.verify(keys, at=datetime.now(UTC))
        (delegate,) = published["delegates"]
        assert receipt.certificate == delegate
        assert certified(delegate, keys).origin == "broker.test"
        await signed_up_to(stranger, receipt.seq)
        # Another process has a delegate of its own, and opens what this one sealed.
        async with running(load(config)) as other:
            (another,) = (await keys_of(other.client()))["delegates"]
            assert another != delegate
            certified(another, keys)


async def test_while_kms_is_out_issuing_goes_on_checkpoints_wait_and_nothing_starts(
    kms: Kms, config: Path
) -> None:
    assert await command("migrate", "--config", str(config)) == 0
    async with running(load(config)) as broker:
        ada = await person_with_a_role(broker)
        stranger = broker.client()
        await ready(stranger, '"ok"')
        kms.aws.faults.add(Fault.DROP_BEFORE, action="kms:Sign", times=None)
        receipt = await receipt_of(ada)
        await ready(stranger, "signing of checkpoints")
        last = await receipt_of(ada)
        assert last.certificate == receipt.certificate
        with pytest.raises(StartupError, match="certified no delegate"):
            async with running(load(config)):
                pass
        kms.aws.faults.clear()
        await signed_up_to(stranger, last.seq)
        await ready(stranger, '"ok"')
        records = [json.loads(one.record) async for one in broker.app.state.parts.audit.export()]
        # One head waited for its signature, however often it was tried.
        between = [
            one
            for one in records
            if one["type"] == "audit.checkpoint" and receipt.seq < one["seq"] < last.seq
        ]
        assert len(between) <= 1
    kms.aws.faults.add(Fault.DROP_BEFORE, action="kms:Decrypt", times=None)
    with pytest.raises(StartupError, match="sealing keys can't be used"):
        async with running(load(config)):
            pass


async def test_the_keys_move_from_files_to_kms_and_on(
    kms: Kms,
    config: Path,
    references: tuple[KmsReference, KmsReference],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """People stay enrolled, and who pinned the first key follows to the last."""
    sealing, signing = references
    in_kms = config.read_text()  # noqa: ASYNC240 - a test's own small file
    in_files = in_kms.replace(str(sealing), f"file:{tmp_path}/sealing")
    rewrite(config, in_files.replace(str(signing), f"file:{tmp_path}/signing"))
    assert await command("migrate", "--config", str(config)) == 0
    async with running(load(config)) as broker:
        ada = await person_with_a_role(broker)
        pinned = trusted(await keys_of(broker.client()))

    rotate = ("keys", "rotate", "--config", str(config))
    assert await command(*rotate, "--to", str(sealing)) == 0
    assert await command(*rotate, "--signing", "--to", str(signing)) == 0
    assert f'set [keys] signing = "{signing}"' in capsys.readouterr().out
    with pytest.raises(StartupError, match="moved to KMS"):
        async with running(load(config)):
            pass
    rewrite(config, in_kms)
    (tmp_path / "sealing").unlink()
    (tmp_path / "signing").unlink()

    another = kms.signing()
    assert await command(*rotate, "--signing", "--to", str(another)) == 0
    assert await command(*rotate) == 0
    rewrite(config, in_kms.replace(str(signing), str(another)))
    async with running(load(config)) as broker:
        body = await keys_of(broker.client())
        newest = follow(body["origin"], pinned, body["successions"])
        assert [str(key) for key in newest] == body["keys"]
        assert len(newest) == 3
        # Enrolled when the keys were in a file, and still so.
        await sign_in_again(broker, ada.browser)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("keys", "rotate", "--signing"), "--to awskms:ARN"),
        (("keys", "rotate", "--signing", "--to", "file:x"), "ARN of a key"),
        (("keys", "init", "--signing", "--to", "awskms:x"), "--to is for `broker keys rotate`"),
        (("keys", "init"), "has sealing keys of KMS already"),
        (("keys", "init", "--signing"), "has a key already"),
    ],
)
async def test_wrong_commands_change_nothing_and_say_what_to_do(
    kms: Kms,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    assert await command("migrate", "--config", str(config)) == 0
    assert await command(*words, "--config", str(config)) == 1
    assert says in capsys.readouterr().err


async def test_migrate_without_rights_names_what_is_missing(
    kms: Kms, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kms.grant(allow("GetPublicKey"))
    assert await command("migrate", "--config", str(config)) == 1
    assert "kms:GenerateDataKey" in capsys.readouterr().err


async def test_doctor_opens_both_keys_and_says_what_is_wrong_with_one(
    kms: Kms, config: Path, references: tuple[KmsReference, KmsReference]
) -> None:
    settings = load(config)
    assert await command("migrate", "--config", str(config)) == 0
    database = Database.open(settings.database.url.get_secret_value())
    assert [check.level for check in await kms_checks(settings, database)] == [Level.OK, Level.OK]
    kms.grant(allow("Decrypt", on=references[0]))
    sealing, signing = await kms_checks(settings, database)
    assert (sealing.level, signing.level) == (Level.OK, Level.FAIL)
    assert "kms:GetPublicKey" in signing.message
    await database.aclose()
