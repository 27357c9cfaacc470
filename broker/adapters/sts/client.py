"""The one entry to STS: `StsClient` implements `issuance.sts.Sts`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from broker.adapters.sts.config import StsConfig
from broker.adapters.sts.connection import Timeouts
from broker.adapters.sts.endpoint import EndpointError
from broker.adapters.sts.exchange import Observe
from broker.adapters.sts.partition import Partition
from broker.adapters.sts.pool import Pool
from broker.errors import AwsUnavailable, StartupError
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted, StsFailure

logger = logging.getLogger(__name__)

_DEFAULT_TIMEOUTS = Timeouts()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class StsClient:
    """STS in every configured partition. Between `start()` and `aclose()` it may be used by any
    number of tasks at once.
    """

    def __init__(
        self,
        configs: tuple[StsConfig, ...],
        *,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        clock: Callable[[], datetime] = _utc_now,
        observe: Observe = lambda _result, _code: None,
    ) -> None:
        """Raises StartupError where two configs name one partition."""
        self._pool = Pool(timeouts)
        self._partitions = {c.partition: Partition(c, self._pool, clock, observe) for c in configs}
        if len(self._partitions) != len(configs):
            raise StartupError("Two [[aws]] settings name one partition; keep one of them.")

    async def start(self) -> None:
        """Resolve endpoints and base credentials, and learn who the broker is at AWS.

        An unreachable STS is logged and asked again before the first issuance.
        Raises StartupError for an unusable endpoint or a root user as identity.
        """
        self.open()
        await asyncio.gather(*(_start(p) for p in self._partitions.values()))

    def open(self) -> None:
        """Make ready and ask nothing yet. Raises StartupError for a bad AWS_CA_BUNDLE."""
        self._pool.open()

    async def aclose(self) -> None:
        for partition in self._partitions.values():
            await partition.aclose()
        await self._pool.aclose()

    def chained(self, partition: str) -> bool:
        """Whether the base credentials are a role session's: STS then gives 3600 s at most."""
        known = self._partitions.get(partition)
        return known is None or known.chained()

    async def identify(self, partition: str) -> CallerIdentity:
        """GetCallerIdentity of the base credentials. Raises StsFailure."""
        return await self._partition(partition).identify()

    async def reach(self, partition: str) -> None:
        """Connect to STS of a partition, and ask nothing. Raises OSError."""
        await self._partition(partition).reach()

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        """With the base credentials, or with a hop's. Raises StsFailure."""
        return await self._partition(call.partition).assume_role(call, credentials)

    def _partition(self, name: str) -> Partition:
        if name not in self._partitions:
            raise StsFailure(
                AwsUnavailable(
                    f"The broker is not set up for AWS partition {name}. Ask the operator to add "
                    "an [[aws]] section for it to the settings."
                )
            )
        return self._partitions[name]


async def _start(partition: Partition) -> None:
    name = partition.config.partition
    try:
        await partition.endpoint(partition.config.region)
    except EndpointError as error:
        raise StartupError(f"[[aws]] of partition {name}: {error}") from error
    try:
        identity = await partition.identify()
    except StsFailure as failure:
        logger.warning(
            "The broker's identity in AWS partition %s is not known yet, it is asked for again "
            "before the first issuance: %s",
            name,
            failure.error.log_detail or failure.error.detail,
        )
        return
    if identity.is_root:
        raise StartupError(
            f"The AWS credentials of the broker belong to the root user of account "
            f"{identity.account}; give it an IAM role, and delete the root user's access keys."
        )
    logger.info(
        "The broker is %s in AWS partition %s (%s)",
        identity.arn,
        name,
        "role session: one hour at most" if partition.chained() else "not chained",
    )
