"""What the server's log says of a fault: where, and never with what."""

from __future__ import annotations

import subprocess
import sys

FAULT = """
import structlog
from broker.server_cli.logs import configure_logging

configure_logging("error")

def answer(authorization):
    raise RuntimeError("broke")

try:
    answer("Bearer canary-token")
except RuntimeError:
    structlog.get_logger("broker.web").exception("crashed")
"""


def test_a_traceback_in_the_log_holds_no_local_variable():
    done = subprocess.run(
        [sys.executable, "-c", FAULT], capture_output=True, text=True, timeout=60, check=True
    )
    assert '"crashed"' in done.stderr
    assert "RuntimeError" in done.stderr
    assert "answer" in done.stderr
    assert "canary-token" not in done.stderr
