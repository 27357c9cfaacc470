"""`reference/metrics.md`: every metric that the server exports, as `broker/adapters/metrics.py`
declares it.
"""

from __future__ import annotations

from broker.adapters.metrics import METRICS, PUBLIC
from tools.reference.markdown import code, page, table

_INTRODUCTION = """
Set `metrics_port` in [`[server]`](settings.md#server): then all of this is at `/metrics` on that port, in Prometheus'
text format. Without it the public port shows no more than {public}. No metric names a person.

A counter counts from the start of its process, so graph `rate()` of it. A histogram has `_bucket`, `_sum` and `_count`.
"""


def render() -> str:
    public = ", ".join(code(metric.name) for metric in PUBLIC)
    rows = [
        [code(one.name), one.type, ", ".join(code(label) for label in one.labels), one.help]
        for one in METRICS
    ]
    return page(
        "Metrics",
        _INTRODUCTION.format(public=public),
        table(["Metric", "Kind", "Labels", "What it tells"], rows),
    )
