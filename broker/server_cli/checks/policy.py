"""The access policy: in force, or a file that is to be; and whether anybody administers it."""

from __future__ import annotations

from pathlib import Path

from broker.access.finding import PolicyRefused
from broker.access.parse import parse_policy
from broker.access.policy import AccessPolicy
from broker.access.versions import with_external_ids
from broker.server_cli.checks.check import Check, fail, ok, warn
from broker.server_cli.checks.database import Stored
from broker.settings import Settings

_NAME = "access policy"
_MAX_BYTES = 1024 * 1024


def policy_checks(
    settings: Settings, stored: Stored, file: Path | None
) -> tuple[list[Check], AccessPolicy | None]:
    """`file` instead of the version in force. External ids that were generated are the stored
    ones in either case.
    """
    if file is None and not stored.read:
        return [], None  # the database's failure says so already
    if file is None and stored.policy is None:
        nobody = "none is applied: nobody has anything, and no role was checked"
        return [
            warn(_NAME, nobody, "`broker access apply FILE`, or `broker doctor --policy FILE`")
        ], None
    try:
        text = stored.policy.text if file is None and stored.policy else _read(file)
    except (OSError, UnicodeDecodeError) as fault:
        return [fail(_NAME, f"{file}: {fault}", "name a file in UTF-8 that can be read")], None
    number = stored.policy.number if file is None and stored.policy else 0
    providers = frozenset(provider.name for provider in settings.oidc)
    try:
        policy = parse_policy(text, providers=providers, number=number)
    except PolicyRefused as refused:
        return [_refused(file, number, refused)], None
    if stored.policy is not None:
        policy = with_external_ids(policy, stored.policy.external_ids)
    name = f"version {number}" if file is None else str(file)
    roles = len(policy.roles)
    checks = [ok(_NAME, f"{name}, with {roles} role{'' if roles == 1 else 's'}")]
    return [*checks, *_admins(settings, stored, policy)], policy


def _read(file: Path | None) -> str:
    if file is None:
        raise FileNotFoundError("no file is named")
    with file.open("rb") as opened:
        return opened.read(_MAX_BYTES + 1).decode("utf-8")


def _refused(file: Path | None, number: int, refused: PolicyRefused) -> Check:
    first, *others = refused.findings
    more = f" (and {len(others)} more)" if others else ""
    if file is None:
        message = f"version {number} does not fit these settings: line {first.line}: "
        cure = "name the providers in the settings as the policy does; the broker does not start"
        return fail(_NAME, f"{message}{first.message}{more}", cure)
    where = f"{file}:{first.line}:{first.column}: "
    return fail(_NAME, f"{where}{first.message}{more}", f"instead: {first.instead}")


def _admins(settings: Settings, stored: Stored, policy: AccessPolicy) -> list[Check]:
    if policy.admins or settings.bootstrap.admins or stored.has_admin:
        return []
    return [
        fail(
            "admins",
            "neither the access policy nor [bootstrap] names an admin: nobody can change anything",
            'set [bootstrap] admins = [{provider = "...", email = "..."}]',
        )
    ]
