"""Every metric that the server exports, by name, kind, labels and meaning.

Owns the declarations alone: `METRICS` is what the reference, the dashboard and
the alert rules are checked against. Does not own how they are counted
(`telemetry/instruments`).

Labels are bounded: roles as the access policy in force names them, providers,
copies and sinks as the settings do, codes of the broker's own list. Never what
a caller sent, and never who: a person in a label would make the time series
database a second, unprotected audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

# Deciding takes a tenth of a millisecond, an impatient caller waits thirty seconds.
_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. `buckets`: a histogram's upper bounds, in the unit of its name."""

    name: str
    type: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> frozenset[str]:
        """The names that a query may use."""
        if self.type == "histogram":
            return frozenset(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return frozenset({self.name})


# --- Issuance ----------------------------------------------------------------------------

CREDENTIAL_REQUESTS = Metric(
    "broker_credential_requests_total",
    "counter",
    "Requests for credentials by outcome: issued, or the code of the refusal.",
    ("outcome",),
)
ISSUANCES = Metric(
    "broker_issuances_total",
    "counter",
    "Requests for credentials of a known caller, by role and outcome: issued, denied, failed (at "
    "STS), withheld (revoked or too late), unrecorded (the log was unavailable), error (a fault of "
    "the broker). A role that the access policy does not have counts as (unknown).",
    ("role", "outcome"),
)
ISSUANCE_DURATION = Metric(
    "broker_issuance_duration_seconds",
    "histogram",
    "Time from a request for credentials to its answer, where credentials were given.",
    buckets=_SECONDS,
)
ISSUANCE_STAGE_DURATION = Metric(
    "broker_issuance_stage_duration_seconds",
    "histogram",
    "Time in each stage of a request for credentials: authenticate, decide, audit_requested, sts "
    "(each call), audit_concluded.",
    ("stage",),
    _SECONDS,
)
DENIALS = Metric(
    "broker_denials_total",
    "counter",
    "Refusals answered on any path, by their stable code.",
    ("code",),
)
RATE_LIMITED = Metric(
    "broker_rate_limited_total",
    "counter",
    "Attempts refused by a limit, by the limit's name.",
    ("limit",),
)
ISSUANCES_OPEN = Metric(
    "broker_issuances_open",
    "gauge",
    "Intents in the database without an outcome, of all replicas.",
)
ISSUANCES_ORPHANED = Metric(
    "broker_issuances_orphaned_total",
    "counter",
    "Intents that this process closed as orphaned: credentials nobody received may exist.",
)

# --- People and jobs ---------------------------------------------------------------------

LOGINS = Metric(
    "broker_logins_total",
    "counter",
    "Sign-ins through identity providers, by outcome: succeeded, failed, suspended. Where no "
    "attempt of this browser was found the provider is (unknown).",
    ("provider", "outcome"),
)
SECOND_FACTORS = Metric(
    "broker_second_factor_verifications_total",
    "counter",
    "Second factors shown rightly, enrolments included.",
)
SECOND_FACTOR_FAILURES = Metric(
    "broker_second_factor_failures_total",
    "counter",
    "Second factors shown wrongly, by reason: wrong_code, replayed, wrong_enrolment_code, "
    "wrong_recovery_code.",
    ("reason",),
)
SECOND_FACTOR_LOCKS = Metric(
    "broker_second_factor_locks_total",
    "counter",
    "Times that an account's second factor was locked after wrong codes.",
)
CI_EXCHANGES = Metric(
    "broker_ci_exchanges_total",
    "counter",
    "CI jobs' tokens by outcome: admitted, or the code of the refusal.",
    ("outcome",),
)

# --- The log -----------------------------------------------------------------------------

AUDIT_QUEUE = Metric(
    "broker_audit_queue_records", "gauge", "Records that wait to be flushed, in this process."
)
AUDIT_FLUSH_RECORDS = Metric(
    "broker_audit_flush_records", "histogram", "Records in each group commit.", buckets=_RECORDS
)
AUDIT_FLUSH_DURATION = Metric(
    "broker_audit_flush_duration_seconds",
    "histogram",
    "Time of each group commit, those that failed included.",
    buckets=_SECONDS,
)
AUDIT_FLUSH_FAILURES = Metric(
    "broker_audit_flush_failures_total", "counter", "Group commits that failed."
)
AUDIT_HEAD = Metric(
    "broker_audit_head_sequence", "gauge", "Sequence number of the newest audit record."
)
AUDIT_CHECKPOINT_TIMESTAMP = Metric(
    "broker_audit_checkpoint_timestamp_seconds",
    "gauge",
    "When the newest checkpoint was signed, in seconds since 1970; 0 where none was yet.",
)
AUDIT_UNSIGNED = Metric(
    "broker_audit_unsigned_records",
    "gauge",
    "Audit records that no checkpoint covers yet.",
)
AUDIT_COPY_FAILING = Metric(
    "broker_audit_copy_failing",
    "gauge",
    "1 while the newest checkpoint could not be copied there, by the copy's setting.",
    ("copy",),
)
SINK_LAG = Metric(
    "broker_sink_lag_records",
    "gauge",
    "Audit records that a sink has not been sent yet.",
    ("sink",),
)
SINK_FAILURES = Metric(
    "broker_sink_failures_total",
    "counter",
    "Deliveries to a sink that failed and are tried again.",
    ("sink",),
)

# --- AWS STS -----------------------------------------------------------------------------

STS_REQUESTS = Metric(
    "broker_sts_requests_total",
    "counter",
    "Requests sent to STS, each attempt by itself: ok, throttled, refused, server_fault, not_sent, "
    "cut (no answer, so that STS may have minted), odd (an answer not to be trusted).",
    ("result",),
)
STS_THROTTLES = Metric("broker_sts_throttles_total", "counter", "Requests that STS throttled.")
STS_ERRORS = Metric(
    "broker_sts_errors_total",
    "counter",
    "Error answers of STS by AWS's code; a code that the broker does not know counts as other.",
    ("code",),
)

# --- Database, process -------------------------------------------------------------------

READY = Metric("broker_ready", "gauge", "1 where /readyz would say yes at the time of the scrape.")
UNREACHABLE = Metric(
    "broker_dependencies_unreachable",
    "gauge",
    "Identity providers and partitions of AWS that could not be connected to when last tried.",
)
POOL_SIZE = Metric(
    "broker_database_pool_size", "gauge", "Database connections that this process may open."
)
POOL_IN_USE = Metric("broker_database_pool_in_use", "gauge", "Database connections at work.")
POOL_WAIT_DURATION = Metric(
    "broker_database_pool_wait_duration_seconds",
    "histogram",
    "Waits for a database connection where all were at work.",
    buckets=_SECONDS,
)
HTTP_REQUESTS = Metric(
    "broker_http_requests_total",
    "counter",
    "HTTP requests by class of status: 2xx, 3xx, 4xx, 5xx; none where the client left first.",
    ("status",),
)
BUILD_INFO = Metric(
    "broker_build_info", "gauge", "Always 1: what is running.", ("version", "python")
)
# prometheus-client's own, from /proc: there on Linux alone.
PROCESS = (
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
    ),
    Metric(
        "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."
    ),
    Metric("process_open_fds", "gauge", "Number of open file descriptors."),
    Metric("process_max_fds", "gauge", "Maximum number of open file descriptors."),
)

METRICS: Final[tuple[Metric, ...]] = (
    CREDENTIAL_REQUESTS,
    ISSUANCES,
    ISSUANCE_DURATION,
    ISSUANCE_STAGE_DURATION,
    DENIALS,
    RATE_LIMITED,
    ISSUANCES_OPEN,
    ISSUANCES_ORPHANED,
    LOGINS,
    SECOND_FACTORS,
    SECOND_FACTOR_FAILURES,
    SECOND_FACTOR_LOCKS,
    CI_EXCHANGES,
    AUDIT_QUEUE,
    AUDIT_FLUSH_RECORDS,
    AUDIT_FLUSH_DURATION,
    AUDIT_FLUSH_FAILURES,
    AUDIT_HEAD,
    AUDIT_CHECKPOINT_TIMESTAMP,
    AUDIT_UNSIGNED,
    AUDIT_COPY_FAILING,
    SINK_LAG,
    SINK_FAILURES,
    STS_REQUESTS,
    STS_THROTTLES,
    STS_ERRORS,
    READY,
    UNREACHABLE,
    POOL_SIZE,
    POOL_IN_USE,
    POOL_WAIT_DURATION,
    HTTP_REQUESTS,
    BUILD_INFO,
    *PROCESS,
)
# Served to anybody where the metrics have no port of their own: numbers that name nothing.
PUBLIC: Final = (CREDENTIAL_REQUESTS,)
