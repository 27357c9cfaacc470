"""Finding and loading the settings of a server command, and its logging."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from broker.settings import Settings, load

_DEFAULT = Path("broker.toml")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def find_config(given: Path | None) -> Path | None:
    """The settings file: as given, else $BROKER_CONFIG, else ./broker.toml where it exists."""
    if given is not None:
        return given
    if named := os.environ.get("BROKER_CONFIG"):
        return Path(named)
    return _DEFAULT if _DEFAULT.exists() else None


def load_settings(given: Path | None) -> Settings:
    """Raises StartupError with a line for each fault."""
    settings = load(find_config(given))
    configure_logging(settings.server.log_level)
    return settings


def configure_logging(level: str) -> None:
    """JSON lines on stderr. Foreign loggers stay at WARNING whatever our own level is:
    at DEBUG botocore prints STS bodies, drivers print parameters, HTTP clients full URLs.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            # Without local variables: frames hold bearer tokens, settings and credentials.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
