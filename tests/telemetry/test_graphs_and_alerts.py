"""The dashboard and the alert rules name what exists, and each alert says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.adapters.metrics import BUILD_INFO, METRICS
from broker.adapters.telemetry import instruments
from broker.errors import BrokerError
from tests.telemetry.promql import NotUnderstood, names_in

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "helm/broker/dashboards/broker.json"
RULES = ROOT / "helm/broker/rules/broker.yaml"
RUNBOOK = ROOT / "docs/operations/telemetry.md"
# What Prometheus adds to everything that it scrapes.
ADDED = frozenset({"instance", "job", "le"})
# The values that labels of a fixed set may have.
VALUES: dict[tuple[str, str], set[str]] = {
    ("broker_issuances_total", "outcome"): set(instruments.ISSUANCE_OUTCOMES),
    ("broker_issuance_stage_duration_seconds", "stage"): set(instruments.STAGES),
    ("broker_sts_requests_total", "result"): set(instruments.STS_RESULTS),
    ("broker_http_requests_total", "status"): set(instruments.STATUS_CLASSES),
    ("broker_logins_total", "outcome"): {"succeeded", "failed", "suspended"},
}
BY_SERIES = {name: metric for metric in METRICS for name in metric.series}


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str, str]]:
    """Where each stands, the expression, and the legend or summary that shows its labels."""
    found = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel.get("targets", ())
    ]
    return found + [(r["alert"], r["expr"], r["annotations"]["summary"]) for r in rules()]


@pytest.mark.parametrize(("where", "expression", "shown"), queries())
def test_a_query_names_metrics_and_labels_that_exist(where: str, expression: str, shown: str):
    named = names_in(expression)
    labels: set[str] = set(ADDED)
    for series, matchers in named.selectors:
        assert series in BY_SERIES, f"{where}: there is no {series}"
        metric = BY_SERIES[series]
        own = {*metric.labels, *ADDED}
        assert matchers.keys() <= own, f"{where}: {series} has no {matchers.keys() - own}"
        labels |= own
        for label, wanted in matchers.items():
            known = codes() if label == "code" else VALUES.get((metric.name, label))
            if known is not None:
                assert set(wanted.split("|")) <= known, f"{where}: {label} is never {wanted}"
    assert named.grouped <= labels, f"{where}: grouped by {named.grouped - labels}"
    used = set(re.findall(r"\{\{ *\$labels\.(\w+)", shown)) | set(
        re.findall(r"\{\{(\w+)\}\}", shown)
    )
    # What is summed up has no other label left to show.
    assert used <= (named.grouped or labels), f"{where}: shows {used}"


def codes() -> set[str]:
    return instruments.codes_of(BrokerError)


def test_what_is_counted_is_rated_and_what_is_measured_is_not():
    for where, expression, _ in queries():
        for series, _matchers in names_in(expression).selectors:
            kind = BY_SERIES[series].type
            rated = re.search(rf"(?:rate|increase)\({series}\b", expression) is not None
            assert rated == (kind != "gauge"), f"{where}: {series} is a {kind}"


def test_each_histogram_is_read_by_its_buckets():
    for where, expression, _ in queries():
        if "histogram_quantile" in expression:
            assert re.search(r"_bucket\b", expression), where
            assert re.search(r"sum by \(le\b", expression), where


def test_every_metric_of_the_broker_is_on_the_dashboard():
    shown = {
        BY_SERIES[series].name
        for panel in panels()
        for target in panel.get("targets", ())
        for series, _ in names_in(target["expr"]).selectors
    }
    # Made for a public port; what it says is in broker_issuances_total and broker_denials_total.
    assert {m.name for m in METRICS} - shown <= {
        "broker_credential_requests_total",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
    }
    assert BUILD_INFO.name in shown


def test_the_panels_stand_in_rows_and_none_over_another():
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == [
        *("Now", "Issuance", "Latency", "People and jobs", "Audit log", "AWS STS"),
        "Database and processes",
    ]
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = {one["name"] for one in dashboard()["templating"]["list"]}
    text = DASHBOARD.read_text("utf-8")
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used <= variables, used - variables


def test_each_alert_has_a_chapter_that_says_what_to_do():
    chapters = re.split(r"^### ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    by_title = {chapter.partition("\n")[0].strip(): chapter for chapter in chapters}
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert ROOT / path == RUNBOOK
        assert anchor == rule["alert"].lower()
        chapter = by_title[rule["alert"]]
        assert "Do:" in chapter, rule["alert"]
    assert {title for title in by_title if title.startswith("Broker")} == set(names)


@pytest.mark.parametrize(
    "expression",
    [
        "rate(broker_x_total[5m]",
        "irate(broker_x_total[5m])",
        "sum by (role) (rate({outcome='x'}[5m]))",
        "broker_x_total{role=unquoted}",
        "5 > 3",
        "broker_x @ 5",
    ],
)
def test_an_expression_that_is_not_understood_is_refused(expression: str):
    with pytest.raises(NotUnderstood):
        names_in(expression)


def test_the_names_in_an_expression_are_all_found():
    found = names_in(
        'sum by (role) (rate(a_total{code=~"x|y",b!="c"}[5m])) / on (role) max(b_total) > 0.5 or c'
    )
    assert found.selectors == [("a_total", {"code": "x|y", "b": "c"}), ("b_total", {}), ("c", {})]
    assert found.grouped == {"role"}
