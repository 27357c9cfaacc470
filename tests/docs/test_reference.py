"""The reference is what the code says: nothing is missing, and what is committed is current."""

from __future__ import annotations

import pytest

from broker.adapters.metrics import METRICS
from broker.audit.record import EventType
from broker.web.problems import STATUS
from tools.reference import commands_page, http_page, settings_page
from tools.reference.__main__ import FOLDER, PAGES
from tools.reference.markdown import Incomplete, require_same


def text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert text(name) == PAGES[name](), f"run `make reference`: {name} is not what the code says"


def test_every_page_of_the_folder_is_written_from_the_code() -> None:
    assert {path.name for path in FOLDER.glob("*.md")} == set(PAGES)


def test_nothing_is_missing() -> None:
    settings = text("settings.md")
    for key in settings_page.every_key():
        assert f"`{key.partition('.')[2]}`" in settings, key
    commands = text("cli.md")
    for one in (*commands_page.client_commands(), *commands_page.server_commands()):
        _, found, after = commands.partition(f"### `broker {one.name}` {{")
        assert found, one.name
        section = after.partition("\n### ")[0]
        for action in one.parser._actions:
            for flag in action.option_strings:
                assert flag in section or flag in ("-h", "--help"), (one.name, flag)
    routes = text("http-api.md")
    for operation in http_page.operations():
        assert f"`{operation.name}`" in routes, operation.name
    for page, names in {
        "events.md": [kind.value for kind in EventType],
        "errors.md": STATUS,
        "metrics.md": [metric.name for metric in METRICS],
    }.items():
        for name in names:
            assert f"`{name}`" in text(page), name


def test_what_is_written_by_hand_must_name_everything() -> None:
    require_same("codes", ["a", "b"], {"a": 1, "b": 2})
    with pytest.raises(Incomplete, match=r"missing \['b'\], no longer there \['c'\]"):
        require_same("codes", ["a", "b"], {"a": 1, "c": 2})
