"""Sinks from their settings: each kind's own configuration, format and description."""

# ruff: noqa: PLC0415 - OCSF's models take 200 ms to import: only where a sink uses them

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from broker import sink_settings as given
from broker.adapters.sinks.delivery import Delivering, SinkDelivery
from broker.adapters.sinks.files import FileSink, Rotation, StdoutSink
from broker.adapters.sinks.s3 import S3Config, S3Sink
from broker.adapters.sinks.sink import Format, Sink, native
from broker.adapters.sinks.syslog import SyslogConfig, SyslogSink, TlsFiles
from broker.adapters.sinks.webhook import WebhookConfig, WebhookSink
from broker.adapters.store.engine import Database
from broker.adapters.store.sinks import SinkEntry, SqlSinks
from broker.adapters.telemetry.instruments import Instruments
from broker.settings import Settings


def delivery(settings: Settings, database: Database, instruments: Instruments) -> SinkDelivery:
    """The delivery to every sink of the settings, not started. Raises StartupError for certificates
    that can't be used.
    """
    sinks = deliveries(settings.audit.sinks, settings.server.public_url)
    return SinkDelivery(SqlSinks(database), sinks, instruments)


def deliveries(sinks: Sequence[given.SinkSettings], public_url: str) -> list[Delivering]:
    """Every sink of the settings, ready to be started. Raises StartupError for certificates that
    can't be used.
    """
    # As syslog has it: in ASCII (RFC 5424 section 6.2.4).
    host = (urlsplit(public_url).hostname or "-").encode("idna").decode("ascii")
    return [
        Delivering(
            entry=entry(sink),
            sink=_sink(sink, host),
            format=_format(sink),
            batch_records=sink.batch_records,
            linger=sink.linger_seconds,
            seconds=sink.timeout_seconds,
        )
        for sink in sinks
    ]


def entry(sink: given.SinkSettings) -> SinkEntry:
    """What the database and the log are told of a sink."""
    description = {"kind": sink.kind, "format": sink.format, **sink.destination}
    return SinkEntry(sink.name, description, sink.start)


def _format(sink: given.SinkSettings) -> Format:
    if sink.format == "native":
        return native
    from broker.adapters.sinks import ocsf

    return ocsf.line


def _sink(sink: given.SinkSettings, host: str) -> Sink:
    match sink:
        case given.StdoutSink():
            return StdoutSink(sink.name, sink.timeout_seconds / 2)
        case given.FileSink():
            rotation = Rotation(sink.max_bytes, sink.keep) if sink.rotate else None
            return FileSink(sink.name, sink.path, rotation)
        case given.SyslogSink():
            return SyslogSink(_syslog(sink, host))
        case given.WebhookSink():
            return WebhookSink(_webhook(sink))
        case given.S3Sink():
            return S3Sink(sink.name, _s3(sink))


def _syslog(sink: given.SyslogSink, host: str) -> SyslogConfig:
    tls = TlsFiles(sink.ca_file, sink.certificate_file, sink.key_file) if sink.tls else None
    return SyslogConfig(sink.host, sink.port, tls, hostname=host, facility=sink.facility)


def _webhook(sink: given.WebhookSink) -> WebhookConfig:
    secret, authorization = sink.secret, sink.authorization
    return WebhookConfig(
        url=sink.url,
        seconds=sink.timeout_seconds,
        body=sink.body,
        secret=None if secret is None else secret.get_secret_value().encode("utf-8"),
        authorization=None if authorization is None else authorization.get_secret_value(),
    )


def _s3(sink: given.S3Sink) -> S3Config:
    return S3Config(
        bucket=sink.bucket,
        prefix=sink.prefix,
        seconds=sink.timeout_seconds,
        region=sink.region,
        endpoint_url=sink.endpoint_url,
        encryption=sink.encryption,
        kms_key_id=sink.kms_key_id,
        bucket_owner=sink.bucket_owner,
    )
