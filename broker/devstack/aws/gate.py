"""IAM and S3 over HTTP: every request authenticated and decided here, then answered by moto.

Owns the way from a signed request to the actions and resources it needs, and
AWS's texts for what is refused. Anonymous requests are refused, public buckets
included. Does not own the evaluation (evaluate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.etree import ElementTree as ET

from broker.devstack.aws import sigv4
from broker.devstack.aws.credentials import Key, Keys, caller_of, context_of, policies_of
from broker.devstack.aws.evaluate import Decision, Resource, evaluate
from broker.devstack.aws.grammar import DENY_ALL, Kind, MalformedPolicy, Policy, parse
from broker.devstack.aws.patterns import Context
from broker.devstack.aws.s3_actions import Need, Target, needs, request_context, target_of
from broker.devstack.aws.sts_service import form_parameters
from broker.devstack.aws.wire import (
    IAM_NAMESPACE,
    AwsError,
    Request,
    Response,
    query_error,
    s3_error,
)
from broker.devstack.aws.world import World, environ_of

_IAM_POLICIES = {
    "PolicyDocument": Kind.IDENTITY,
    "AssumeRolePolicyDocument": Kind.TRUST,
}
_S3_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Gate:
    """Answers the requests whose signature is scoped to iam or s3."""

    def __init__(
        self, *, keys: Keys, world: World, clock: Callable[[], float], netloc: Callable[[], str]
    ) -> None:
        self._keys = keys
        self._world = world
        self._clock = clock
        self._netloc = netloc

    def iam(self, request: Request, signed: sigv4.Signed) -> Response:
        try:
            key = sigv4.authenticate(request, signed, self._keys, self._clock())
            parameters = form_parameters(request)
            self._authorize_iam(parameters, key, request, signed.region)
            _check_iam_policies(parameters)
        except AwsError as error:
            return query_error(error, namespace=IAM_NAMESPACE)
        return self._moto("iam", request, key, frozenset())

    def s3(self, request: Request, signed: sigv4.Signed | None) -> Response:
        try:
            key, region = self._s3_caller(request, signed)
            target = target_of(request)
            context = {
                **context_of(
                    key,
                    self._world,
                    now=self._clock(),
                    source_ip=request.source_ip,
                    region=region,
                ),
                **request_context(request),
            }
            for need in needs(request, target):
                self._require(need, key, context)
            self._hide_missing(request, target, key, context)
            refused = self._refused_deletes(request, target, key, context)
            _check_bucket_policy(request, target)
        except AwsError as error:
            answer = s3_error(error)
            if request.method == "HEAD":
                return Response(answer.status, answer.headers, b"")
            return answer
        return self._moto("s3", request, key, refused)

    def _moto(self, service: str, request: Request, key: Key, refused: frozenset[str]) -> Response:
        status, headers, body = self._world.call(
            service,
            environ_of(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=request.body,
                netloc=self._netloc(),
                account=key.account,
            ),
            refused,
        )
        return Response(status, tuple(headers), body)

    # S3

    def _s3_caller(self, request: Request, signed: sigv4.Signed | None) -> tuple[Key, str]:
        if signed is None:
            raise AwsError("AccessDenied", "Access Denied", 403)
        key = sigv4.authenticate(request, signed, self._keys, self._clock())
        return key, signed.region

    def _decide(self, need: Need, key: Key, context: Context) -> Decision:
        account, policy = key.account, None
        if need.bucket is not None:
            found = self._world.bucket(need.bucket)
            if found is not None:
                account, document = found
                policy = None if document is None else _bucket_policy(document)
        resource = Resource(need.arn(self._world.partition), account, policy)
        policies = policies_of(key, self._world)
        return evaluate(need.action, resource, caller_of(key), policies, context)

    def _require(self, need: Need, key: Key, context: Context) -> None:
        decision = self._decide(need, key, context)
        if not decision.allowed:
            raise AwsError(
                "AccessDenied",
                f"User: {key.arn} is not authorized to perform: {need.action} on resource:"
                f' "{need.arn(self._world.partition)}" {decision.reason}',
                403,
            )

    def _hide_missing(self, request: Request, target: Target, key: Key, context: Context) -> None:
        """Who may not list a bucket learns 403, not 404, of an object that is not there."""
        if request.method not in ("GET", "HEAD") or target.bucket is None or target.key is None:
            return
        if self._world.bucket(target.bucket) is None:
            return
        if not self._world.has_object(target.bucket, target.key):
            self._require(Need("s3:ListBucket", target.bucket, None), key, context)

    def _refused_deletes(
        self, request: Request, target: Target, key: Key, context: Context
    ) -> frozenset[str]:
        """The objects of a bulk delete that the caller may not delete, as moto names them."""
        if request.method != "POST" or target.key is not None or target.bucket is None:
            return frozenset()
        try:
            root = ET.fromstring(request.body)  # noqa: S314 - from a verified caller of a stand-in
        except ET.ParseError as error:
            raise AwsError("MalformedXML", "The XML you provided was not well-formed.") from error
        refused = set()
        for entry in [*root.iter(f"{_S3_XML}Object"), *root.iter("Object")]:
            name = entry.findtext(f"{_S3_XML}Key") or entry.findtext("Key") or ""
            version = entry.findtext(f"{_S3_XML}VersionId") or entry.findtext("VersionId")
            action = "s3:DeleteObjectVersion" if version else "s3:DeleteObject"
            if not self._decide(Need(action, target.bucket, name), key, context).allowed:
                refused.add(f"arn:aws:s3:::{target.bucket}/{name}")
        return frozenset(refused)

    # IAM

    def _authorize_iam(
        self, parameters: Mapping[str, str], key: Key, request: Request, region: str
    ) -> None:
        action = f"iam:{parameters.get('Action', '')}"
        arn, name = self._iam_resource(parameters, key.account)
        context = {
            **context_of(
                key,
                self._world,
                now=self._clock(),
                source_ip=request.source_ip,
                region=region,
            ),
        }
        if "PolicyArn" in parameters:
            context["iam:policyarn"] = (parameters["PolicyArn"],)
        resource = Resource(arn, key.account)
        policies = policies_of(key, self._world)
        decision = evaluate(action, resource, caller_of(key), policies, context)
        if not decision.allowed:
            raise AwsError(
                "AccessDenied",
                f"User: {key.arn} is not authorized to perform: {action} on resource: {name}"
                f" {decision.reason}",
                403,
            )

    def _iam_resource(self, parameters: Mapping[str, str], account: str) -> tuple[str, str]:
        """The ARN an IAM action is about, and how AWS names it in a refusal."""
        base = f"arn:{self._world.partition}:iam::{account}:"
        if "RoleName" in parameters:
            name = parameters["RoleName"]
            with self._world.entered():
                roles = self._world.iam_of(account).roles.values()
                arn = next((role.arn for role in roles if role.name == name), f"{base}role/{name}")
            return arn, f"role {name}"
        if "UserName" in parameters:
            name = parameters["UserName"]
            user = self._world.user(account, name)
            return (f"{base}user/{name}" if user is None else user.arn), f"user {name}"
        if "GroupName" in parameters:
            name = parameters["GroupName"]
            return f"{base}group/{name}", f"group {name}"
        if "PolicyArn" in parameters:
            return parameters["PolicyArn"], f"policy {parameters['PolicyArn']}"
        if "PolicyName" in parameters:
            name = parameters["PolicyName"]
            return f"{base}policy/{name}", f"policy {name}"
        return f"{base}*", f"{base}*"


def _bucket_policy(document: str) -> Policy:
    try:
        return parse(document, Kind.BUCKET)
    except MalformedPolicy:
        return DENY_ALL


def _check_iam_policies(parameters: Mapping[str, str]) -> None:
    for name, kind in _IAM_POLICIES.items():
        if name not in parameters:
            continue
        trust = parameters.get("Action") == "UpdateAssumeRolePolicy"
        try:
            parse(parameters[name], Kind.TRUST if trust else kind)
        except MalformedPolicy as error:
            raise AwsError("MalformedPolicyDocument", str(error)) from error


def _check_bucket_policy(request: Request, target: Target) -> None:
    query = dict(request.query_pairs)
    if request.method != "PUT" or target.key is not None or "policy" not in query:
        return
    try:
        parse(request.body.decode("utf-8"), Kind.BUCKET)
    except (MalformedPolicy, UnicodeDecodeError) as error:
        raise AwsError("MalformedPolicy", str(error)) from error
