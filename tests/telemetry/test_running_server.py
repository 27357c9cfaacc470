"""What an operator sees of a running server: metrics, traces and log of one day of events."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from broker.adapters.metrics import AUDIT_COPY_FAILING, METRICS, SINK_LAG
from tests.e2e.processes import until
from tests.telemetry.conftest import COLLECTOR_KEY, PARENT, TRACE, Day, wait_for

Key = tuple[str, tuple[tuple[str, str], ...]]


def values(scrape: str) -> dict[Key, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }


def value(scrape: str, name: str, **labels: str) -> float:
    return values(scrape)[name, tuple(sorted(labels.items()))]


def test_every_declared_metric_is_in_the_scrape_and_no_other_is(day: Day):
    for metric in (AUDIT_COPY_FAILING, SINK_LAG):  # told of by tasks of their own
        scrape = wait_for(day, metric.name)
    found: dict[str, set[tuple[str, ...]]] = {}
    for name, labels in values(scrape):
        found.setdefault(name, set()).add(tuple(sorted(k for k, _ in labels if k != "le")))
    declared = {name: m for m in METRICS for name in m.series}
    assert found.keys() == declared.keys()
    for name, labels_seen in found.items():
        assert labels_seen == {tuple(sorted(declared[name].labels))}, name
    for metric in METRICS:
        kind = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}[metric.type]
        assert f"# TYPE {metric.name} {kind}\n" in scrape
        assert f"# HELP {metric.name} " in scrape


def test_the_day_is_counted_as_it_was(day: Day):
    scrape = day.scrape()
    assert value(scrape, "broker_issuances_total", role="data-reader", outcome="issued") == 1
    assert value(scrape, "broker_issuances_total", role="missing", outcome="failed") == 1
    # What was asked for is nowhere: anybody could fill the time series database with it.
    assert value(scrape, "broker_issuances_total", role="(unknown)", outcome="denied") == 1
    assert "no-such-role" not in scrape
    for stage in ("authenticate", "decide", "audit_requested", "sts", "audit_concluded"):
        name = "broker_issuance_stage_duration_seconds_count"
        assert value(scrape, name, stage=stage) >= 1
    assert value(scrape, "broker_issuance_duration_seconds_count") == 1
    assert value(scrape, "broker_logins_total", provider="corp", outcome="succeeded") == 3
    assert value(scrape, "broker_logins_total", provider="(unknown)", outcome="failed") == 1
    assert value(scrape, "broker_second_factor_failures_total", reason="wrong_code") == 5
    assert value(scrape, "broker_second_factor_locks_total") == 1
    assert value(scrape, "broker_second_factor_verifications_total") >= 2
    assert value(scrape, "broker_ci_exchanges_total", outcome="ci_token_rejected") == 1
    assert value(scrape, "broker_rate_limited_total", limit="device_address") >= 1
    for code in ("not_found", "aws_denied", "rate_limited", "ci_token_rejected"):
        assert value(scrape, "broker_denials_total", code=code) >= 1, code
    assert value(scrape, "broker_sts_throttles_total") == 1
    assert value(scrape, "broker_sts_errors_total", code="Throttling") == 1
    assert value(scrape, "broker_sts_errors_total", code="AccessDenied") == 1
    assert value(scrape, "broker_sts_requests_total", result="ok") >= 1
    assert value(scrape, "broker_audit_flush_records_count") >= 4
    assert value(scrape, "broker_audit_flush_failures_total") == 0
    assert value(scrape, "broker_audit_head_sequence") >= 10
    assert value(scrape, "broker_issuances_open") == 0
    assert value(scrape, "broker_ready") == 1
    assert value(scrape, "broker_database_pool_size") == 16


def test_a_copy_that_fails_is_told_from_one_that_does_not(day: Day):
    scrape = wait_for(day, "broker_audit_copy_failing{")
    good, bad = f"file:{day.folder}/outside/checkpoint", "file:/proc/broker/checkpoint"
    assert value(scrape, "broker_audit_copy_failing", copy=good) == 0
    assert value(scrape, "broker_audit_copy_failing", copy=bad) == 1


def test_nobody_is_in_the_metrics(day: Day):
    scrape = day.scrape()
    assert not re.search(r"alice|bob|@|\bp-[a-z2-7]{16}", scrape)
    for name, secret in day.secrets.items():
        assert secret not in scrape, name


def test_a_request_is_one_trace_from_the_caller_to_sts(day: Day):
    until(lambda: bool(day.collector.named("POST /v1/credentials")), "the request's span", 60)
    spans = [span for span in day.collector.spans if span.trace_id == TRACE]
    by_name = {span.name: span for span in spans}
    request = by_name["POST /v1/credentials"]
    assert request.parent_id == PARENT.split("-")[2]
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.route"] == "/v1/credentials"
    assert request.attributes["broker.role"] == "data-reader"
    assert request.attributes["broker.outcome"] == "issued"
    children = {"authenticate", "decide", "audit.requested", "sts.AssumeRole", "audit.issued"}
    assert children == {span.name for span in spans if span.parent_id == request.span_id}
    # By STS's request id CloudTrail has the call; by the issuance's, the audit log.
    sts = by_name["sts.AssumeRole"].attributes
    assert sts["aws.role_arn"] == "arn:aws:iam::111122223333:role/DataReader"
    export = (day.folder / "broker.db").read_bytes() + (day.folder / "broker.db-wal").read_bytes()
    for identifier in (
        sts["aws.request_id"],
        request.attributes["broker.issuance_id"],
        request.attributes["broker.request_id"],
    ):
        assert str(identifier).encode() in export
    # The log's lines of it are found by the trace.
    lines = [json.loads(line) for line in day.log if TRACE in line]
    assert request.attributes["broker.request_id"] in {line["request_id"] for line in lines}


def test_spans_hold_no_secret_and_nobody(day: Day):
    until(lambda: bool(day.collector.named("POST /v1/credentials")), "the request's span", 60)
    text = "\n".join(f"{span.name} {span.attributes}" for span in day.collector.spans)
    assert not re.search(r"alice|bob|@|127\.0\.0\.1", text)
    for name, secret in day.secrets.items():
        assert secret not in text, name
    assert {h["authorization"] for h in day.collector.headers} == {COLLECTOR_KEY}


def test_every_line_of_the_log_is_json_and_holds_no_secret_at_debug(day: Day):
    lines = day.log
    assert len(lines) > 40
    for line in lines:
        entry = json.loads(line)
        assert {"event", "level", "time"} <= entry.keys(), line
    requests = [e for e in map(json.loads, lines) if e["event"] == "request"]
    assert all(e["request_id"].startswith("req-") for e in requests)
    # What stdlib loggers of the broker say, below the level of foreign ones, and foreign ones.
    loggers = {e["logger"] for e in map(json.loads, lines) if "logger" in e}
    assert "broker.adapters.sts.client" in loggers
    whole = "\n".join(lines)
    for name, secret in day.secrets.items():
        assert secret not in whole, name
