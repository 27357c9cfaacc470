"""`broker why ROLE`: the decision as it would fall now, and what would change it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote, urlencode

from broker.cli import answers, person, server
from broker.cli.cached import Wanted
from broker.cli.command import Command, add_wanted, wanted
from broker.cli.session import Session
from broker.cli.terminal import clean, clean_lines, for_people, local_time

_Members = dict[str, object]


def configure(parser: argparse.ArgumentParser) -> None:
    add_wanted(parser)
    about = parser.add_mutually_exclusive_group()
    about.add_argument(
        "--principal",
        metavar="PERSON",
        help="somebody else: provider/e-mail, or a principal id (auditors and admins)",
    )
    about.add_argument(
        "--workload",
        metavar="NAME",
        help="a CI job that this entry of the access policy lets in (auditors and admins)",
    )
    parser.add_argument(
        "--address", metavar="IP", help="as if asked from there (default: here, or their login)"
    )
    parser.add_argument("--json", action="store_true", help="the broker's answer, for programs")


def why(arguments: argparse.Namespace) -> int:
    """GET /v1/roles/{name}/explain. 0 whichever way the decision falls."""
    asked = wanted(arguments)
    target = f"/v1/roles/{quote(asked.role, safe='')}/explain"
    query = urlencode(_query(asked, arguments))
    session = Session(server.find(), debug=arguments.debug)
    found = session.get(f"{target}?{query}" if query else target)
    if arguments.json:
        print(json.dumps(found))
        return 0
    for line in _lines(found):
        print(line)
    return 0


def _query(asked: Wanted, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    query = [("set", f"{name}={value}") for name, value in asked.parameters.items()]
    if asked.duration is not None:
        query.append(("duration", str(asked.duration)))
    if asked.reason is not None:
        query.append(("reason", asked.reason))
    if arguments.principal is not None:
        query.append(("principal", person.anybody(arguments.principal)))
    if arguments.workload is not None:
        query.append(("workload", arguments.workload))
    if arguments.address is not None:
        query.append(("address", arguments.address))
    return query


def _lines(found: _Members) -> Iterator[str]:
    yield from _heading(found)
    yield ""
    if found.get("allowed") is True:
        yield f"ALLOWED by {_entry(found.get('matched'))}"
    else:
        code = clean(answers.text(found, "code"), 64)
        yield f"REFUSED {code}: {clean(found.get('detail') or '')}"
        if found.get("matched"):
            yield f"    {_entry(found['matched'])} gives the role; this stands in the way"
        yield from _near_misses(answers.objects(found, "near_misses"))
    yield from _duration(found.get("duration"))
    if found.get("allowed") is True:
        yield from _sent(found)


def _heading(found: _Members) -> Iterator[str]:
    who = found.get("principal")
    who = who if isinstance(who, dict) else {}
    groups = who.get("groups")
    joined = ", ".join(map(str, groups)) if isinstance(groups, list) and groups else "none"
    account = f"{found.get('account_id')} {found.get('account_name') or ''}".strip()
    rows = [
        ("who", f"{who.get('handle')} ({who.get('id')})"),
        ("groups", joined),
        ("role", f"{found.get('role')} ({found.get('role_arn')})"),
        ("account", account),
        ("from", found.get("address") or "an unknown address"),
        ("at", f"{_time(found.get('now'))}, policy version {found.get('policy_version')}"),
    ]
    assumed = found.get("assumed")
    if isinstance(assumed, list):
        rows += [("assumed", text) for text in assumed]
    for name, value in rows:
        yield f"{name + ':':<10}{clean(value)}"


def _near_misses(misses: list[_Members]) -> Iterator[str]:
    if not misses:
        return
    yield ""
    yield "NEAREST ENTRIES"
    for miss in misses:
        yield f"    {_entry(miss.get('entry'))}"
        for place, unmet in enumerate(answers.objects(miss, "failed")):
            condition = clean(unmet.get("condition"), 40)
            mark = "fails" if place == 0 else "and  "
            yield f"        {mark} {condition}: needs {clean(unmet.get('satisfied_by'))}"


def _duration(duration: object) -> Iterator[str]:
    if not isinstance(duration, dict):
        return
    granted, bound_by = duration.get("granted"), duration.get("bound_by")
    yield ""
    given = _seconds(granted) if granted is not None else "nothing"
    yield f"DURATION {given}, bound by {clean(bound_by, 40)}"
    limits = answers.objects(duration, "limits")
    width = max((len(clean(limit.get("name"), 40)) for limit in limits), default=0)
    marked = False
    for limit in limits:
        name = clean(limit.get("name"), 40)
        binds = not marked and limit.get("name") == bound_by
        marked = marked or binds
        yield f"  {'>' if binds else ' '} {name:<{width}}  {_seconds(limit.get('seconds'))}"


def _sent(found: _Members) -> Iterator[str]:
    """What STS would be asked for."""
    yield ""
    policy = found.get("session_policy")
    if policy is None:
        yield "SESSION POLICY none: all that the role and its managed policies allow"
    else:
        yield f"SESSION POLICY ({found.get('session_policy_characters')} of 2048 characters)"
        written = json.dumps(policy, indent=2, ensure_ascii=True)
        for line in clean_lines(written).splitlines():
            yield f"    {line}"
    yield from _list("MANAGED POLICIES", found.get("managed_policies"))
    yield from _list("BY WAY OF", found.get("via"))
    tags, transitive = found.get("tags"), found.get("transitive_tags")
    if isinstance(tags, dict) and tags:
        yield ""
        yield "TAGS"
        width = max(len(clean(key, 128)) for key in tags)
        for key, value in tags.items():
            on = isinstance(transitive, list) and key in transitive
            yield f"    {clean(key, 128):<{width}}  {clean(value)}{'  (transitive)' if on else ''}"
    yield ""
    yield f"SOURCE IDENTITY {clean(found.get('source_identity'), 64)}"
    yield f"SESSION NAME    {clean(found.get('session_name'), 64)}"


def _list(heading: str, values: object) -> Iterator[str]:
    if isinstance(values, list) and values:
        yield ""
        yield heading
        for value in values:
            yield f"    {clean(value)}"


def _entry(entry: object) -> str:
    """`entitlement group corp/sre (line 7)`, or `grant g-...`."""
    if not isinstance(entry, dict):
        return "an entry"
    if "grant_id" in entry:
        return clean(f"grant {entry['grant_id']}, given by {entry.get('granted_by')}")
    return clean(f"entitlement {entry.get('entitlement')} (line {entry.get('line')})")


def _seconds(value: object) -> str:
    return for_people(value) if type(value) is int and value >= 0 else "-"


def _time(value: object) -> str:
    try:
        return local_time(datetime.fromisoformat(str(value)))
    except ValueError:
        return str(value)


COMMANDS = {
    "why": Command(
        "Why you may have a role now, or not: the decision as it would fall, every limit, the "
        "session policy and tags; for a refusal, the nearest entries and what each lacks. Nothing "
        "is issued. Auditors and admins may ask about anybody, and about the jobs of a workload.",
        "  broker why data-reader --set bucket=reports\n"
        "  broker why admin --principal corp/alice@example.com\n"
        "  broker why data-reader --workload deploy\n"
        "  broker why data-reader --json | jq .allowed",
        configure,
        why,
    )
}
