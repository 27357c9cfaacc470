"""What the server's log says of a fault: where, and never with what."""

from __future__ import annotations

import json
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


FOREIGN = """
import logging
import warnings

import structlog
from broker.server_cli.logs import configure_logging

configure_logging("debug")
structlog.contextvars.bind_contextvars(request_id="req-1")
chatty = logging.getLogger("botocore.parsers")
chatty.setLevel(logging.DEBUG)
chatty.debug("canary-body %s", "canary-argument")
chatty.warning("slow %s", "down")
logging.getLogger("broker.adapters.x").debug("of our own")
logging.getLogger("uvicorn.error").error("not well-formed %d", "canary-argument")
try:
    raise RuntimeError("broke")
except RuntimeError:
    logging.getLogger("asyncio").exception("never retrieved")
warnings.warn("old", DeprecationWarning, stacklevel=1)
"""


def test_foreign_loggers_write_json_and_no_more_than_warnings():
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", FOREIGN],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("botocore.parsers", "warning"),
        ("broker.adapters.x", "debug"),
        ("uvicorn.error", "error"),
        ("asyncio", "error"),
        ("py.warnings", "warning"),
    ]
    assert lines[0]["event"] == "slow down"
    assert all(line["request_id"] == "req-1" for line in lines if line["logger"] != "uvicorn.error")
    assert lines[3]["exception"][0]["exc_type"] == "RuntimeError"
    assert "canary" not in done.stderr
