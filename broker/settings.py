"""Every setting of the server, typed, from `broker.toml` and `BROKER_*`.

Owns: names, defaults, and what is refused before anything starts. Does not
own: what is done with them (`app`), nor the reading of key files
(`adapters/sealing`). An unknown key stops start-up: a misspelt security setting
must never be a silent default.

Precedence: environment, then the file. `BROKER_DATABASE__URL` is
`[database] url`; a list such as `[[oidc]]` is `BROKER_OIDC` as JSON, and its
items' secrets come by `client_secret_file`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from broker.adapters.key_place import KeyPlace, KmsReference
from broker.audit.cosignature import CosignerKey
from broker.audit.note import BadNote
from broker.errors import StartupError
from broker.identity.device import DeviceFlow
from broker.identity.totp import Enrolment
from broker.setting_forms import Origin, SafeUrl, Section, as_sequence, safe_parts
from broker.sink_settings import Sinks

_PROVIDER_NAME = r"^[a-z0-9][a-z0-9-]{0,31}$"


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("write a network, such as 10.0.0.0/8 or 192.0.2.7/32") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Server(Section):
    public_url: Origin = "http://127.0.0.1:8080"
    """What people's browsers and clients open: scheme, host, port. `https`, except on loopback."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """The port to listen on, in plain http: a proxy before it ends TLS. 0: any free one."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose `X-Forwarded-For` is believed. Without it, everybody comes from the proxy."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve `/metrics` on this port alone. Not set: on the public one."""
    drain_seconds: float = Field(default=0.0, ge=0, le=300)
    """After SIGTERM, how long `/readyz` says 503 while all is still served, so that balancers which
    go by it notice first. 0 fits those that try the next server when one refuses a connection."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged. Libraries stay at `warning`; secrets are in no level."""


def _database_url(url: SecretStr) -> SecretStr:
    scheme = url.get_secret_value().split("://", 1)[0]
    if scheme not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise ValueError("write sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME")
    return url


class Database(Section):
    """The URL is a secret: it may hold a password."""

    url: Annotated[SecretStr, AfterValidator(_database_url)] = SecretStr(
        "sqlite+aiosqlite:///broker.db"
    )
    """`sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME`. Add
    `?pgbouncer=true` behind PgBouncer in transaction mode."""
    pool_size: int = Field(default=16, ge=2, le=200)
    """Connections of one process; PostgreSQL may see ten more at a peak."""


class Oidc(Section):
    name: str = Field(pattern=_PROVIDER_NAME)
    """Its name in access policies, as in `corp/sre`. Never change it: groups go by it."""
    title: str | None = Field(default=None, max_length=64)
    """What the sign-in page calls it. Not set: its name."""
    issuer: SafeUrl
    """Its issuer, letter by letter as its discovery document has it."""
    client_id: str = Field(min_length=1, max_length=256)
    """The client that you registered there for the broker."""
    client_secret: SecretStr | None = None
    """That client's secret. Not set: a public client, by PKCE alone."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """What is asked for; `groups` is added where the provider lists it."""
    groups_claim: str = "groups"
    """The claim that lists a person's groups, in the ID token or else in userinfo."""
    handle_claim: str = "email"
    """The claim by which people are shown. Who they are is issuer and subject."""
    algorithms: tuple[
        Literal[
            "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"
        ],
        ...,
    ] = Field(default=("RS256", "ES256", "PS256"), min_length=1)
    """The signatures that are taken on its ID tokens."""

    @model_validator(mode="after")
    def _asks_for_openid(self) -> Self:
        if "openid" not in self.scopes:
            raise ValueError('scopes must include "openid"')
        return self


class Mfa(Section):
    enrolment: Enrolment = Enrolment.INVITED
    """`invited`: a first second factor takes a code from an admin. `open`: whoever has the first
    factor enrols it; never for admins."""
    label: str = Field(default="broker", min_length=1, max_length=64)
    """What authenticator apps call the account."""


class Aws(Section):
    partition: Literal["aws", "aws-cn", "aws-us-gov"] = "aws"
    """The AWS partition. One section for each that the access policy names."""
    region: str = Field(default="us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    """The region whose STS is asked: the nearest one."""
    sts_endpoint_url: SafeUrl | None = None
    """Another address of STS, such as a VPC endpoint's."""
    profile: str | None = Field(default=None, min_length=1, max_length=128)
    """A profile of the AWS configuration files: each partition has credentials of its own."""
    chained: Literal["auto"] | bool = "auto"
    """Whether AWS counts the broker's calls as role chaining, which is one hour at most. `auto`
    tells by the broker's own credentials."""


class Sessions(Section):
    device_flow: DeviceFlow = DeviceFlow.ON
    """Logins by a code typed elsewhere. `same_network`: only from the network that began them."""


def _key_reference(reference: str) -> str:
    if reference.startswith("awskms:"):
        return str(KmsReference.parse(reference))
    if not reference.startswith("file:") or reference == "file:":
        raise ValueError("write file:PATH, or awskms:ARN for a key in AWS KMS")
    return reference


KeyReference = Annotated[str, AfterValidator(_key_reference)]


class Keys(Section):
    sealing: KeyReference = "file:keys/sealing"
    """The keys that seal second-factor secrets; `broker migrate` makes them. `awskms:ARN`: a
    symmetric key in AWS KMS wraps them."""
    signing: KeyReference = "file:keys/signing"
    """The key that signs the audit log; `broker migrate` makes the file. `awskms:ARN`: an Ed25519
    key in AWS KMS (`ECC_NIST_EDWARDS25519`), which signs checkpoints and, each day, the delegates
    that sign receipts."""

    @property
    def sealing_path(self) -> Path:
        return _path(self.sealing)

    @property
    def signing_path(self) -> Path:
        return _path(self.signing)


def _path(reference: str) -> Path:
    """For who knows that it is a file."""
    if not reference.startswith("file:"):
        raise ValueError(f"{reference} is no file")
    return Path(reference.removeprefix("file:"))


class Admin(Section):
    """One bootstrap admin: by issuer and subject, or by provider and verified e-mail."""

    issuer: str | None = None
    """With `subject`: the provider's issuer."""
    subject: str | None = None
    """The `sub` that it gives the person."""
    provider: str | None = None
    """With `email`: the name of an `[[oidc]]`."""
    email: str | None = None
    """The address as that provider verified it."""

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        by_subject = self.issuer is not None and self.subject is not None
        by_email = self.provider is not None and self.email is not None
        given = sum(v is not None for v in (self.issuer, self.subject, self.provider, self.email))
        if given != 2 or not (by_subject or by_email):
            raise ValueError("write {issuer, subject} or {provider, email}")
        return self


class Bootstrap(Section):
    admins: tuple[Admin, ...] = ()
    """The first admins. By e-mail it holds once, while there is no admin, and is pinned then to who
    signed in."""


def _copy_reference(reference: str) -> str:
    kind, _, path = reference.partition(":")
    if not path.strip("/") or kind not in {"file", "directory", "s3"}:
        raise ValueError(
            "write file:PATH, directory:PATH or s3://BUCKET/PREFIX; a witness has a section"
            " [[audit.witnesses]] of its own"
        )
    return reference


CopyReference = Annotated[str, AfterValidator(_copy_reference)]


def _witness_key(vkey: str) -> str:
    try:
        return str(CosignerKey.parse(vkey))
    except BadNote as fault:
        raise ValueError(str(fault)) from fault


class Witness(Section):
    url: SafeUrl
    """Its submission prefix: `/add-checkpoint` is added."""
    key: Annotated[str, AfterValidator(_witness_key)]
    """Its verifier key, `NAME+ID+BASE64`, for Ed25519 cosignatures."""


class Audit(Section):
    wait_seconds: float = Field(default=5.0, gt=0, le=30)
    """The longest a request waits for its record before it is refused."""
    queue_size: int = Field(default=4096, ge=16, le=100_000)
    """How many records may wait in one process before requests are refused."""
    orphan_after_seconds: float = Field(default=45.0, ge=15, le=3600)
    """The age at which an intent without outcome is closed as orphaned, within 10 s. It must exceed
    the longest STS call."""
    checkpoint_seconds: float = Field(default=10.0, ge=0.1, le=10)
    """While something is new, the log's head is signed at least this often."""
    checkpoint_records: int = Field(default=1000, ge=1, le=1000)
    """And after this many records."""
    checkpoint_copies: tuple[CopyReference, ...] = ()
    """Where each signed head is copied, and looked for when the broker starts: `file:PATH`
    (replaced), `directory:PATH` (grows), `s3://BUCKET/PREFIX` (locked)."""
    s3_retention_days: int = Field(default=400, ge=1, le=36_500)
    """How long a checkpoint in S3 can't be deleted by anybody."""
    witnesses: Annotated[tuple[Witness, ...], BeforeValidator(as_sequence)] = ()
    """Witnesses (C2SP tlog-witness) that cosign each signed head, and say what they have seen when
    the broker starts."""
    sinks: Sinks = ()
    """Where every record is delivered to as well: see [sinks](../operations/sinks.md)."""
    allow_unsafe_durability: bool = False
    """Start although the database may lose what it committed. For tests alone."""


def _collector(url: str) -> str:
    """Plain http too: a collector is often beside the broker, and spans hold no secret."""
    safe_parts(url, "write the collector's full URL, such as http://collector:4318")
    return url


class Telemetry(Section):
    otlp_endpoint: Annotated[str, AfterValidator(_collector)] | None = None
    """The collector that traces are sent to over OTLP/HTTP, such as `http://collector:4318`. None
    are made without it. Needs the extra `otel`."""
    trace_ratio: float = Field(default=0.1, ge=0, le=1)
    """The share of requests that are traced, drawn by the broker."""
    trace_callers_per_second: int = Field(default=10, ge=0, le=1000)
    """How many more requests a second are traced in a process because their caller asks for it, by
    a sampled `traceparent`."""


def _unique_names(providers: tuple[Oidc, ...]) -> tuple[Oidc, ...]:
    for what, values in (
        ("name", [p.name for p in providers]),
        ("issuer and client_id", [(p.issuer, p.client_id) for p in providers]),
    ):
        if len(set(values)) != len(values):
            raise ValueError(f"two [[oidc]] entries have the same {what}")
    return providers


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BROKER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    server: Server = Server()
    database: Database = Database()
    oidc: Annotated[
        tuple[Oidc, ...], BeforeValidator(as_sequence), AfterValidator(_unique_names)
    ] = ()
    mfa: Mfa = Mfa()
    aws: Annotated[tuple[Aws, ...], BeforeValidator(as_sequence)] = (Aws(),)
    sessions: Sessions = Sessions()
    keys: Keys = Keys()
    bootstrap: Bootstrap = Bootstrap()
    audit: Audit = Audit()
    telemetry: Telemetry = Telemetry()

    def key_place(self, reference: str) -> KeyPlace:
        """Where `file:PATH` or `awskms:ARN` leads to, with the profile of its partition."""
        if reference.startswith("file:"):
            return KeyPlace(_path(reference))
        key = KmsReference.parse(reference)
        profiles = [aws.profile for aws in self.aws if aws.partition == key.partition]
        return KeyPlace(key, profiles[0] if profiles else None)

    @model_validator(mode="after")
    def _one_aws_a_partition(self) -> Self:
        partitions = [aws.partition for aws in self.aws]
        if len(set(partitions)) != len(partitions):
            raise ValueError("two [[aws]] entries have the same partition")
        return self

    @model_validator(mode="after")
    def _bootstrap_names_providers(self) -> Self:
        names = {provider.name for provider in self.oidc}
        for admin in self.bootstrap.admins:
            if admin.provider is not None and admin.provider not in names:
                raise ValueError(f"bootstrap.admins names the unknown provider {admin.provider!r}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file arrives as init values; the environment overrides it, as operators expect.
        return env_settings, init_settings


# Variables of the client and of packaging; every other BROKER_* must be a setting.
_CLIENT_VARIABLES = frozenset(
    {
        "BROKER_CONFIG",
        "BROKER_HOME",
        "BROKER_KEYRING",
        "BROKER_SERVER",
        "BROKER_CI_TOKEN",
        "BROKER_CI_TOKEN_FILE",
    }
)


def load(config: Path | None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Settings from the file and environment. Raises StartupError, a line a fault.

    `overrides` are keyword sections of the caller's (`broker dev`), below the environment.
    """
    values: dict[str, object] = dict(overrides or {})
    if config is not None:
        values.update(_read_toml(config))
    _refuse_unknown_variables()
    try:
        return Settings(**values)  # type: ignore[arg-type]  # validated by pydantic itself
    except ValidationError as fault:
        where = str(config) if config else "settings"
        raise StartupError("\n".join(_lines(where, fault))) from None


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise StartupError(f"{path}: can't be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise StartupError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as fault:
        raise StartupError(f"{path}: is not valid TOML: {fault}") from None


def _refuse_unknown_variables() -> None:
    sections = set(Settings.model_fields)
    for name in sorted(os.environ):
        if not name.startswith("BROKER_") or name in _CLIENT_VARIABLES:
            continue
        section = name.removeprefix("BROKER_").lower().split("__", 1)[0]
        if section not in sections:
            raise StartupError(
                f"{name}: is no setting; sections are {', '.join(sorted(sections))} "
                "(such as BROKER_DATABASE__URL)"
            )


def _lines(where: str, fault: ValidationError) -> Sequence[str]:
    lines = []
    errors = fault.errors(include_url=False, include_input=False, include_context=False)
    for error in errors:
        # A list is not too short for what is wrong with an item of it.
        if error["type"] == "too_short" and any(
            other is not error and other["loc"][: len(error["loc"])] == error["loc"]
            for other in errors
        ):
            continue
        key = ".".join(str(part) for part in error["loc"]) or "settings"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "is no setting (unknown key)"
        lines.append(f"{where}: {key}: {message}")
    return lines
