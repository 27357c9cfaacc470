"""One access policy file, judged for the caller who sends it: findings, diff, and four eyes.

Owns what `PUT /v1/access` and its approval have in common before anything is
stored. Does not own the routes (`access`, `access_changes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from broker.access.analysis import Analyse
from broker.access.diff import Change, diff_json, diff_lines, diff_policies
from broker.access.finding import Finding, Level
from broker.access.four_eyes import Verdict, judge
from broker.access.lint import lint_policy
from broker.access.parse import parse_policy
from broker.access.plan import (
    KnownPeople,
    generated_for,
    look_up,
    plan_json,
    plan_lines,
    user_names,
)
from broker.access.policy import AccessPolicy
from broker.access.versions import NewPolicy, StoredPolicy
from broker.errors import InvalidRequest
from broker.web.gate import ApiCaller
from broker.web.wire import instant


@dataclass(frozen=True, slots=True)
class Judged:
    """A file that may be applied on `before`, and what that would mean."""

    text: str
    before: AccessPolicy
    after: AccessPolicy
    warnings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    people: KnownPeople
    verdict: Verdict

    @property
    def new(self) -> NewPolicy:
        return NewPolicy(
            self.text,
            user_names(self.after),
            generated_for(self.after),
            frozenset((one.name, one.issuer) for one in self.after.workloads.values()),
        )

    def as_json(self) -> dict[str, object]:
        """For every answer: what changes, and whether the caller gains by it."""
        return {
            "diff": list(diff_lines(self.changes)),
            "changes": diff_json(self.changes),
            "warnings": [finding.as_json() for finding in self.warnings],
            "self_granted": self.verdict.self_granted,
            "gains": list(self.verdict.gains),
        }

    def plan(self) -> dict[str, object]:
        """For a dry run: `rights` is the diff with the people behind it; `waits` whether another
        admin would have to approve.
        """
        return {
            **self.as_json(),
            "rights": list(plan_lines(self.changes, self.people)),
            "waits": self.verdict.waits,
            "plan": {"base_version": self.before.number, **plan_json(self.people, self.after)},
        }


async def policy_in_force(caller: ApiCaller) -> AccessPolicy:
    """The newest one, which may be newer than this request's look at its caller."""
    stored = await caller.parts.access.current_policy()
    return await caller.parts.policies.at_least(0 if stored is None else stored.number)


async def judge_text(caller: ApiCaller, text: str, before: AccessPolicy) -> Judged:
    """Raises InvalidRequest with `findings` where the file is refused."""
    parts = caller.parts
    findings, after = await asyncio.to_thread(
        _read, text, parts.policies.providers, parts.analyse_policy
    )
    changes = diff_policies(before, after)
    people = await look_up(parts.known_people, before, after, caller.principal.id)
    verdict = judge(before, after, caller.principal, granted=people.granted, people=people.admins)
    return Judged(text, before, after, findings, changes, people, verdict)


def version_json(stored: StoredPolicy) -> dict[str, object]:
    return {
        "version": stored.number,
        "sha256": stored.sha256,
        "applied_at": instant(stored.applied_at),
        "applied_by": stored.applied_by,
    }


def _read(
    text: str, providers: frozenset[str], analyse: Analyse
) -> tuple[tuple[Finding, ...], AccessPolicy]:
    findings = lint_policy(text, providers, analyse)
    if any(finding.level is Level.ERROR for finding in findings):
        raise _refused(findings)
    return findings, parse_policy(text, providers=providers)


def _refused(findings: Sequence[Finding]) -> InvalidRequest:
    count = len(findings)
    return InvalidRequest(
        f"The file is not an access policy: {count} finding{'s' if count > 1 else ''}, "
        f"the first at {findings[0]}",
        extra={"findings": [finding.as_json() for finding in findings]},
    )
