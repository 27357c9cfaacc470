"""Finding and loading the settings of a server command."""

from __future__ import annotations

import os
from pathlib import Path

from broker.server_cli.logs import configure_logging
from broker.settings import Settings, load

_DEFAULT = Path("broker.toml")


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
