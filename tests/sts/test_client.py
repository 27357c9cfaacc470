"""The broker's own identity and credentials: learnt, renewed, and refused where it is root."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import ssl
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.adapters.sts import StsClient, StsConfig, partition
from broker.adapters.sts.connection import Timeouts
from broker.adapters.sts.endpoint import resolve
from broker.errors import AwsUnavailable, StartupError
from broker.issuance.sts import StsFailure
from tests.sts.conftest import set_base
from tests.sts.misbehaving import BASE_ROLE, BASE_USER, Misbehaving, a_call, good, refuses, replies

ROOT = "arn:aws:iam::999988887777:root"


async def test_who_the_broker_is_is_asked_at_the_start(server, client, caplog):
    caplog.set_level(logging.INFO, logger="broker")
    await client.start()
    assert len(server.identified) == 1
    assert BASE_ROLE in caplog.text
    identity = await client.identify("aws")
    assert (identity.account, identity.arn) == ("999988887777", BASE_ROLE)


async def test_the_root_user_stops_the_start(server, client):
    server.identity = ROOT
    with pytest.raises(StartupError, match="root user of account 999988887777"):
        await client.start()


async def test_a_root_user_found_later_is_given_nothing(server, client, caplog):
    server.identity = ROOT
    server.identity_script = [replies("", 503)] * 3
    await client.start()
    assert "asked for again before the first issuance" in caplog.text
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call())
    assert "root user" in caught.value.error.detail
    assert caught.value.alarm
    assert server.assumed == []


async def test_an_sts_that_is_back_is_asked_who_one_is_before_the_first_issuance(server, client):
    server.identity_script = [replies("", 503)] * 3
    await client.start()
    await asyncio.gather(*(client.assume_role(a_call()) for _ in range(5)))
    assert len(server.identified) == 4, "one question served all five"
    assert len(server.assumed) == 5


async def test_not_knowing_who_one_is_gives_nothing_and_minted_nothing(server, client):
    server.identity_script = [replies("garbage")] * 2
    await client.start()
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call())
    assert caught.value.alarm
    assert not caught.value.outcome_unknown
    assert server.assumed == []


async def test_long_term_keys_are_warned_of(server, client, monkeypatch, caplog):
    set_base(monkeypatch, "AKIABASE000000000001", None)
    server.identity = BASE_USER
    await client.start()
    assert "long-term keys" in caplog.text
    assert not client.chained("aws")


async def test_a_role_session_is_chained(client, caplog):
    assert client.chained("aws"), "the lower cap while nothing is known"
    await client.start()
    assert client.chained("aws")
    assert "long-term keys" not in caplog.text


@pytest.mark.parametrize("chained", [True, False])
async def test_the_setting_overrides_what_is_detected(server, chained):
    client = StsClient((StsConfig("aws", "us-east-1", server.url, chained=chained),))
    await client.start()
    assert client.chained("aws") is chained
    await client.aclose()


async def test_expired_base_credentials_are_resolved_anew_once(server, started, monkeypatch):
    set_base(monkeypatch, "ASIABASE000000000002", "newer")
    server.script = [refuses("ExpiredToken", "expired", 403)]
    await started.assume_role(a_call())
    assert [r.access_key_id for r in server.assumed] == [
        "ASIABASE000000000001",
        "ASIABASE000000000002",
    ]
    assert server.identified[-1].access_key_id == "ASIABASE000000000002"


async def test_newer_base_credentials_that_are_roots_are_given_nothing(
    server, started, monkeypatch
):
    server.identity = ROOT
    server.script = [refuses("InvalidClientTokenId", "unknown", 403)]
    with pytest.raises(StsFailure, match="aws_unavailable"):
        await started.assume_role(a_call())
    assert len(server.assumed) == 1


async def test_base_credentials_that_stay_expired_are_not_resolved_for_ever(server, started):
    server.script = [refuses("ExpiredToken", "expired", 403)] * 99
    for _ in range(3):
        with pytest.raises(StsFailure) as caught:
            await started.assume_role(a_call())
        assert isinstance(caught.value.error, AwsUnavailable)
    assert len(server.assumed) == 4, "two for the first, then one each"


async def test_many_that_see_the_expiry_at_once_are_all_served(server, started, monkeypatch):
    set_base(monkeypatch, "ASIABASE000000000002", "newer")

    async def refuse_the_old(request, writer):
        old = request.access_key_id == "ASIABASE000000000001"
        await (refuses("ExpiredToken", "expired", 403) if old else good)(request, writer)

    server.script = [refuse_the_old] * 99
    await asyncio.gather(*(started.assume_role(a_call()) for _ in range(8)))


async def test_no_base_credentials_is_told_and_minted_nothing(server, client, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    await client.start()
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call())
    assert "no AWS credentials of its own" in caught.value.error.detail
    assert not caught.value.outcome_unknown
    assert server.assumed == server.identified == []


async def test_refreshable_base_credentials_are_refreshed_when_due(
    server, client, monkeypatch, tmp_path
):
    """Through a real credential_process that counts: under ten minutes left, it is run again."""
    counter, script = tmp_path / "count", tmp_path / "process.py"
    script.write_text(
        "import datetime, json, pathlib\n"
        f"count = pathlib.Path({str(counter)!r})\n"
        "n = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(n))\n"
        "left = 300 if n == 1 else 3600\n"
        "end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=left)\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'ASIAPROCESS{n:09}',\n"
        "    'SecretAccessKey': 's', 'SessionToken': 't', 'Expiration': end.isoformat()}))\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    await client.start()
    for _ in range(3):
        await client.assume_role(a_call())
    used = {request.access_key_id for request in server.assumed}
    assert used == {"ASIAPROCESS000000002"}
    assert counter.read_text() == "2", "kept while it is good"


async def test_a_failing_credential_process_is_told(client, monkeypatch, tmp_path, caplog):
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    await client.start()
    assert "CredentialRetrievalError" in caplog.text
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call())
    assert isinstance(caught.value.error, AwsUnavailable)


async def test_the_calls_region_is_the_signatures(server, started):
    await started.assume_role(a_call(region="eu-west-1"))
    await started.assume_role(a_call(region=""))
    scopes = [r.headers["authorization"].split("/")[2] for r in server.assumed]
    assert scopes == ["eu-west-1", "us-east-1"]


async def test_a_burst_in_a_new_region_looks_for_its_endpoint_once(started, monkeypatch):
    looked = []

    def counting(config, region):
        looked.append(region)
        return resolve(config, region)

    monkeypatch.setattr(partition, "resolve", counting)
    await asyncio.gather(*(started.assume_role(a_call(region="eu-west-1")) for _ in range(8)))
    assert looked == ["eu-west-1"]


async def test_a_region_of_another_partition_is_told(server, started):
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call(region="cn-north-1"))
    assert "region" in caught.value.error.detail
    assert server.assumed == []


async def test_a_partition_without_settings_is_told(started):
    assert started.chained("aws-cn")
    with pytest.raises(StsFailure) as caught:
        await started.assume_role(a_call(partition="aws-cn"))
    assert "[[aws]]" in caught.value.error.detail


def test_two_settings_of_one_partition_are_refused():
    with pytest.raises(StartupError, match="one partition"):
        StsClient((StsConfig("aws", "us-east-1"), StsConfig("aws", "eu-west-1")))


def certificate(tmp_path) -> tuple[str, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that no authority signed, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    moment = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(moment - timedelta(hours=1))
        .not_valid_after(moment + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "cert.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = tmp_path / "key.pem"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return str(pem), context


async def test_tls_trusts_the_bundle_that_aws_tools_trust_and_nobody_unknown(
    monkeypatch, tmp_path, caplog
):
    pem, context = certificate(tmp_path)
    server = Misbehaving()
    await server.start(context)
    config = StsConfig("aws", "us-east-1", server.url)

    stranger = StsClient((config,), timeouts=Timeouts(1.0, 1.0))
    await stranger.start()
    assert "certificate" in caplog.text.lower()
    with pytest.raises(StsFailure) as caught:
        await stranger.assume_role(a_call())
    assert "AWS_CA_BUNDLE" in caught.value.error.detail
    assert server.identified == []
    await stranger.aclose()

    monkeypatch.setenv("AWS_CA_BUNDLE", pem)
    trusting = StsClient((config,))
    await trusting.start()
    await trusting.assume_role(a_call())
    assert len(server.assumed) == 1
    await trusting.aclose()
    await server.stop()


async def test_a_ca_bundle_that_is_not_there_stops_the_start(server, client, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", json.dumps("nowhere"))
    with pytest.raises(StartupError, match="AWS_CA_BUNDLE"):
        await client.start()
