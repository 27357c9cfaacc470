"""A record as an OCSF event: one JSON object.

Owns what of a record goes into which OCSF attribute. Nothing is lost on the way:
`raw_data` is the record's exact bytes, so that its leaf hash in `metadata.uid`
can be computed again, and `unmapped` has its subject, detail and hashes. Does
not own the choice of class and activity (`broker.audit.ocsf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from py_ocsf_models.objects.account import Account, TypeID
from py_ocsf_models.objects.api import API
from py_ocsf_models.objects.cloud import Cloud
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.policy import Policy
from py_ocsf_models.objects.product import Product
from py_ocsf_models.objects.request_elements import RequestElements
from py_ocsf_models.objects.resource_details import ResourceDetails
from py_ocsf_models.objects.response_elements import ResponseElements
from py_ocsf_models.objects.service import Service
from py_ocsf_models.objects.user import User

from broker import __version__
from broker.adapters.sinks.ocsf_models import (
    AccountChange,
    Actor,
    ApiActivity,
    Authentication,
    AuthProtocol,
    Endpoint,
    Event,
    HttpRequest,
    Status,
)
from broker.adapters.store.records import StoredRecord
from broker.adapters.store.utc_time import to_microseconds
from broker.audit.ocsf import SCHEMA_VERSION, OcsfClass, activity

_PRODUCT = Product(name="broker", vendor_name="credential-broker", version=__version__)
_SERVICE = Service(name="broker", uid="broker", version=__version__)
_STS = Service(name="sts.amazonaws.com", uid="sts", version="2011-06-15")
_USER_TYPES = {"person": 1, "system": 3, "workload": 4}
_UNKNOWN_USER, _OTHER_USER = 0, 99

Members = Mapping[str, object]


def line(stored: StoredRecord) -> bytes:
    """The event as JSON, without a line feed."""
    return event(stored).model_dump_json(exclude_none=True).encode("utf-8")


def event(stored: StoredRecord) -> Event:
    """The event of a record, of the class that its type has."""
    record = _Record(stored)
    made = activity(record.type)
    category_uid, category_name = made.ocsf_class.category
    caption = made.ocsf_class.caption
    common: dict[str, Any] = {
        "activity_id": made.id,
        "activity_name": made.name,
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": int(made.ocsf_class),
        "class_name": caption,
        "type_uid": made.type_uid,
        "type_name": f"{caption}: {made.name}",
        "time": to_microseconds(datetime.fromisoformat(record.time)) // 1000,
        "severity_id": int(made.severity),
        "severity": made.severity.name.capitalize(),
        "message": f"{record.type}: {record.outcome}",
        **record.status(),
        "metadata": record.metadata(),
        "actor": Actor(user=record.actor_user()),
        "src_endpoint": record.source(),
        "http_request": record.http_request(),
        "raw_data": stored.record.decode("utf-8"),
        "unmapped": record.unmapped(),
    }
    match made.ocsf_class:
        case OcsfClass.AUTHENTICATION:
            return Authentication(**common, **record.authentication())
        case OcsfClass.ACCOUNT_CHANGE:
            return AccountChange(**common, user=record.target_user(), policy=record.policy())
        case OcsfClass.API_ACTIVITY:
            return ApiActivity(**common, **record.api_activity())


class _Record:
    """A stored record, read for the attributes that OCSF has for it."""

    def __init__(self, stored: StoredRecord) -> None:
        body = msgspec.json.decode(stored.record)
        self._stored = stored
        self.type: str = body["type"]
        self.time: str = body["time"]
        self.outcome: str = body["outcome"]
        self._request_id: str | None = body["request_id"]
        self._version: int = body["v"]
        self._actor: Members = body["actor"]
        self._subject: Members = body["subject"]
        self._detail: Members = body["detail"]

    def status(self) -> dict[str, object]:
        good = self.outcome == "success"
        return {
            "status_id": Status.SUCCESS if good else Status.FAILURE,
            "status": "Success" if good else "Failure",
            "status_code": _text(self._detail, "code") or _text(self._detail, "reason"),
            "status_detail": _text(self._detail, "detail"),
        }

    def metadata(self) -> Metadata:
        return Metadata(
            version=SCHEMA_VERSION,
            product=_PRODUCT,
            uid=self._stored.leaf.hex(),
            sequence=self._stored.seq,
            event_code=self.type,
            correlation_uid=self._request_id,
            log_name="audit",
            log_version=str(self._version),
            original_time=self.time,
            profiles=["cloud"] if self._account() is not None else None,
        )

    def unmapped(self) -> dict[str, object]:
        return {
            "seq": self._stored.seq,
            "leaf": self._stored.leaf.hex(),
            "chain": self._stored.chain.hex(),
            "outcome": self.outcome,
            "subject": self._subject,
            "detail": self._detail,
        }

    def actor_user(self) -> User:
        actor_id, kind = str(self._actor["id"]), str(self._actor["kind"])
        name = _text(self._actor, "handle") or actor_id
        unknown = _UNKNOWN_USER if kind == "anonymous" else _OTHER_USER
        return _user(actor_id, name, kind, _USER_TYPES.get(kind, unknown))

    def target_user(self) -> User:
        """Whom it was about; the record names that person by id alone."""
        principal = _text(self._subject, "principal")
        if principal is None or principal == self._actor["id"]:
            return self.actor_user()
        return _user(principal, principal, None, _UNKNOWN_USER)

    def source(self) -> Endpoint:
        ip = _text(self._actor, "ip")
        return Endpoint(ip=ip) if ip is not None else Endpoint(svc_name="broker")

    def http_request(self) -> HttpRequest | None:
        user_agent = _text(self._actor, "user_agent")
        return None if user_agent is None else HttpRequest(user_agent=user_agent)

    def authentication(self) -> dict[str, Any]:
        second = self.type.startswith("mfa.")
        if second:
            protocol, name = AuthProtocol.OTHER, "second factor"
        elif self.type.startswith("session."):
            protocol, name = AuthProtocol.OAUTH_2_0, "OAUTH 2.0"
        else:
            protocol, name = AuthProtocol.OPENID, "OpenID"
        return {
            "user": self.target_user(),
            "service": _SERVICE,
            "auth_protocol_id": protocol,
            "auth_protocol": name,
            "is_mfa": second,
            "is_remote": _text(self._actor, "ip") is not None,
        }

    def policy(self) -> Policy | None:
        """The role that a grant gives or gave."""
        role = _text(self._subject, "role")
        return None if role is None else Policy(name=role, uid=_text(self._subject, "grant"))

    def api_activity(self) -> dict[str, Any]:
        code = _text(self._detail, "sts_code") or _text(self._detail, "code")
        issuance = self.type.startswith("issuance.")
        request_id = _text(self._detail, "sts_request_id") or self._request_id
        return {
            "api": API(
                operation="AssumeRole" if issuance else self.type,
                service=_STS if issuance else _SERVICE,
                request=None if request_id is None else RequestElements(uid=request_id),
                response=None if code is None else ResponseElements(error=code),
            ),
            "resources": self._resources(),
            "cloud": self._cloud(),
        }

    def _resources(self) -> list[ResourceDetails]:
        role = _text(self._subject, "role")
        if role is not None:
            uid = _text(self._subject, "role_arn")
            return [ResourceDetails(name=role, uid=uid, type="AWS IAM Role")]
        return [
            ResourceDetails(name=value, type=key)
            for key, value in self._subject.items()
            if isinstance(value, str)
        ]

    def _account(self) -> str | None:
        return _text(self._subject, "account_id")

    def _cloud(self) -> Cloud | None:
        account = self._account()
        if account is None:
            return None
        return Cloud(
            provider="AWS",
            account=Account(
                name=account, uid=account, type_id=TypeID.AWS_Account, type="AWS Account"
            ),
            region=_text(self._detail, "region"),
        )


def _user(uid: str, name: str, kind: str | None, type_id: int) -> User:
    """py-ocsf-models wants an account with every user: the broker's own."""
    account = Account(name=name, uid=uid, type_id=TypeID.Other, type="broker principal")
    return User(account=account, name=name, uid=uid, type=kind, type_id=type_id)


def _text(members: Members, name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None
