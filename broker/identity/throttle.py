"""Limits on attempts, per account, address and globally, held in the database.

Owns: the limits and their names. Does not own: their counters' storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` attempts in each window of `seconds`."""

    name: str
    count: int
    seconds: int


LOGIN_PER_ADDRESS = Limit("login_address", 60, 60)
LOGIN_GLOBAL = Limit("login_global", 3000, 60)
CODE_PER_ADDRESS = Limit("code_address", 60, 60)
DEVICE_PER_ADDRESS = Limit("device_address", 30, 60)
DEVICE_GLOBAL = Limit("device_global", 600, 60)
# Each try at a user code counts, right or wrong. With both global limits used up, 6,000 tries
# meet 6,000 waiting logins in ten minutes: at 34.5 bits one hit in five days, and what it hits
# is a page that says whose login it is.
USER_CODE_PER_ACCOUNT = Limit("user_code_account", 30, 600)
USER_CODE_PER_ADDRESS = Limit("user_code_address", 100, 600)
USER_CODE_GLOBAL = Limit("user_code_global", 600, 60)
TOKEN_PER_ADDRESS = Limit("token_address", 300, 60)
# Runners of many jobs share an address, and a token is checked in a tenth of a millisecond.
CI_PER_ADDRESS = Limit("ci_address", 6000, 60)
CI_PER_WORKLOAD = Limit("ci_workload", 6000, 60)
# A large file is seconds of work, for anybody who is logged in.
LINT_PER_PRINCIPAL = Limit("lint_principal", 12, 60)
ISSUANCE_PER_PRINCIPAL = Limit("issuance_principal", 6000, 60)


class Throttle(Protocol):
    async def admit(self, limit: Limit, key: str) -> None:
        """Count one attempt of `key` under `limit`. Raises RateLimited with retry_after."""
        ...
