"""The settings of sinks: `[[audit.sinks]]`, a table for each, by its `kind`.

Owns names, defaults and refusals, and what is said of a sink in the log: where
it delivers to, never a secret. Does not own the sinks (`adapters/sinks`).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from broker.setting_forms import SafeUrl, Section, as_sequence

_NAME = r"^[a-z0-9][a-z0-9-]{0,31}$"
_SHORTEST_SECRET = 16


class _Sink(Section):
    name: str = Field(pattern=_NAME)
    """Its name in metrics, in the log and in `broker sinks`. Its position goes by it."""
    format: Literal["native", "ocsf"] = "native"
    """`native`: lines as `broker audit export` writes them, which verify. `ocsf`: events of the
    Open Cybersecurity Schema Framework 1.5, with the native record in `raw_data`."""
    start: Literal["now", "beginning"] = Field(default="now", alias="from")
    """Where a sink starts that was never there before: with what happens next, or with the first
    record of the log."""
    batch_records: int = Field(default=500, ge=1, le=1000)
    """The most records that are delivered at once."""
    linger_seconds: float = Field(default=0.0, ge=0, le=900)
    """How long fewer records than that wait for more."""
    timeout_seconds: float = Field(default=10.0, ge=1, le=120)
    """A delivery that takes longer has failed, and is repeated."""

    @property
    def destination(self) -> dict[str, object]:
        """Where it delivers to, as the log says it when a sink changes: no secrets."""
        raise NotImplementedError


class StdoutSink(_Sink):
    kind: Literal["stdout"]
    """JSON Lines on standard output. The server's own log is on standard error."""

    @property
    def destination(self) -> dict[str, object]:
        return {}


class FileSink(_Sink):
    kind: Literal["file"]
    """JSON Lines in a file that is made readable by the broker alone."""
    path: Path
    """The file. Its folder must exist."""
    max_bytes: int = Field(default=100 * 1024 * 1024, ge=4096)
    """When it would grow over this it becomes FILE.1, that one FILE.2, and so on."""
    keep: int = Field(default=10, ge=0, le=1000)
    """How many of those stay."""
    rotate: bool = True
    """`false`: something else rotates it, such as logrotate. A file that was moved is made anew."""

    @property
    def destination(self) -> dict[str, object]:
        return {"path": str(self.path)}


class SyslogSink(_Sink):
    kind: Literal["syslog"]
    """RFC 5424 messages over TLS (RFC 5425), or over plain TCP (RFC 6587, octet counting)."""
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
    """The receiver's name, which its certificate must have, or its address."""
    port: int = Field(default=6514, ge=1, le=65535)
    """Its port."""
    tls: bool = True
    """`false`: plain TCP, which anybody on the way can read and change."""
    ca_file: Path | None = None
    """The authorities that may have signed its certificate (PEM). Not set: the system's."""
    certificate_file: Path | None = None
    """The broker's own certificate (PEM), for receivers that ask for one."""
    key_file: Path | None = None
    """That certificate's key. Not set: it is in `certificate_file` too."""
    facility: int = Field(default=13, ge=0, le=23)
    """The facility of the messages: 13 is "log audit"."""

    @model_validator(mode="after")
    def _no_files_without_tls(self) -> Self:
        files = (self.ca_file, self.certificate_file, self.key_file)
        if not self.tls and any(file is not None for file in files):
            raise ValueError("certificates are for tls = true")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file goes with certificate_file")
        return self

    @property
    def destination(self) -> dict[str, object]:
        return {
            "host": self.host,
            "port": self.port,
            "tls": self.tls,
            "ca_file": _optional(self.ca_file),
            "certificate_file": _optional(self.certificate_file),
        }


class WebhookSink(_Sink):
    kind: Literal["webhook"]
    """Batches posted to an HTTPS address. Redirects are not followed."""
    url: SafeUrl
    """The address: https, or plain http on this machine."""
    body: Literal["lines", "array"] = "lines"
    """A JSON object a line, or one JSON array of them."""
    linger_seconds: float = Field(default=1.0, ge=0, le=900)
    """How long fewer records than `batch_records` wait for more."""
    secret: SecretStr | None = None
    """Signs each request by HMAC-SHA256, in `Broker-Signature`. At least 16 characters."""
    authorization: SecretStr | None = None
    """The whole value of an `Authorization` header, for receivers that ask for one."""

    @model_validator(mode="after")
    def _is_authenticated(self) -> Self:
        if self.secret is None and self.authorization is None:
            raise ValueError(
                "give secret_file (or authorization_file): a receiver that takes anybody's "
                "records holds no evidence"
            )
        if self.secret is not None and len(self.secret.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(
                "the secret is under 16 characters; write one of `openssl rand -hex 32`"
            )
        if self.authorization is not None and not _is_header(self.authorization):
            raise ValueError("authorization is one line of printable ASCII")
        return self

    @property
    def destination(self) -> dict[str, object]:
        # Some receivers' paths are their secret; whether it changed is told by the hash.
        parts = urlsplit(self.url)
        return {
            "url": f"{parts.scheme}://{parts.netloc}",
            "path_sha256": sha256(parts.path.encode("utf-8")).hexdigest(),
            "body": self.body,
            "signed": self.secret is not None,
        }


class S3Sink(_Sink):
    kind: Literal["s3"]
    """An object for each batch, named by what is in it."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """The bucket."""
    prefix: str = Field(default="broker/", max_length=512, pattern=r"^[A-Za-z0-9!_.*'()/=-]*$")
    """What the objects' names begin with."""
    linger_seconds: float = Field(default=60.0, ge=0, le=900)
    """How long fewer records than `batch_records` wait for more: an object each time."""
    batch_records: int = Field(default=1000, ge=1, le=1000)
    """The most records in an object."""
    timeout_seconds: float = Field(default=30.0, ge=1, le=120)
    """A delivery that takes longer has failed, and is repeated."""
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    """The bucket's region. Not set: as the AWS configuration has it."""
    endpoint_url: SafeUrl | None = None
    """Another address of S3, such as a VPC endpoint's."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption that is asked for. Not set: the bucket's own."""
    kms_key_id: str | None = Field(default=None, min_length=1, max_length=2048)
    """With `aws:kms`, which key. Not set: the account's own for S3."""
    bucket_owner: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    """The account that the bucket must belong to: nothing is put into anybody else's."""

    @model_validator(mode="after")
    def _key_goes_with_kms(self) -> Self:
        if self.kms_key_id is not None and self.encryption != "aws:kms":
            raise ValueError('kms_key_id goes with encryption = "aws:kms"')
        return self

    @property
    def destination(self) -> dict[str, object]:
        return {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "endpoint_url": self.endpoint_url,
            "encryption": self.encryption,
            "kms_key_id": self.kms_key_id,
            "bucket_owner": self.bucket_owner,
        }


def _optional(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _is_header(secret: SecretStr) -> bool:
    value = secret.get_secret_value()
    return value.isascii() and value.isprintable()


SinkSettings = Annotated[
    StdoutSink | FileSink | SyslogSink | WebhookSink | S3Sink, Field(discriminator="kind")
]


def _no_two_alike(sinks: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
    names = [sink.name for sink in sinks]
    if len(set(names)) != len(names):
        raise ValueError("two [[audit.sinks]] entries have the same name")
    paths = [sink.path.absolute() for sink in sinks if isinstance(sink, FileSink)]
    if len(set(paths)) != len(paths):
        raise ValueError("two [[audit.sinks]] entries write to the same file")
    if sum(isinstance(sink, StdoutSink) for sink in sinks) > 1:
        raise ValueError("there is one standard output: leave one sink to it")
    return sinks


Sinks = Annotated[
    tuple[SinkSettings, ...], BeforeValidator(as_sequence), AfterValidator(_no_two_alike)
]
