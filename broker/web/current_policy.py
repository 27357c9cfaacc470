"""The newest access policy, parsed once a version.

The number of the newest version comes with every authentication, from the same
look at the database, so a decision never rests on an older policy than the one
in force when its request came in. The parsed value is the only cache, and it is
replaced by number, never by age.
"""

from __future__ import annotations

from broker.access.parse import parse_policy
from broker.access.policy import EMPTY, AccessPolicy
from broker.access.versions import AccessStore, with_external_ids


class CurrentPolicy:
    """`providers` are the configured identity providers, by which the file's names are read."""

    def __init__(self, store: AccessStore, providers: frozenset[str]) -> None:
        self._store = store
        self.providers = providers
        self._newest = EMPTY

    async def at_least(self, number: int) -> AccessPolicy:
        """The policy of version `number` or a newer one; EMPTY before the first (0)."""
        if self._newest.number >= number:
            return self._newest
        stored = await self._store.current_policy()
        if stored is None or stored.number < number:
            # Versions only grow: a database that lost one was put back to an older state.
            raise LookupError(f"version {number} of the access policy is gone")
        # Two requests may parse at once: the newer stays.
        policy = parse_policy(stored.text, providers=self.providers, number=stored.number)
        # What a version needs was made with it, and never changes.
        policy = with_external_ids(policy, stored.external_ids)
        if policy.number > self._newest.number:
            self._newest = policy
        return self._newest
