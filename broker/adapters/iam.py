"""A role as IAM has it: what the broker's own credentials may read of it.

Owns: iam:GetRole in one partition, bounded. boto3 decides the endpoint
(AWS_ENDPOINT_URL_IAM, AWS_ENDPOINT_URL), as for every AWS tool; the setting for
STS does not apply. Does not own: what a role should be (`issuance`). It is
asked rarely, by commands alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_CONNECT_SECONDS = 3.0
_READ_SECONDS = 5.0
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


@dataclass(frozen=True, slots=True)
class FoundRole:
    """`trust_policy` is parsed JSON; `max_session_duration` in seconds."""

    arn: str
    max_session_duration: int
    trust_policy: object


class RoleUnreadable(Exception):
    """IAM gave no answer; the text says why in one line. `denied`: it may not be read."""

    def __init__(self, reason: str, *, denied: bool = False) -> None:
        super().__init__(reason)
        self.denied = denied


class IamReader:
    """IAM of the account that the broker's credentials are in; other accounts' is out of reach."""

    def __init__(self, region: str, profile: str | None) -> None:
        self._region = region
        self._profile = profile
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def role(self, name: str) -> FoundRole | None:
        """The role of that name, None where there is none. Raises RoleUnreadable."""
        try:
            async with self._opening:
                if self._client is None:
                    self._client = await asyncio.to_thread(self._open)
            answer = await asyncio.to_thread(self._client.get_role, RoleName=name)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code == "NoSuchEntity":
                return None
            raise RoleUnreadable(f"iam:GetRole: {code}", denied=code in _DENIED) from error
        except (BotoCoreError, ValueError) as error:
            raise RoleUnreadable(f"iam:GetRole: {type(error).__name__}: {error}") from error
        role = answer["Role"]
        return FoundRole(
            arn=str(role["Arn"]),
            max_session_duration=int(role.get("MaxSessionDuration", 3600)),
            trust_policy=role.get("AssumeRolePolicyDocument"),
        )

    def _open(self) -> Any:  # noqa: ANN401 - boto3 has no types
        session = boto3.Session(profile_name=self._profile, region_name=self._region)
        return session.client(
            "iam",
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"total_max_attempts": 2, "mode": "standard"},
            ),
        )
