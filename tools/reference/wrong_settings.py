"""What operators get wrong, what the broker says then, and what to do: one table.

`wrong_settings_page` shows it; `tests/server_cli/test_wrong_settings.py` does each thing and sees
that the broker says so, in one line and with exit code 1. `settings` are put over settings that
are right (None takes a key away); `scene` names what the test does to files, database or network
first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Sections = Mapping[str, Any]


@dataclass(frozen=True)
class Wrong:
    """`says` stands in the line; `{file}` is the settings file."""

    what: str
    says: str
    cure: str
    settings: Sections = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scene: str = ""
    lines: int = 1


_NOT_AN_ADDRESS = "Write scheme and host, and a port where it is not the scheme's."
_FILE = "Put the secret there, and let the broker's user alone read it."
_KEYS = "Restore the file from your backup. A new one opens nothing that was sealed or signed."

# What `broker server` says, and `migrate`, `recover` and `keys` alike.
AT_START: Mapping[str, tuple[Wrong, ...]] = {
    "The file and the environment": (
        Wrong(
            "The file that `--config` or `BROKER_CONFIG` names is not there",
            "elsewhere.toml: can't be read: No such file or directory",
            "Name the right one.",
            environment={"BROKER_CONFIG": "elsewhere.toml"},
        ),
        Wrong(
            "It is not TOML",
            "broker.toml: is not valid TOML",
            "Correct the line that it names.",
            scene="not toml",
        ),
        Wrong(
            "It is not UTF-8",
            "broker.toml: is not UTF-8 text",
            "Save it as UTF-8.",
            scene="not utf-8",
        ),
        Wrong(
            "An unknown key",
            "server.prot: is no setting (unknown key)",
            "Correct its name: see [settings](settings.md).",
            settings={"server": {"prot": 8080}},
        ),
        Wrong(
            "An unknown section",
            "sever: is no setting (unknown key)",
            "Correct its name.",
            settings={"sever": {"port": 8080}},
        ),
        Wrong(
            "An unknown variable",
            "BROKER_SEVER__PORT: is no setting",
            "Correct its name.",
            environment={"BROKER_SEVER__PORT": "8080"},
        ),
        Wrong(
            "A number that is none",
            "server.port: Input should be a valid integer",
            "Write a number.",
            environment={"BROKER_SERVER__PORT": "http"},
        ),
    ),
    "The server": (
        Wrong(
            "`public_url` without a scheme",
            "server.public_url: write a full URL",
            _NOT_AN_ADDRESS,
            settings={"server": {"public_url": "broker.example.com"}},
        ),
        Wrong(
            "`public_url` in plain http",
            "server.public_url: plain http is for loopback addresses alone",
            "Write `https://`, with a proxy before the broker that ends TLS.",
            settings={"server": {"public_url": "http://broker.example.com"}},
        ),
        Wrong(
            "`public_url` with a path",
            "server.public_url: the broker is served at the root of its host",
            "Give it a host name of its own.",
            settings={"server": {"public_url": "https://example.com/broker"}},
        ),
        Wrong(
            "`public_url` with a user name or a query",
            "server.public_url: leave user names, queries and fragments out",
            _NOT_AN_ADDRESS,
            settings={"server": {"public_url": "https://me@broker.example.com"}},
        ),
        Wrong(
            "`public_url` with a password and no user name",
            "server.public_url: leave user names, queries and fragments out",
            _NOT_AN_ADDRESS,
            settings={"server": {"public_url": "https://:secret@broker.example.com"}},
        ),
        Wrong(
            "`public_url` with a host or port that can't be",
            "nothing can have this host or port",
            _NOT_AN_ADDRESS,
            settings={"server": {"public_url": "https://broker.example.com:84433"}},
        ),
        Wrong(
            "A port that does not exist",
            "server.port: Input should be less than or equal to 65535",
            "Choose one under 65536.",
            settings={"server": {"port": 80800}},
        ),
        Wrong(
            "`trusted_proxies` that are no networks",
            "server.trusted_proxies.0: write a network, such as 10.0.0.0/8",
            "Write networks, such as `10.0.0.0/8` or `192.0.2.7/32`.",
            settings={"server": {"trusted_proxies": ["proxy.internal"]}},
        ),
        Wrong(
            "A collector of traces without a scheme",
            "telemetry.otlp_endpoint: write the collector's full URL",
            _NOT_AN_ADDRESS,
            settings={"telemetry": {"otlp_endpoint": "collector:4318"}},
        ),
        Wrong(
            "A collector of traces with a password in its URL",
            "telemetry.otlp_endpoint: leave user names, queries and fragments out",
            "Put what it asks for into `OTEL_EXPORTER_OTLP_HEADERS`.",
            settings={"telemetry": {"otlp_endpoint": "https://me:secret@collector.internal"}},
        ),
        Wrong(
            "A port that something else listens on",
            "can't listen on 127.0.0.1 port",
            "Stop that, or set another `port`.",
            scene="port taken",
        ),
    ),
    "The database": (
        Wrong(
            "A URL of another kind",
            "database.url: write sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME",
            "Write it so; `postgres://` is not enough.",
            settings={"database": {"url": "postgres://broker@db.internal/broker"}},
        ),
        Wrong(
            "SQLite in memory",
            "database.url names no SQLite file; an audit log can't live in memory",
            "Name a file.",
            settings={"database": {"url": "sqlite+aiosqlite:///:memory:"}},
        ),
        Wrong(
            "A folder that is not there",
            "database.url: can't create",
            "Create it, owned by the broker's user.",
            settings={"database": {"url": "sqlite+aiosqlite:///nowhere/broker.db"}},
        ),
        Wrong(
            "`?pgbouncer=` with another word",
            "database.url: pgbouncer is true or false",
            "See [PostgreSQL](../operations/postgresql.md#pgbouncer).",
            settings={"database": {"url": "postgresql+asyncpg://b@127.0.0.1/b?pgbouncer=yes"}},
        ),
        Wrong(
            "Nobody answers there",
            "the database can't be reached",
            "Start it; check host, port, network and password.",
            scene="database closed",
        ),
        Wrong(
            "No tables yet",
            "the database has no tables yet, this broker needs",
            "`broker migrate`",
            scene="no tables",
        ),
        Wrong(
            "A schema older than the broker",
            "run `broker migrate`",
            "`broker migrate`; see [upgrade](../operations/upgrade.md).",
            scene="older schema",
        ),
        Wrong(
            "A schema newer than the broker",
            "does not know: a newer broker migrated it",
            "Start the newer broker again, or restore a backup: there is no way down.",
            scene="newer schema",
        ),
        Wrong(
            "PostgreSQL that may lose what it committed",
            "PostgreSQL runs with fsync=off",
            "Turn on what it names: `fsync`, `full_page_writes`, `synchronous_commit`. A line for "
            "each.",
            scene="unsafe durability",
            lines=3,
        ),
    ),
    "Providers": (
        Wrong(
            "`issuer` that is no URL",
            "oidc.0.issuer: write a full URL",
            "Copy it from the provider's discovery document.",
            settings={"oidc": [{"issuer": "idp.example.com"}]},
        ),
        Wrong(
            "`client_id` is missing: it is the audience of every ID token",
            "oidc.0.client_id: Field required",
            "Register a client for the broker at the provider.",
            settings={"oidc": [{"client_id": None}]},
        ),
        Wrong(
            "A name with capitals or spaces",
            "oidc.0.name: String should match pattern",
            "Small letters, digits and dashes: it stands before each group, `corp/sre`.",
            settings={"oidc": [{"name": "My Corp"}]},
        ),
        Wrong(
            "`scopes` without `openid`",
            'oidc.0: scopes must include "openid"',
            "Add it.",
            settings={"oidc": [{"scopes": ["email"]}]},
        ),
        Wrong(
            "A signature that proves nothing, or a shared secret's",
            "oidc.0.algorithms.0: Input should be 'RS256'",
            "Take what the provider signs with, of those it names.",
            settings={"oidc": [{"algorithms": ["HS256"]}]},
        ),
        Wrong(
            "Two providers of one name",
            "two [[oidc]] entries have the same name",
            "Rename one: groups go by it.",
            settings={"oidc": [{}, {"issuer": "https://other.example.com"}]},
        ),
        Wrong(
            "The secret's file is missing",
            "oidc-secret can't be read: No such file or directory",
            _FILE,
            settings={"oidc": [{"client_secret_file": "oidc-secret"}]},
        ),
        Wrong(
            "The secret's file can be read by others",
            "oidc-secret can be read by others; run: chmod 600 oidc-secret",
            "Run that.",
            settings={"oidc": [{"client_secret_file": "oidc-secret"}]},
            scene="open secret",
        ),
        Wrong(
            "The secret's file is empty",
            "oidc-secret holds no secret",
            _FILE,
            settings={"oidc": [{"client_secret_file": "oidc-secret"}]},
            scene="empty secret",
        ),
        Wrong(
            "The secret is given twice",
            "give client_secret or client_secret_file, not both",
            "Leave one out.",
            settings={"oidc": [{"client_secret": "s", "client_secret_file": "oidc-secret"}]},
        ),
        Wrong(
            "The access policy in force names a provider that is gone",
            "of the access policy does not fit these settings",
            "Give it its name back.",
            settings={"oidc": [{"name": "renamed"}]},
            scene="policy applied",
            lines=3,
        ),
    ),
    "Second factor, logins, AWS": (
        Wrong(
            "`enrolment` with another word",
            "mfa.enrolment: Input should be 'invited' or 'open'",
            "Leave it out: `invited`.",
            settings={"mfa": {"enrolment": "closed"}},
        ),
        Wrong(
            "`device_flow` with another word",
            "sessions.device_flow: Input should be 'on', 'same_network' or 'off'",
            "Write one of these.",
            settings={"sessions": {"device_flow": "maybe"}},
        ),
        Wrong(
            "A region that is none",
            "aws.0.region: String should match pattern",
            "Write it as AWS does: `eu-central-1`.",
            settings={"aws": [{"region": "Frankfurt"}]},
        ),
        Wrong(
            "A partition that is none",
            "aws.0.partition: Input should be 'aws', 'aws-cn' or 'aws-us-gov'",
            "Write one of these.",
            settings={"aws": [{"partition": "china"}]},
        ),
        Wrong(
            "Two sections for one partition",
            "two [[aws]] entries have the same partition",
            "Keep one.",
            settings={"aws": [{}, {"region": "eu-west-1"}]},
        ),
        Wrong(
            "STS over plain http",
            "aws.0.sts_endpoint_url: plain http is for loopback addresses alone",
            "Write `https://`.",
            settings={"aws": [{"sts_endpoint_url": "http://sts.example.com"}]},
        ),
    ),
    "Keys": (
        Wrong(
            "A key store that is not known",
            "keys.sealing: write file:PATH",
            "Write `file:` and a path.",
            settings={"keys": {"sealing": "vault:secret"}},
        ),
        Wrong(
            "A key in AWS KMS by its alias",
            "keys.signing: write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID, the ARN of a key",
            "Write the key's ARN: an alias may mean another key tomorrow.",
            settings={"keys": {"signing": "awskms:alias/broker"}},
        ),
        Wrong(
            "The sealing keys can be read by others",
            "keys/sealing can be read by others (mode 0644); run: chmod 600",
            "Run that. If others may have read it: [key leaked](../operations/incidents.md"
            "#a-key-leaked).",
            scene="open sealing keys",
        ),
        Wrong(
            "The sealing keys are missing",
            "keys/sealing is not there",
            _KEYS,
            scene="no sealing keys",
        ),
        Wrong(
            "The sealing keys are damaged",
            "keys/sealing is damaged; restore it from your backup",
            _KEYS,
            scene="damaged sealing keys",
        ),
        Wrong(
            "The signing key can be read by others",
            "keys/signing can be read by others (mode 0644); run: chmod 600",
            "As above.",
            scene="open signing key",
        ),
        Wrong(
            "The signing key is missing",
            "keys/signing is not there",
            _KEYS,
            scene="no signing key",
        ),
    ),
    "Admins and the log": (
        Wrong(
            "A first admin who is nobody",
            "bootstrap.admins.0: write {issuer, subject} or {provider, email}",
            "Write both of a pair.",
            settings={"bootstrap": {"admins": [{"email": "you@example.com"}]}},
        ),
        Wrong(
            "A first admin at an unknown provider",
            "bootstrap.admins names the unknown provider 'crop'",
            "Write the name of an `[[oidc]]`.",
            settings={"bootstrap": {"admins": [{"provider": "crop", "email": "y@example.com"}]}},
        ),
        Wrong(
            "A time out of range",
            "audit.orphan_after_seconds: Input should be greater than or equal to 15",
            "Stay in the range that [settings](settings.md#audit) gives.",
            settings={"audit": {"orphan_after_seconds": 1}},
        ),
        Wrong(
            "A copy of the checkpoint at an unknown kind of place",
            "audit.checkpoint_copies.0: write file:PATH, directory:PATH or s3://BUCKET/PREFIX",
            "Write one of these.",
            settings={"audit": {"checkpoint_copies": ["ftp://backup"]}},
        ),
        Wrong(
            "A sink of a kind that is not known",
            "audit.sinks.0: Input tag 'splunk' found using 'kind' does not match any",
            "Write one of those it names; see [sinks](../operations/sinks.md).",
            settings={"audit": {"sinks": [{"name": "siem", "kind": "splunk"}]}},
        ),
        Wrong(
            "A sink over plain http",
            "audit.sinks.0.webhook.url: plain http is for loopback addresses alone",
            "Write `https://`.",
            settings={
                "audit": {
                    "sinks": [{"name": "siem", "kind": "webhook", "url": "http://siem.example.com"}]
                }
            },
        ),
        Wrong(
            "Two sinks of one name",
            "audit.sinks: two [[audit.sinks]] entries have the same name",
            "Rename one: its position goes by it.",
            settings={
                "audit": {
                    "sinks": [{"name": "out", "kind": "stdout"}, {"name": "out", "kind": "stdout"}]
                }
            },
        ),
        Wrong(
            "A witness without its key",
            "audit.witnesses.0.key: Field required",
            "Write its verifier key, from a place that you trust.",
            settings={"audit": {"witnesses": [{"url": "https://witness.example.com"}]}},
        ),
        Wrong(
            "The log was signed further than this database knows: an old backup",
            "broker server --accept-rollback",
            "Restore a newer one. If there is none: [backup and restore]"
            "(../operations/backup.md#a-backup-is-older-than-the-log).",
            scene="rolled back",
            lines=3,
        ),
    ),
}

# What only `broker doctor` finds: the broker starts, and /readyz says `degraded` where a provider
# or STS can't be reached, since it is no reason to stop everybody else.
IN_DOCTOR: tuple[Wrong, ...] = (
    Wrong(
        "A provider that can't be reached",
        "fail  provider corp: ",
        "Start it; check network, certificate, and how `issuer` is written.",
        scene="provider closed",
    ),
    Wrong(
        "STS that can't be reached",
        "fail  aws identity: no connection to 127.0.0.1",
        "Check the network, `HTTPS_PROXY` and `AWS_CA_BUNDLE`.",
        scene="sts closed",
    ),
    Wrong(
        "This host's clock, ten minutes off, by a provider's",
        "s behind http",
        "Set the clock, and let NTP keep it.",
        scene="clock off at provider",
    ),
    Wrong(
        "This host's clock, ten minutes off, by AWS's",
        "fail  aws identity: ",
        "Set the clock, and let NTP keep it.",
        scene="clock off at aws",
    ),
    Wrong(
        "No `[[oidc]]` at all",
        "fail  providers: no OpenID provider is set, so nobody can sign in",
        "Add one.",
        settings={"oidc": []},
        scene="policy without groups",
    ),
    Wrong(
        "No AWS credentials",
        "fail  aws identity: the broker has no AWS credentials",
        "Give the host an IAM role.",
        scene="no credentials",
    ),
    Wrong(
        "Nobody is admin",
        "fail  admins: neither the access policy nor [bootstrap] names an admin",
        'Set `[bootstrap] admins = [{provider = "corp", email = "you@example.com"}]`.',
        scene="no admin",
    ),
    Wrong(
        "A workload without `audience` in the access policy",
        "audience",
        "Write the broker's address there, and the same in the CI job.",
        scene="no audience",
    ),
)


def toml_value(value: Any) -> str:
    """JSON's strings, numbers and lists are TOML's too; its objects are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return json.dumps(value)
