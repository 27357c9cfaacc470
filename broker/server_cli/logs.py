"""The server's log: one JSON object a line on stderr, whoever writes it.

Owns the form of a line, and what foreign loggers may say. Does not own what is logged.

A line has `time`, `level`, `event`, and within a request `request_id` (and `trace_id`
where it is traced). Secrets stay out in three ways: our own lines are written field by
field from values that are none; foreign loggers stay at WARNING whatever our level is,
since at DEBUG botocore prints STS bodies, drivers print parameters and HTTP clients full
URLs; and tracebacks come without local variables.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Final

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str) -> None:
    """For the whole process; again replaces what was."""
    # Without local variables: frames hold bearer tokens, settings and credentials.
    exceptions = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    as_json = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*chain, exceptions, as_json],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write a line: threads don't get between a line and its end.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.addFilter(_may_be_told)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*chain, structlog.stdlib.add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, exceptions, as_json],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("broker").setLevel(_LEVELS[level])
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # of text, as sys.stderr is
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """A record that can't be formatted: logging itself would print its arguments."""
        told = {"event": "a log record is not well-formed", "level": "error", "logger": record.name}
        self.stream.write(f"{json.dumps(told)}\n")


def _may_be_told(record: logging.LogRecord) -> bool:
    """Also where a library has set a level of its own, below the root's."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == "broker"
