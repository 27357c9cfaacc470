"""Every set of values in `values/`, rendered once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.helm.rendering import Document, Job, Rendered, render

VALUES = {path.stem: path for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))}


def values_of(name: str) -> Document:
    found: Document = yaml.safe_load(VALUES[name].read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def renders() -> Mapping[str, Rendered]:
    jobs = [Job(values_of(name), lint=True) for name in VALUES]
    return dict(zip(VALUES, render(jobs), strict=True))


@pytest.fixture(params=VALUES)
def rendered(request: pytest.FixtureRequest, renders: Mapping[str, Rendered]) -> Rendered:
    """Each set in its turn."""
    return renders[request.param]
