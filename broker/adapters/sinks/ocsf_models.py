"""The OCSF event classes that the broker emits, on py-ocsf-models' objects.

Owns the three classes and the few objects that py-ocsf-models does not have
(it covers findings). Field names and requirements are OCSF 1.5.0's. Does not own
which record becomes which of them (`broker.audit.ocsf`, `ocsf`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from py_ocsf_models.objects.api import API
from py_ocsf_models.objects.cloud import Cloud
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.policy import Policy
from py_ocsf_models.objects.resource_details import ResourceDetails
from py_ocsf_models.objects.service import Service
from py_ocsf_models.objects.user import User
from pydantic import BaseModel, ConfigDict, Field


class Status(IntEnum):
    """`status_id` of an event; py-ocsf-models' own is that of a finding."""

    SUCCESS = 1
    FAILURE = 2


class AuthProtocol(IntEnum):
    """`auth_protocol_id`, as far as the broker has them."""

    OPENID = 4
    OAUTH_2_0 = 6
    OTHER = 99


class Actor(BaseModel):
    user: User


class Endpoint(BaseModel):
    """A `network_endpoint`: one of the two is there."""

    ip: str | None = None
    svc_name: str | None = None


class HttpRequest(BaseModel):
    user_agent: str


class Event(BaseModel):
    """What every class has. `time` is in milliseconds since 1970."""

    model_config = ConfigDict(extra="forbid")

    activity_id: Annotated[int, Field(ge=0, le=99)]
    activity_name: str
    category_uid: int
    category_name: str
    class_uid: int
    class_name: str
    type_uid: int
    type_name: str
    time: int
    severity_id: int
    severity: str
    status_id: Status
    status: str
    status_code: str | None = None
    status_detail: str | None = None
    message: str
    metadata: Metadata
    actor: Actor
    src_endpoint: Endpoint
    http_request: HttpRequest | None = None
    raw_data: str
    unmapped: dict[str, object]


class Authentication(Event):
    user: User
    service: Service
    auth_protocol_id: AuthProtocol
    auth_protocol: str
    is_mfa: bool
    is_remote: bool


class AccountChange(Event):
    user: User
    policy: Policy | None = None


class ApiActivity(Event):
    api: API
    resources: list[ResourceDetails]
    cloud: Cloud | None = None
