"""The caller's grants, looked up only where authenticating said that there are any."""

from __future__ import annotations

from broker.access.grant import Grant
from broker.identity.sessions import Authenticated
from broker.web.parts import Parts


async def current_grants(parts: Parts, who: Authenticated) -> tuple[Grant, ...]:
    """In force or to come: of one that has not begun, the refusal says so."""
    if not who.has_grants:
        return ()
    return await parts.grants.current_grants(who.context.principal.id)
