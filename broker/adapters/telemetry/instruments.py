"""The metrics as they are counted, in a registry of their own for each application.

Owns the series that are kept bound (looking one up by its labels costs more than
counting does) and the text that Prometheus reads. Does not own names and meanings
(`adapters/metrics`), nor who counts when.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from broker import __version__
from broker.adapters import metrics
from broker.adapters.metrics import Metric
from broker.adapters.sts.refusal import KNOWN_CODES
from broker.adapters.telemetry.accumulators import Spreads, Tallies, Tally
from broker.errors import BrokerError
from broker.identity import throttle
from broker.identity.throttle import Limit

UNKNOWN = "(unknown)"
OTHER = "other"
# More roles than any policy has had while one process ran: beyond it, memory has a bound too.
_MOST_ROLES = 4096

STAGES = ("authenticate", "decide", "audit_requested", "sts", "audit_concluded")
ISSUANCE_OUTCOMES = ("issued", "denied", "failed", "withheld", "unrecorded", "error")
STS_RESULTS = ("ok", "throttled", "refused", "server_fault", "not_sent", "cut", "odd")
FACTOR_FAILURES = ("wrong_code", "replayed", "wrong_enrolment_code", "wrong_recovery_code")
STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Instruments:
    """One an application; nothing is shared between two of them in one process.

    The event loop alone calls its methods. What has `labels` may be counted by other threads.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Of each issuance, and so counted without a lock.
        self.credential_requests = self._tallies(metrics.CREDENTIAL_REQUESTS)
        self.issuances = self._tallies(metrics.ISSUANCES)
        self.issuance_duration = self._spreads(metrics.ISSUANCE_DURATION).at()
        stages = self._spreads(metrics.ISSUANCE_STAGE_DURATION)
        self.stages = {stage: stages.at(stage) for stage in STAGES}
        requests = self._tallies(metrics.STS_REQUESTS)
        self.sts_requests = {result: requests.at(result) for result in STS_RESULTS}
        answers = self._tallies(metrics.HTTP_REQUESTS)
        self._answers = [answers.at(status) for status in STATUS_CLASSES]
        self.audit_flush_records = self._spreads(metrics.AUDIT_FLUSH_RECORDS).at()
        self.audit_flush_duration = self._spreads(metrics.AUDIT_FLUSH_DURATION).at()
        self.pool_wait_duration = self._spreads(metrics.POOL_WAIT_DURATION).at()
        self.denials = self._counter(metrics.DENIALS)
        self.rate_limited = self._counter(metrics.RATE_LIMITED)
        self.issuances_open = self._gauge(metrics.ISSUANCES_OPEN)
        self.issuances_orphaned = self._counter(metrics.ISSUANCES_ORPHANED)
        self.logins = self._counter(metrics.LOGINS)
        self.second_factors = self._counter(metrics.SECOND_FACTORS)
        self.second_factor_failures = self._counter(metrics.SECOND_FACTOR_FAILURES)
        self.second_factor_locks = self._counter(metrics.SECOND_FACTOR_LOCKS)
        self.ci_exchanges = self._counter(metrics.CI_EXCHANGES)
        self.audit_queue = self._gauge(metrics.AUDIT_QUEUE)
        self.audit_flush_failures = self._counter(metrics.AUDIT_FLUSH_FAILURES)
        self.audit_head = self._gauge(metrics.AUDIT_HEAD)
        self.audit_checkpoint_timestamp = self._gauge(metrics.AUDIT_CHECKPOINT_TIMESTAMP)
        self.audit_unsigned = self._gauge(metrics.AUDIT_UNSIGNED)
        self.audit_copy_failing = self._gauge(metrics.AUDIT_COPY_FAILING)
        # `sink_lag.labels(name).set(n)` and `sink_failures.labels(name).inc()`.
        self.sink_lag = self._gauge(metrics.SINK_LAG)
        self.sink_failures = self._counter(metrics.SINK_FAILURES)
        self.sts_throttles = self._counter(metrics.STS_THROTTLES)
        self.sts_errors = self._counter(metrics.STS_ERRORS)
        self.ready = self._gauge(metrics.READY)
        self.unreachable = self._gauge(metrics.UNREACHABLE)
        self.pool_size = self._gauge(metrics.POOL_SIZE)
        self.pool_in_use = self._gauge(metrics.POOL_IN_USE)
        self._gauge(metrics.BUILD_INFO).labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self._registry)
        self._begin_at_zero()
        self._by_role: dict[tuple[str, str], Tally] = {}
        self._by_outcome: dict[str, Tally] = {}

    # --- Counting ------------------------------------------------------------------------

    def issuance(self, role: str | None, outcome: str) -> None:
        """`role` is a name of the access policy's, or None for one that it does not have."""
        key = (UNKNOWN if role is None else role, outcome)
        child = self._by_role.get(key)
        if child is None:
            if len(self._by_role) >= _MOST_ROLES * len(ISSUANCE_OUTCOMES):
                key = (f"({OTHER})", outcome)
            child = self._by_role[key] = self.issuances.at(*key)
        child.inc()

    def credentials_answered(self, outcome: str) -> None:
        """`outcome` is "issued", or the code of the refusal."""
        child = self._by_outcome.get(outcome)
        if child is None:
            child = self._by_outcome[outcome] = self.credential_requests.at(outcome)
        child.inc()

    def answered(self, status: int) -> None:
        """An HTTP request ended so; 0 where nothing was answered."""
        self._answers[status // 100 if 100 <= status < 600 else 0].inc()

    def sts_attempt(self, result: str, code: str | None) -> None:
        """See adapters.sts.exchange.Observe."""
        self.sts_requests[result].inc()
        if result == "throttled":
            self.sts_throttles.inc()
        if code is not None:
            # What AWS writes is not ours to make series of.
            self.sts_errors.labels(code if code in KNOWN_CODES else OTHER).inc()

    def flushed(self, records: int, seconds: float, *, failed: bool) -> None:
        """See adapters.store.journal_observer.JournalObserver."""
        self.audit_flush_records.observe(records)
        self.audit_flush_duration.observe(seconds)
        if failed:
            self.audit_flush_failures.inc()

    def orphaned(self, issuances: int) -> None:
        """See adapters.store.journal_observer.JournalObserver."""
        self.issuances_orphaned.inc(issuances)

    def copied(self, copy: str, failing: bool) -> None:
        """A copy of the newest checkpoint was tried."""
        self.audit_copy_failing.labels(copy).set(failing)

    def waited_for_connection(self, seconds: float) -> None:
        self.pool_wait_duration.observe(seconds)

    # --- Reading -------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(_WithoutCreated(self._registry))

    def public_exposition(self) -> bytes:
        """What anybody may read: numbers that name no role, provider or place."""
        names = [name for metric in metrics.PUBLIC for name in metric.series]
        return generate_latest(_WithoutCreated(self._registry.restricted_registry(names)))

    # --- Making --------------------------------------------------------------------------

    def _begin_at_zero(self) -> None:
        """A series that appears with its first event shows no increase: an alert would need two."""
        for code in sorted(codes_of(BrokerError)):
            self.denials.labels(code)
        for limit in vars(throttle).values():
            if isinstance(limit, Limit):
                self.rate_limited.labels(limit.name)
        self.credential_requests.at("issued")
        for reason in FACTOR_FAILURES:
            self.second_factor_failures.labels(reason)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self._registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self._registry)

    def _tallies(self, metric: Metric) -> Tallies:
        made = Tallies(metric)
        self._registry.register(made)
        return made

    def _spreads(self, metric: Metric) -> Spreads:
        made = Spreads(metric)
        self._registry.register(made)
        return made


def codes_of(kind: type[BrokerError]) -> set[str]:
    """The codes of a kind of refusal and of all kinds below it."""
    own = {kind.code} if "code" in vars(kind) else set()
    return own.union(*(codes_of(one) for one in kind.__subclasses__()))


class _WithoutCreated(Collector):
    """prometheus-client adds a `_created` series to every counter, as much again to store for what
    no graph here shows; its own switch for that is a global.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Family]:
        for family in self._collector.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family
