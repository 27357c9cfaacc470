"""What the suites ask of the stand-in, and how they read its refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

ACCOUNT = "111122223333"
HUB = f"arn:aws:iam::{ACCOUNT}:role/BrokerHub"
HUB_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/BrokerHub/i-0123456789abcdef0"
STS_ACTIONS = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
TAG = {"Key": "team", "Value": "red"}


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    """A policy of one Allow statement."""
    return policy({"Effect": "Allow", "Action": action, "Resource": resource, **more})


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def trust(principal: Any, action: Any = STS_ACTIONS, **more: Any) -> dict[str, Any]:
    return policy({"Effect": "Allow", "Principal": principal, "Action": action, **more})


READ = allow("s3:GetObject")


def refusal(call: Callable[..., object], *arguments: Any, **named: Any) -> tuple[str, str, int]:
    """The code, text and HTTP status with which the call is refused."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    error = caught.value.response
    return (
        error["Error"]["Code"],
        error["Error"]["Message"],
        error["ResponseMetadata"]["HTTPStatusCode"],
    )


def not_authorized(action: str, role: str, caller: str = HUB_SESSION) -> tuple[str, str, int]:
    text = f"User: {caller} is not authorized to perform: {action} on resource: {role}"
    return "AccessDenied", text, 403
