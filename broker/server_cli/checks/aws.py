"""Who the broker is at AWS, in each partition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.adapters.iam import IamReader
from broker.adapters.sts import StsClient
from broker.adapters.sts.credentials import NoBaseCredentials
from broker.adapters.sts.endpoint import EndpointError
from broker.errors import StartupError
from broker.issuance.sts import CallerIdentity, StsFailure
from broker.outside_setup import sts_config
from broker.server_cli.checks.check import Check, clock, fail, ok, warn, within
from broker.settings import Aws

# Finding credentials takes 10 s at most, one question to STS 12.
_SECONDS = 25.0
_REACH = (
    "check the network from this host to STS, HTTPS_PROXY and NO_PROXY, and AWS_CA_BUNDLE; "
    "[[aws]] sts_endpoint_url, AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL name another endpoint"
)
_IDENTITY = "give this host an IAM role (instance profile, IRSA, Pod Identity, ECS task role)"


@dataclass(slots=True)
class Footing:
    """The broker in one partition. `identity` is None where it could not be learnt."""

    aws: Aws
    sts: StsClient
    iam: IamReader
    identity: CallerIdentity | None = None

    @property
    def chained(self) -> bool:
        return self.sts.chained(self.aws.partition)


@asynccontextmanager
async def footing_in(aws: Aws) -> AsyncIterator[Footing]:
    """Raises StartupError for a bad AWS_CA_BUNDLE."""
    sts = StsClient((sts_config(aws),))
    sts.open()
    try:
        yield Footing(aws, sts, IamReader(aws.region, aws.profile))
    finally:
        await sts.aclose()


async def identity_checks(footing: Footing) -> list[Check]:
    """Fills in the footing's identity."""
    return await within(_SECONDS, _name(footing.aws), _checks(footing), cure=_REACH)


async def _checks(footing: Footing) -> list[Check]:
    name, partition = _name(footing.aws), footing.aws.partition
    before = datetime.now(UTC)
    try:
        identity = await footing.sts.identify(partition)
    except StsFailure as failure:
        return [_failed(name, failure)]
    ours = before + (datetime.now(UTC) - before) / 2
    checks = [_identity(footing, name, identity)]
    if identity.answered_at is not None:
        checks.append(clock(f"{partition} clock", "AWS STS", identity.answered_at, ours))
    return checks


def _identity(footing: Footing, name: str, identity: CallerIdentity) -> Check:
    if identity.is_root:
        return fail(
            name,
            f"the credentials are of the root user of account {identity.account}, whom no policy "
            "limits; the broker does not start so",
            f"{_IDENTITY}, and delete the root user's access keys",
        )
    footing.identity = identity
    if identity.is_role_session and footing.aws.chained is False:
        return fail(
            name,
            f"{identity.arn} is a role session, but [[aws]] says chained = false: AWS will refuse "
            "everything over an hour",
            'leave chained out of [[aws]], or write "auto"',
        )
    if identity.is_user and not footing.chained:
        return warn(
            name,
            f"{identity.arn} is a user with long-term keys, which leak and never expire (not "
            "chained: sessions of over an hour are possible)",
            _IDENTITY,
        )
    session = "chained: one hour at most" if footing.chained else "not chained"
    return ok(name, f"{identity.arn} ({session})")


def _failed(name: str, failure: StsFailure) -> Check:
    said = failure.error.log_detail or failure.error.detail
    cause = failure.__cause__
    if isinstance(cause, NoBaseCredentials):
        return fail(
            name, f"the broker has no AWS credentials: {said}", f"{_IDENTITY}, or set a profile"
        )
    if isinstance(cause, EndpointError):
        return fail(name, said, "correct region and sts_endpoint_url of [[aws]]")
    if failure.sts_code is None:
        return fail(name, said, _REACH)
    # The broker's own words for what STS refuses name the cure: the clock, newer credentials.
    return fail(name, said, failure.error.detail)


def _name(aws: Aws) -> str:
    """`aws identity`, `aws-cn identity`."""
    return f"{aws.partition} identity"


def unusable(aws: Aws, fault: StartupError) -> list[Check]:
    return [fail(_name(aws), str(fault), "correct AWS_CA_BUNDLE")]
