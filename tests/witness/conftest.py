"""The fixtures of a whole broker in process are the web tests' own."""

from __future__ import annotations

from tests.web.conftest import broker_url, settings

__all__ = ["broker_url", "settings"]
