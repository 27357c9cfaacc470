"""`broker sinks`: how far each sink of the audit log is; moving one, and forgetting one.

Owns the command. A running server goes on from wherever a sink was moved to;
each move is on record, as whoever could move a sink in silence could hide what
it should have got.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from broker.adapters.migrations import check_schema
from broker.adapters.store.engine import Database
from broker.adapters.store.sinks import SinkStanding, SqlSinks
from broker.audit.record import rfc3339
from broker.cli.terminal import clean
from broker.errors import AuditUnavailable, StartupError
from broker.server_cli import add_config_option
from broker.server_cli.configuration import load_settings
from broker.settings import Settings

T = TypeVar("T")
Place = int | Literal["now", "beginning"]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "sinks",
        help="how far the audit log's sinks are, and moving them",
        description="Show how far each sink of the audit log is, what it fails of and since when;"
        " move a sink's position, or forget a sink that the settings no longer have. Moving and"
        " forgetting are recorded.",
        epilog="examples: broker sinks   broker sinks move siem --to 12000",
    )
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="the list, for programs")
    parser.set_defaults(run=run, act=_show, name=None, to=None)
    actions = parser.add_subparsers(metavar="ACTION")
    move = actions.add_parser("move", help="deliver (again) what follows on a record")
    move.add_argument("name", metavar="NAME")
    move.add_argument(
        "--to",
        required=True,
        type=_place,
        metavar="SEQ|now|beginning",
        help="the last record that counts as delivered; `beginning` delivers all, `now` none",
    )
    move.set_defaults(act=_move)
    _add_config_option(move)
    forget = actions.add_parser("forget", help="drop the position of a sink that was taken out")
    forget.add_argument("name", metavar="NAME")
    forget.set_defaults(act=_forget)
    _add_config_option(forget)


def _add_config_option(action: argparse.ArgumentParser) -> None:
    """After the action too; what stands before it is not undone where it is not given here."""
    action.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.config)
    act = cast("Callable[[SqlSinks, argparse.Namespace], Coroutine[Any, Any, None]]", arguments.act)
    asyncio.run(_with_store(settings, lambda store: act(store, arguments)))
    return 0


async def _with_store(settings: Settings, work: Callable[[SqlSinks], Coroutine[Any, Any, T]]) -> T:
    database = Database.open(settings.database.url.get_secret_value(), pool_size=2)
    try:
        await check_schema(database)
        return await work(SqlSinks(database))
    except AuditUnavailable as fault:
        raise StartupError(f"the database can't be reached: {fault.log_detail}") from fault
    except (LookupError, ValueError) as refused:
        raise StartupError(str(refused)) from refused
    finally:
        await database.aclose()


async def _show(store: SqlSinks, arguments: argparse.Namespace) -> None:
    found = await store.standings()
    if arguments.json:
        print(json.dumps([as_json(one) for one in found], indent=2))
        return
    if not found:
        print("There are no sinks: nothing but the database has the audit log.")
    for one in found:
        print(clean(_line(one)))


async def _move(store: SqlSinks, arguments: argparse.Namespace) -> None:
    position = await store.move(arguments.name, arguments.to)
    print(f"{arguments.name} goes on after record {position}. This is on record.")


async def _forget(store: SqlSinks, arguments: argparse.Namespace) -> None:
    await store.forget(arguments.name)
    print(f"{arguments.name} is forgotten: put back, it starts as a new sink. This is on record.")


def as_json(one: SinkStanding) -> dict[str, object]:
    """For programs: these keys stay."""
    return {
        "name": one.name,
        "position": one.position,
        "lag": one.lag,
        "failures": one.failures,
        "failing_since": None if one.failing_since is None else rfc3339(one.failing_since),
        "last_error": one.last_error,
        "delivered_at": None if one.delivered_at is None else rfc3339(one.delivered_at),
        "holder": one.holder,
        "removed": one.removed,
        "destination": json.loads(one.description),
    }


def _line(one: SinkStanding) -> str:
    state = "up to date" if one.lag == 0 else f"{one.lag} records behind"
    if one.removed:
        state += ", not in the settings of the server that started last"
    elif one.failing_since is not None:
        since = rfc3339(one.failing_since)
        state += f", failed {one.failures} times since {since}: {one.last_error}"
    return f"{one.name}: at record {one.position}, {state}"


def _place(text: str) -> Place:
    if text == "now":
        return "now"
    if text == "beginning":
        return "beginning"
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise argparse.ArgumentTypeError("write a record's number, now or beginning")
