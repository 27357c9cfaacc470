"""The stand-in itself: one loopback port for sts, iam, s3 and kms, and its administrator's side.

Owns the life of the stand-in, dispatch and seeding; the sockets are in
loopback.py. Requests go by the service in their signature's scope, whatever the
path: there is no unauthenticated way in, none to moto's own control API, and no
request is served under another Host.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from broker.devstack.aws import sigv4
from broker.devstack.aws.credentials import Key, Keys, RoleSession
from broker.devstack.aws.faults import Calls, Faults
from broker.devstack.aws.gate import Gate
from broker.devstack.aws.grammar import Kind, parse
from broker.devstack.aws.kms import KmsService
from broker.devstack.aws.loopback import LoopbackServer
from broker.devstack.aws.sts_service import StsService
from broker.devstack.aws.wire import AwsError, Request, Response, query_error
from broker.devstack.aws.world import World

Document = Mapping[str, object]
ASSUME_ANY: Document = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
            "Resource": "*",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class HubCredentials:
    """Base credentials for the broker, as its host would give them."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    arn: str

    def environment(self) -> dict[str, str]:
        """The AWS_* variables; AWS_SESSION_TOKEN is absent for long-term keys."""
        variables = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }
        if self.session_token is not None:
            variables["AWS_SESSION_TOKEN"] = self.session_token
        return variables

    def client_arguments(self) -> dict[str, str]:
        """Keyword arguments for boto3.client and boto3.Session."""
        return {name.lower(): value for name, value in self.environment().items()}


class AwsStandIn:
    """A local AWS of any number of accounts in one partition. Use `start`."""

    def __init__(self, port: int, account_id: str, region: str) -> None:
        self.account_id = account_id
        self.region = region
        self.world = World(region)
        self.keys = Keys(self.world)
        self.faults = Faults()
        self.calls = Calls()
        self.disabled_regions: set[str] = set()  # where STS answers RegionDisabledException
        self._stopped = False
        try:
            self._server = LoopbackServer(port, self._answer)
        except OSError:
            self.world.close()
            raise
        self._netloc = f"127.0.0.1:{self._server.server_address[1]}"
        self._sts = StsService(
            keys=self.keys,
            world=self.world,
            faults=self.faults,
            calls=self.calls,
            clock=self.now,
            disabled_regions=self.disabled_regions,
        )
        self.kms = KmsService(
            keys=self.keys, world=self.world, faults=self.faults, clock=self.now, region=region
        )
        self._gate = Gate(
            keys=self.keys, world=self.world, clock=self.now, netloc=lambda: self._netloc
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="aws-standin",
            daemon=True,
        )

    @classmethod
    def start(
        cls, port: int = 0, account_id: str = "111122223333", region: str = "us-east-1"
    ) -> Self:
        """Serve on loopback; port 0 takes a free one. Raises OSError when the port is taken."""
        standin = cls(port, account_id, region)
        standin._thread.start()
        return standin

    def stop(self) -> None:
        """Close every connection and drop all state. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join()
        self.world.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{self._netloc}"

    def now(self) -> float:
        """The stand-in's clock, in seconds since the epoch: the machine's and the planned fault."""
        return time.time() + self.faults.clock_offset

    # The administrator's side: no signature, no policy.

    def hub_credentials(
        self,
        kind: Literal["user", "role", "root"] = "role",
        *,
        name: str = "BrokerHub",
        session_name: str = "i-0123456789abcdef0",
        policy: Document = ASSUME_ANY,
        account_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        transitive: Iterable[str] = (),
        source_identity: str | None = None,
        duration_seconds: int = 12 * 3600,
    ) -> HubCredentials:
        """Base credentials: a user's long-term keys, a role session (chained), or the root user's.

        User and role are made, with `policy`, where they are not there yet. `tags`,
        `transitive` and `source_identity` are the role session's, as a host such as
        EKS Pod Identity sets them.
        """
        account = account_id or self.account_id
        if kind == "root":
            return _hub(self.keys.issue_root(account, self.world.partition))
        if kind == "user":
            return _hub(self._user_key(account, name, policy))
        arn = f"arn:{self.world.partition}:iam::{account}:role/{name}"
        role = self.world.role(arn)
        if role is None:
            service = {"Service": "ec2.amazonaws.com"}
            self.put_role(
                arn,
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole"}
                    ],
                },
                policies={"hub": policy},
            )
            role = self.world.role(arn)
        if role is None:
            raise RuntimeError(f"{arn} was not made")
        now = float(int(self.now()))
        session = RoleSession(
            role_arn=arn,
            role_id=role.id,
            session_name=session_name,
            policy=None,
            policy_arns=(),
            tags=dict(tags or {}),
            transitive=frozenset(key.lower() for key in transitive),
            source_identity=source_identity,
            issued_at=now,
        )
        return _hub(self.keys.issue(session, expires_at=now + duration_seconds))

    def _user_key(self, account: str, name: str, policy: Document) -> Key:
        with self.world.entered():
            iam = self.world.iam_of(account)
            if name not in iam.users:
                iam.create_user(self.region, name, "/")
                iam.put_user_policy(name, "hub", json.dumps(policy))
            for old in list(iam.users[name].access_keys):
                iam.delete_access_key(old.access_key_id, name)
            made = iam.create_access_key(name)
        key = self.keys.find(made.access_key_id)
        if key is None:
            raise RuntimeError(f"no access key was made for {name}")
        return key

    def put_role(
        self,
        arn: str,
        trust_policy: Document,
        max_session_duration: int = 3600,
        policies: Mapping[str, Document] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Make a role or set it anew (it keeps its id). `policies`: inline, by name.

        Raises MalformedPolicy.
        """
        trust = json.dumps(trust_policy)
        parse(trust, Kind.TRUST)
        inline = {name: json.dumps(document) for name, document in (policies or {}).items()}
        for document in inline.values():
            parse(document, Kind.IDENTITY)
        account = arn.split(":")[4]
        path, _, name = arn.split(":", 5)[5].removeprefix("role").rpartition("/")
        listed = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        with self.world.entered():
            iam = self.world.iam_of(account)
            role = next((r for r in iam.roles.values() if r.arn == arn), None)
            if role is None:
                role = iam.create_role(
                    role_name=name,
                    assume_role_policy_document=trust,
                    path=f"{path}/",
                    permissions_boundary=None,
                    description="",
                    tags=listed,
                    max_session_duration=str(max_session_duration),
                )
            role.assume_role_policy_document = trust
            role.max_session_duration = str(max_session_duration)
            role.tags = listed
            role.policies.clear()
            role.policies.update(inline)

    def put_managed_policy(self, name: str, document: Document) -> str:
        """Make a customer managed policy, or set it anew; its ARN."""
        text = json.dumps(document)
        parse(text, Kind.IDENTITY)
        with self.world.entered():
            iam = self.world.iam_of(self.account_id)
            arn = f"arn:{self.world.partition}:iam::{self.account_id}:policy/{name}"
            iam.managed_policies.pop(arn, None)
            made: str = iam.create_policy("", "/", text, name, []).arn
        return made

    def put_bucket(
        self, name: str, *, policy: Document | None = None, account_id: str | None = None
    ) -> None:
        """Make a bucket where there is none of that name; set or remove its policy."""
        text = None if policy is None else json.dumps(policy)
        if text is not None:
            parse(text, Kind.BUCKET)
        with self.world.entered():
            s3 = self.world.s3_of(account_id or self.account_id)
            if name not in s3.buckets:
                s3.create_bucket(name, self.region)
            s3.buckets[name].policy = None if text is None else text.encode()

    def put_object(self, bucket: str, key: str, body: bytes) -> None:
        with self.world.entered():
            account = self.world.s3.bucket_accounts[bucket][1]
            self.world.s3_of(account).put_object(bucket, key, body)

    def expire(self, access_key_id: str) -> None:
        """Let a role session's credentials be past their time from now on."""
        self.keys.expire(access_key_id, self.now())

    # Dispatch

    def _answer(self, request: Request) -> Response:
        if request.headers.get("host") != self._netloc:
            # Another name would make moto read the address differently than the gate does.
            return query_error(AwsError("InvalidHost", f"This is {self._netloc} alone.", 421))
        try:
            signed = sigv4.read(request)
        except AwsError as error:
            return query_error(error)
        if signed is None:
            form = request.headers.get("content-type", "").startswith("application/x-www-form")
            if form or b"Action=" in request.query.encode():
                return self._sts.answer(request)
            return self._gate.s3(request, None)
        match signed.service:
            case "s3":
                return self._gate.s3(request, signed)
            case "iam":
                return self._gate.iam(request, signed)
            case "sts":
                return self._sts.answer(request)
            case "kms":
                return self.kms.answer(request, signed)
            case _:
                return query_error(
                    AwsError(
                        "NotImplemented", f"{signed.service} is not part of this stand-in", 501
                    )
                )


def _hub(key: Key) -> HubCredentials:
    return HubCredentials(key.access_key_id, key.secret_access_key, key.session_token, key.arn)
