"""The sinks of the audit log: what can be seen of them without delivering anything."""

from __future__ import annotations

from broker.adapters.store.engine import Database
from broker.adapters.store.sinks import SinkStanding, SqlSinks
from broker.server_cli.checks.check import Check, ok, warn
from broker.settings import Settings
from broker.sink_settings import FileSink, SyslogSink


async def sink_checks(settings: Settings, database: Database) -> list[Check]:
    """Raises AuditUnavailable where the database is out."""
    configured = {sink.name for sink in settings.audit.sinks}
    checks = _unsafe(settings)
    for standing in await SqlSinks(database).standings():
        checks.append(_check(standing, in_settings=standing.name in configured))
    return checks


def _unsafe(settings: Settings) -> list[Check]:
    checks = []
    for sink in settings.audit.sinks:
        if isinstance(sink, SyslogSink) and not sink.tls:
            checks.append(
                warn(
                    f"sink {sink.name}",
                    f"sends records to {sink.host} in plain TCP: whoever is on the way reads and "
                    "changes them",
                    "set tls = true, and give the receiver a certificate",
                )
            )
        if isinstance(sink, FileSink) and not sink.path.parent.is_dir():
            message = f"there is no folder {sink.path.parent}"
            checks.append(warn(f"sink {sink.name}", message, "make it, for the broker to write"))
    return checks


def _check(standing: SinkStanding, *, in_settings: bool) -> Check:
    name = f"sink {standing.name}"
    if not in_settings:
        return warn(
            name,
            f"stands at record {standing.position} and is in no [[audit.sinks]]",
            f"put it back, where it goes on there; or run `broker sinks forget {standing.name}`",
        )
    if standing.failures:
        return warn(
            name,
            f"{standing.lag} records behind; the last of {standing.failures} failures: "
            f"{standing.last_error}",
            "repair the receiver: delivery goes on by itself, and nothing is skipped",
        )
    return ok(name, f"at record {standing.position}, {standing.lag} behind")
