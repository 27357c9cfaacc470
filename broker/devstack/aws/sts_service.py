"""STS over HTTP: the Query protocol, the planned faults, the record of calls.

Owns the way from a request to an answer. The rules are in sts.py.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from broker.devstack.aws import sigv4
from broker.devstack.aws.credentials import Key, Keys
from broker.devstack.aws.faults import Calls, Fault, Faults, Planned, StsCall
from broker.devstack.aws.sts import Issued, assume_role, caller_identity
from broker.devstack.aws.sts_input import assume_role_input
from broker.devstack.aws.wire import (
    STS_NAMESPACE,
    AwsError,
    Request,
    Response,
    query_answer,
    query_error,
)
from broker.devstack.aws.world import World

_API_VERSION = "2011-06-15"
_SIGNING = {
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-Content-Sha256",
}
_MAX_BODY = 256 * 1024


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class StsService:
    """Answers the requests that are signed for sts, and those that are not signed at all."""

    def __init__(
        self,
        *,
        keys: Keys,
        world: World,
        faults: Faults,
        calls: Calls,
        clock: Callable[[], float],
        disabled_regions: set[str],
    ) -> None:
        self._keys = keys
        self._world = world
        self._faults = faults
        self._calls = calls
        self._clock = clock
        self._disabled_regions = disabled_regions

    def answer(self, request: Request) -> Response:
        """Raises Dropped where a planned fault says so."""
        try:
            parameters = form_parameters(request, _SIGNING)
        except AwsError as error:
            return query_error(error)
        action = parameters.get("Action", "")
        planned = self._faults.take(action)
        fault = None if planned is None else planned.fault
        issued: Issued | None = None
        outcome = "ok"
        try:
            if planned is not None:
                self._before(planned)
            key, region = self._authenticate(request)
            members, issued = self._act(action, parameters, key, request, region)
        except AwsError as error:
            outcome = error.code
            return query_error(error, namespace=_namespace(fault))
        except Dropped:
            outcome = "dropped"
            raise
        finally:
            self._calls.append(
                StsCall(
                    action,
                    _claimed_key_id(request),
                    parameters,
                    outcome,
                    fault,
                    None if issued is None else issued.key.access_key_id,
                )
            )
        return self._after(planned, action, members)

    def _authenticate(self, request: Request) -> tuple[Key, str]:
        """The caller and the region it signed for."""
        signed = sigv4.read(request)
        if signed is None:
            raise AwsError(
                "MissingAuthenticationToken", "Request is missing Authentication Token", 403
            )
        key = sigv4.authenticate(request, signed, self._keys, self._clock())
        if signed.region in self._disabled_regions:
            raise _region_disabled(key.account)
        return key, signed.region

    def _act(
        self, action: str, parameters: Mapping[str, str], key: Key, request: Request, region: str
    ) -> tuple[dict[str, object], Issued | None]:
        version = parameters.get("Version")
        if version != _API_VERSION or action not in ("AssumeRole", "GetCallerIdentity"):
            raise AwsError(
                "InvalidAction", f"Could not find operation {action} for version {version}"
            )
        if action == "GetCallerIdentity":
            return caller_identity(key), None
        issued = assume_role(
            assume_role_input(parameters),
            key,
            keys=self._keys,
            world=self._world,
            now=self._clock(),
            source_ip=request.source_ip,
            region=region,
        )
        return issued.members(), issued

    def _before(self, planned: Planned) -> None:
        match planned.fault:
            case Fault.DROP_BEFORE:
                raise Dropped
            case Fault.THROTTLE:
                raise AwsError("Throttling", "Rate exceeded", 400)
            case Fault.SERVER_ERROR:
                code = "ServiceUnavailable" if planned.status == 503 else "InternalFailure"
                raise AwsError(code, "Service is unable to handle request.", planned.status)
            case Fault.EMPTY_MESSAGE:
                raise AwsError("AccessDenied", "", 403)
            case Fault.REGION_DISABLED:
                raise _region_disabled("000000000000")
            case _:
                return

    def _after(self, planned: Planned | None, action: str, members: dict[str, object]) -> Response:
        if planned is None:
            return query_answer(action, members)
        match planned.fault:
            case Fault.DELAY:
                self._faults.wait(planned.seconds)
                return query_answer(action, members)
            case Fault.HANG:
                self._faults.wait(planned.seconds)
                raise Dropped
            case Fault.DROP_AFTER:
                raise Dropped
            case Fault.MALFORMED_XML:
                answer = query_answer(action, members)
                return dataclasses.replace(answer, body=answer.body[: len(answer.body) // 2])
            case Fault.HUGE_BODY:
                answer = query_answer(action, members)
                padding = b"<!--" + b"x" * max(0, planned.size - len(answer.body)) + b"-->"
                return dataclasses.replace(answer, body=answer.body + padding)
            case _:
                twisted = _twist(planned.fault, members)
                return query_answer(action, twisted, namespace=_namespace(planned.fault))


def form_parameters(request: Request, signing: set[str] = _SIGNING) -> dict[str, str]:
    """The parameters of a Query protocol request, from the body of a POST or a GET's query.

    Raises AwsError where two readers could see two different requests: parameters
    in both places, a doubled name, another content type.
    """
    if request.method not in ("GET", "POST") or request.path != "/":
        raise AwsError("InvalidAction", "The Query protocol is served at / by GET and POST.")
    in_query = [(name, value) for name, value in request.query_pairs if name not in signing]
    if request.method == "GET":
        if request.body:
            raise AwsError("MalformedQueryString", "A GET has no body.")
        pairs = in_query
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise AwsError("InvalidAction", f"Content type {kind or '(none)'} is not a form.")
        if in_query:
            raise AwsError("MalformedQueryString", "Parameters stand in the query and the body.")
        if len(request.body) > _MAX_BODY:
            raise AwsError("RequestEntityTooLarge", "The request body is too large.", 413)
        try:
            pairs = parse_qsl(request.body.decode("utf-8"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError as error:
            raise AwsError("MalformedQueryString", "The body is not UTF-8.") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise AwsError("MalformedQueryString", "A parameter is given twice.")
    return parameters


def _twist(fault: Fault, members: dict[str, object]) -> dict[str, object]:
    """A wrong answer: true in form, about something that was not asked for."""
    user, credentials = members.get("AssumedRoleUser"), members.get("Credentials")
    if not isinstance(user, dict) or not isinstance(credentials, dict):
        return members
    arn = str(user["Arn"])
    prefix, _, rest = arn.partition(":assumed-role/")
    role, _, name = rest.partition("/")
    match fault:
        case Fault.EXPIRED:
            return {**members, "Credentials": {**credentials, "Expiration": "2020-01-01T00:00:00Z"}}
        case Fault.OTHER_ROLE:
            return {
                **members,
                "AssumedRoleUser": {**user, "Arn": f"{prefix}:assumed-role/Other/{name}"},
            }
        case Fault.OTHER_ACCOUNT:
            account = arn.split(":")[4]
            other = "999999999999" if account != "999999999999" else "888888888888"
            return {**members, "AssumedRoleUser": {**user, "Arn": arn.replace(account, other, 1)}}
        case Fault.OTHER_SESSION_NAME:
            other = f"other-{secrets.token_hex(4)}"
            role_id = str(user["AssumedRoleId"]).partition(":")[0]
            return {
                **members,
                "AssumedRoleUser": {
                    "AssumedRoleId": f"{role_id}:{other}",
                    "Arn": f"{prefix}:assumed-role/{role}/{other}",
                },
            }
        case Fault.OTHER_SOURCE_IDENTITY:
            return {**members, "SourceIdentity": "p-somebodyelse"}
        case Fault.NO_CREDENTIALS:
            return {key: value for key, value in members.items() if key != "Credentials"}
        case _:
            return members


def _namespace(fault: Fault | None) -> str | None:
    return None if fault is Fault.NO_NAMESPACE else STS_NAMESPACE


def _claimed_key_id(request: Request) -> str | None:
    """The key id in the signature, verified or not."""
    try:
        signed = sigv4.read(request)
    except AwsError:
        return None
    return None if signed is None else signed.access_key_id


def _region_disabled(account: str) -> AwsError:
    return AwsError(
        "RegionDisabledException",
        f"STS is not activated in this region for account:{account}. Your account administrator"
        " can activate STS in this region using the IAM Console.",
        403,
    )
