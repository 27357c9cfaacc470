"""`broker doctor` as a process: each wrong thing is one clear finding with its cure, and exit 1."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from joserfc.jwk import ECKey

from broker.adapters.store.engine import Database
from broker.devstack.aws import Fault
from tests.e2e.processes import free_port
from tests.server_cli.conftest import POLICY, Host, serving, with_runner


def without_roles(host: Host) -> None:
    """A policy without roles: what is tested here is not about them."""
    host.apply("version: 1\nadmins: [{group: corp/platform}]\n")


def test_wrong_settings_are_all_there_is(host: Host) -> None:
    host.settings["server"]["trusted_proxy"] = "10.0.0.1"
    host.settings["database"]["url"] = "mysql://canary-password@db/broker"
    report = host.doctor()
    assert report.code == 1
    assert [check["check"] for check in report.checks] == ["settings", "settings"]
    messages = [check["detail"] for check in report.checks]
    assert any("server.trusted_proxy: is no setting" in message for message in messages)
    assert any("database.url: write sqlite" in message for message in messages)
    assert all("settings file" in check["cure"] for check in report.checks)
    assert "canary-password" not in report.out + report.err


def test_what_the_host_gets_wrong(host: Host) -> None:
    without_roles(host)
    keys = host.folder / "keys"
    (keys / "sealing").chmod(0o644)
    (keys / "signing").unlink()
    (host.folder / "broker.db").chmod(0o640)
    host.settings["server"] = {"public_url": "https://broker.example.com"}
    host.settings["mfa"] = {"enrolment": "open"}
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("warning", "trusted proxies"),
        ("failed", "sealing keys"),
        ("failed", "signing keys"),
        ("warning", "enrolment"),
        ("warning", "database file"),
    ]
    assert report.of("sealing keys")["cure"] == f"chmod 600 {keys}/sealing"
    assert "mode 0644" in report.of("sealing keys")["detail"]
    assert "No such file" in report.of("signing keys")["detail"]
    assert "restore it from your backup" in report.of("signing keys")["cure"]
    assert "broker enrol-code" in report.of("enrolment")["cure"]


def test_damaged_keys_and_nobody_to_administer(host: Host) -> None:
    (host.folder / "keys" / "sealing").write_text("canary-not-a-key")
    (host.folder / "keys").chmod(0o777)
    host.settings["server"] = {"public_url": "http://127.0.0.1:8080"}
    host.settings["oidc"] = []
    file = host.folder / "access.yaml"
    file.write_text("version: 1\n")
    report = host.doctor("--policy", str(file))
    assert report.code == 1
    assert report.wrong() == [
        ("warning", "public url"),
        ("failed", "sealing keys"),
        ("warning", "signing keys"),
        ("failed", "providers"),
        ("failed", "admins"),
    ]
    assert "damaged" in report.of("sealing keys")["detail"]
    assert "canary" not in report.out
    assert "[bootstrap] admins" in report.of("admins")["cure"]


def test_a_database_that_is_not_there(host: Host) -> None:
    missing = host.folder / "other.db"
    host.settings["database"]["url"] = f"sqlite+aiosqlite:///{missing}"
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [("failed", "database")]
    assert "no database file" in report.of("database")["detail"]
    assert "broker migrate" in report.of("database")["cure"]
    assert not missing.exists()  # a doctor makes nothing


def test_a_database_without_tables(host: Host) -> None:
    empty = host.folder / "empty.db"
    empty.touch(0o600)
    host.settings["database"]["url"] = f"sqlite+aiosqlite:///{empty}"
    report = host.doctor()
    assert report.wrong() == [("failed", "database schema")]
    assert report.of("database schema")["cure"] == "run `broker migrate`"


def test_a_database_that_does_not_answer(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        port = silent.getsockname()[1]
        url = f"postgresql+asyncpg://broker:canary-password@127.0.0.1:{port}/broker"
        host.settings["database"]["url"] = url
        started = time.monotonic()
        report = host.doctor()
    assert time.monotonic() - started < 60
    assert report.wrong() == [("failed", "database")]
    assert "canary-password" not in report.out + report.err


def test_postgresql(host: Host, postgresql_url: str) -> None:
    """A standby; and nothing is applied yet, which is how every broker begins: a warning."""
    host.settings["database"]["url"] = postgresql_url
    with_runner(_read_only(postgresql_url))
    report = host.doctor()
    assert report.code == 1
    # The tests' server gives up durability for speed, and its superuser may do anything.
    assert [found for found in report.wrong() if found[1] != "database durability"] == [
        ("failed", "database"),
        ("warning", "access policy"),
    ]
    durability = [one for one in report.checks if one["check"] == "database durability"]
    assert any("fsync=off" in one["detail"] for one in durability if one["status"] == "failed")
    assert any("--app-role" in one["cure"] for one in durability if one["status"] == "warning")
    assert "read alone" in report.of("database")["detail"]
    assert "within a minute" in report.of("database clock")["detail"]
    assert "broker access apply" in report.of("access policy")["cure"]


async def _read_only(url: str) -> None:
    database = Database.open(url)
    try:
        async with database.engine.connect() as conn:
            autocommit = await conn.execution_options(isolation_level="AUTOCOMMIT")
            name = database.url.database
            await autocommit.exec_driver_sql(
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
            )
    finally:
        await database.aclose()


def test_providers_that_misbehave(host: Host) -> None:
    without_roles(host)
    issuer = host.provider.issuer
    base = host.settings["oidc"][0]
    names = ["absent", "html", "moved", "mismatch", "keyless", "nokeys", "foreign", "nosecret"]
    host.settings["oidc"] = [
        base,
        *({**base, "name": name, "issuer": f"{issuer}/{name}"} for name in names),
    ]
    host.settings["oidc"][1]["issuer"] = f"http://127.0.0.1:{free_port()}"
    host.settings["oidc"][-1]["client_secret"] = "canary-client-secret"

    def published(name: str, status: int = 200, **members: object) -> None:
        url = f"{issuer}/{name}"
        document = host.provider.document(url, **members)
        host.provider.replaced[f"/{name}/.well-known/openid-configuration"] = (status, document)

    host.provider.replaced["/html/.well-known/openid-configuration"] = (200, b"<html>Hello")
    published("moved", 503)
    published("mismatch", issuer="https://other.example.com")
    published("keyless", jwks_uri=f"{issuer}/nowhere")
    published("nokeys", jwks_uri=f"{issuer}/empty")
    host.provider.replaced["/empty"] = (200, b'{"keys": []}')
    published("foreign", jwks_uri=f"{issuer}/ec", id_token_signing_alg_values_supported=["ES384"])
    host.provider.publish("/ec", ECKey.generate_key("P-384", {"use": "sig"}))
    published("nosecret", token_endpoint_auth_methods_supported=["private_key_jwt"])

    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "provider absent"),
        ("failed", "provider html"),
        ("failed", "provider moved"),
        ("failed", "provider mismatch"),
        ("failed", "provider keyless keys"),
        ("failed", "provider nokeys keys"),
        ("failed", "provider foreign keys"),
        ("failed", "provider nosecret"),
    ]
    said = {check["check"]: check["detail"] for check in report.checks}
    assert "no connection" in said["provider absent"]
    assert "bad JSON" in said["provider html"]
    assert "answered 503" in said["provider moved"]
    assert "another issuer" in said["provider mismatch"]
    assert "answered 404" in said["provider keyless keys"]
    assert "no usable key" in said["provider nokeys keys"]
    assert "signs with ES384" in said["provider foreign keys"]
    assert "RS256" in said["provider foreign keys"]
    assert "no client secret" in said["provider nosecret"]
    assert "canary" not in report.out + report.err


def test_clocks_that_are_wrong(host: Host) -> None:
    without_roles(host)

    def date(seconds: int) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    with serving() as behind:
        host.settings["oidc"].append(
            {"name": "other", "issuer": behind.issuer, "client_id": "broker"}
        )
        host.provider.date, behind.date = date(600), date(-90)
        report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "provider corp clock"),
        ("warning", "provider other clock"),
    ]
    assert "s behind http" in report.of("provider corp clock")["detail"]
    assert "s ahead of http" in report.of("provider other clock")["detail"]
    assert "NTP" in report.of("provider corp clock")["cure"]


def test_who_the_broker_is_at_aws(host: Host) -> None:
    """Three partitions, each wrong in its way."""
    without_roles(host)
    root = host.aws.hub_credentials("root")
    (host.folder / "aws-credentials").write_text(
        f"[root]\naws_access_key_id = {root.access_key_id}\n"
        f"aws_secret_access_key = {root.secret_access_key}\n"
        "[gone]\naws_access_key_id = AKIAEXAMPLEEXAMPLE00\n"
        "aws_secret_access_key = canary-secret-access-key\n"
    )
    host.settings["aws"] = [
        {
            "partition": "aws",
            "region": "eu-central-1",
            "sts_endpoint_url": f"http://127.0.0.1:{free_port()}",
        },
        {
            "partition": "aws-cn",
            "region": "cn-north-1",
            "sts_endpoint_url": host.aws.url,
            "profile": "root",
        },
        {
            "partition": "aws-us-gov",
            "region": "us-gov-west-1",
            "sts_endpoint_url": host.aws.url,
            "profile": "gone",
        },
    ]
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "aws identity"),
        ("failed", "aws-cn identity"),
        ("failed", "aws-us-gov identity"),
    ]
    assert "no connection to 127.0.0.1" in report.of("aws identity")["detail"]
    assert "AWS_CA_BUNDLE" in report.of("aws identity")["cure"]
    assert "root user" in report.of("aws-cn identity")["detail"]
    assert "InvalidClientTokenId" in report.of("aws-us-gov identity")["detail"]
    assert "canary" not in report.out + report.err


def test_no_credentials_and_settings_that_do_not_fit(host: Host) -> None:
    without_roles(host)
    kept = {name: value for name, value in host.environment.items() if "_KEY" not in name}
    del kept["AWS_SESSION_TOKEN"]
    (host.folder / "aws-credentials").write_text(
        "\n".join(
            ["[hub]"] + [f"{n.lower()} = {v}" for n, v in host.environment.items() if n not in kept]
        )
    )
    host.environment.clear()
    host.environment.update(kept)
    host.settings["aws"] = [
        {"region": "us-east-1", "sts_endpoint_url": host.aws.url},
        {"partition": "aws-cn", "region": "us-east-1", "profile": "hub"},
        {
            "partition": "aws-us-gov",
            "region": "us-gov-west-1",
            "sts_endpoint_url": host.aws.url,
            "profile": "hub",
            "chained": False,
        },
    ]
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "aws identity"),
        ("failed", "aws-cn identity"),
        ("failed", "aws-us-gov identity"),
    ]
    assert "no AWS credentials" in report.of("aws identity")["detail"]
    assert "IAM role" in report.of("aws identity")["cure"]
    assert "partition aws, not aws-cn" in report.of("aws-cn identity")["detail"]
    assert "chained = false" in report.of("aws-us-gov identity")["detail"]


def test_aws_finds_this_clock_wrong(host: Host) -> None:
    host.aws.faults.clock_offset = 3600
    report = host.doctor()
    assert report.code == 1
    assert report.wrong() == [("failed", "aws identity"), ("warning", "role data-reader")]
    assert "NTP" in report.of("aws identity")["cure"]
    assert "not checked" in report.of("role data-reader")["detail"]


def test_everything_hangs_and_it_ends_all_the_same(host: Host) -> None:
    host.provider.hold = True
    host.aws.faults.add(Fault.HANG, action="GetCallerIdentity", times=None, seconds=100)
    # A credential_process that never ends is a thread that nothing can stop.
    hanging = host.folder / "hang"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o700)
    (host.folder / "aws-config").write_text(f"[profile slow]\ncredential_process = {hanging}\n")
    host.settings["aws"].append(
        {"partition": "aws-cn", "region": "cn-north-1", "profile": "slow"},
    )
    started = time.monotonic()
    report = host.doctor()
    assert time.monotonic() - started < 60
    assert report.code == 1
    assert report.wrong() == [
        ("failed", "provider corp"),
        ("failed", "aws identity"),
        ("failed", "aws-cn identity"),
        ("warning", "role data-reader"),
    ]
    assert "no answer in time" in report.of("provider corp")["detail"]
    assert "did not answer within 10 s" in report.of("aws-cn identity")["detail"]


def test_a_policy_file_that_does_not_read(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(POLICY.replace("mode: standing", "mode: sometimes"))
    report = host.doctor("--policy", str(file))
    assert report.code == 1
    assert report.wrong() == [("failed", "access policy")]
    assert report.of("access policy")["detail"].startswith(f"{file}:15:")
    assert report.of("access policy")["cure"].startswith("instead: ")


def test_a_policy_in_force_that_no_longer_fits_the_settings(host: Host) -> None:
    host.settings["oidc"][0]["name"] = "renamed"
    report = host.doctor()
    assert report.wrong() == [("failed", "access policy")]
    assert "version 1 does not fit these settings" in report.of("access policy")["detail"]
