"""`POST /v1/access/try`: what the access policy makes of a CI token, without using it up.

For auditors and admins, who may read the policy. A token that is no longer in
force is compared all the same, and said not to be: a job's log is read when
its token has expired.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from broker.issuance.tried import tried
from broker.web.gate import Auditor
from broker.web.wire import json_response

router = APIRouter(prefix="/v1/access", tags=["access"])


class Try(BaseModel):
    """`token` is the CI's OIDC token. It is neither kept nor recorded."""

    model_config = ConfigDict(extra="forbid")

    token: SecretStr = Field(max_length=64 * 1024)


@router.post("/try")
async def try_token(caller: Auditor, body: Try) -> Response:
    """`verification` (good, or why not), the `workloads` that admit the job with their `roles`,
    and the `closest` other entries, each with the claims that failed.
    """
    outcome = await tried(
        body.token.get_secret_value(), caller.parts.job_gate, caller.policy, caller.who.now
    )
    return json_response(outcome)
