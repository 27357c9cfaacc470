"""What AWS refused when a role was tried: which part is missing, as far as it says."""

from __future__ import annotations

import re

from broker.issuance.sts import AssumeRole, StsFailure
from broker.issuance.trust_policy import ACTIONS
from broker.server_cli.checks.check import Check, fail

_ACTION = re.compile(r"not authorized to perform: (sts:[A-Za-z]{1,40})")
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


def refused_call(
    name: str,
    failure: StsFailure,
    call: AssumeRole,
    principal: str,
    *,
    role_name: str,
    trust_is_right: bool,
) -> Check:
    """`trust_is_right`: the trust policy was read, and nothing in it stands in the way."""
    if failure.sts_code not in _DENIED:
        said = failure.error.log_detail or failure.error.detail
        return fail(name, f"could not be tried: {said}", failure.error.detail)
    message = failure.sts_message or ""
    found = _ACTION.search(message)
    action = found.group(1) if found else "sts:AssumeRole"
    own = f"let a policy of {principal} allow {', '.join(ACTIONS)} on {call.role_arn}"
    paste = f"set the trust policy that `broker access trust-policy {role_name}` prints"
    if "explicit deny" in message:
        where = message.partition("with an explicit deny in ")[2] or "a policy"
        return fail(
            name,
            f"AWS refuses {action} to {principal}: explicitly denied in {where}",
            "take the broker out of that Deny",
        )
    if trust_is_right or "no identity-based policy" in message:
        return fail(
            name,
            f"AWS refuses {action}: the broker's own policies (or the organization's) do not "
            f"allow it on {call.role_arn}",
            own,
        )
    if action != "sts:AssumeRole" or "no resource-based policy" in message:
        return fail(
            name, f"AWS refuses {action} to {principal} on {call.role_arn}", f"{paste}, and {own}"
        )
    asks = "" if call.external_id is None else ", or asks for another ExternalId"
    return fail(
        name,
        f"AWS refuses sts:AssumeRole, and does not say why: {call.role_arn} does not exist, or its "
        f"trust policy does not name {principal}{asks}, or the broker's own policy lacks it",
        f"{paste}, and {own}",
    )
