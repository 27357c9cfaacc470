"""The broker's footing in one AWS partition: credentials, identity, endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from broker.adapters.sts import answer, query
from broker.adapters.sts.config import StsConfig
from broker.adapters.sts.connection import NotSent
from broker.adapters.sts.credentials import BaseCredentials, NoBaseCredentials
from broker.adapters.sts.endpoint import Endpoint, EndpointError, resolve
from broker.adapters.sts.exchange import Observe, exchange
from broker.adapters.sts.pool import Pool
from broker.adapters.sts.refusal import BASE_REFUSED, Asked
from broker.adapters.sts.sigv4 import Signer
from broker.errors import AwsUnavailable
from broker.issuance.sts import AssumeRole, CallerIdentity, Credentials, Minted, StsFailure

logger = logging.getLogger(__name__)

# One exchange takes 12 s at most; finding credentials and identity first may take as long again.
WHOLE_CALL_SECONDS = 25.0


class Partition:
    """Its methods raise StsFailure unless they say otherwise."""

    def __init__(
        self, config: StsConfig, pool: Pool, clock: Callable[[], datetime], observe: Observe
    ) -> None:
        self.config = config
        self._observe = observe
        self._pool = pool
        self._clock = clock
        self._credentials = BaseCredentials(config)
        self._endpoints: dict[str, Endpoint] = {}
        self._resolving = asyncio.Lock()
        self._identity: CallerIdentity | None = None
        self._identifying = asyncio.Lock()

    async def aclose(self) -> None:
        await self._credentials.aclose()

    def chained(self) -> bool:
        """A session token means a role session (or GetSessionToken's, which is capped alike).

        True while nothing is known: the lower cap never fails at STS.
        """
        if self.config.chained != "auto":
            return self.config.chained
        if self._identity is not None and self._identity.is_role_session:
            return True
        return self._credentials.token_present is not False

    async def endpoint(self, region: str) -> Endpoint:
        """Kept for good: endpoints are a matter of settings. Raises EndpointError."""
        if region not in self._endpoints:
            async with self._resolving:  # it costs 60 ms of CPU: once for a burst, not once each
                if region not in self._endpoints:
                    found = await asyncio.to_thread(resolve, self.config, region)
                    self._endpoints[region] = found
        return self._endpoints[region]

    async def reach(self) -> None:
        """Connect to the endpoint of the settings' region. Raises OSError."""
        try:
            await self._pool.reach(await self.endpoint(self.config.region))
        except (EndpointError, NotSent) as error:
            raise ConnectionError(str(error)) from error

    async def identify(self) -> CallerIdentity:
        """Who the base credentials belong to, asked of STS now."""
        try:
            with _alarm_where_odd(self._observe):
                reply = await self._ask(None, query.GET_CALLER_IDENTITY, self.config.region)
                self._identity = answer.caller_identity(reply)
        except StsFailure as failure:
            failure.outcome_unknown = False  # asking who one is mints nothing
            raise
        if self._identity.is_user and self._credentials.token_present is False:
            logger.warning(
                "The broker's AWS identity %s is a user with long-term keys, which leak and never "
                "expire; run it as a role instead (instance profile, IRSA, Pod Identity)",
                self._identity.arn,
            )
        return self._identity

    async def assume_role(self, call: AssumeRole, credentials: Credentials | None = None) -> Minted:
        """Ends in WHOLE_CALL_SECONDS, well before the reaper takes the intent for an orphan."""
        try:
            async with asyncio.timeout(WHOLE_CALL_SECONDS):
                await self._require_harmless_identity()
                with _alarm_where_odd(self._observe):
                    region = call.region or self.config.region
                    body = query.assume_role(call)
                    if credentials is None:
                        reply = await self._ask(call, body, region)
                    else:
                        endpoint = await self._usable_endpoint(region)
                        reply = await self._exchange(endpoint, body, _of(credentials), call)
                    return answer.minted(reply, call, self._clock())
        except TimeoutError as error:
            raise StsFailure(
                AwsUnavailable(
                    "AWS took too long. Nothing was given to you; try again.",
                    log_detail=f"no outcome within {WHOLE_CALL_SECONDS:.0f} s",
                ),
                outcome_unknown=True,
            ) from error

    async def _require_harmless_identity(self) -> None:
        """No policy narrows the root user, so the broker does nothing in its name."""
        identity = self._identity
        if identity is None:
            async with self._identifying:
                identity = self._identity or await self.identify()
        if identity.is_root:
            raise StsFailure(
                AwsUnavailable(
                    "The broker runs as an AWS account's root user, and gives out nothing so. Ask "
                    "the operator to run it as an IAM role.",
                    log_detail=f"the base credentials belong to {identity.arn}",
                ),
                alarm=True,
            )

    async def _ask(self, call: AssumeRole | None, body: bytes, region: str) -> answer.Reply:
        """The 200 answer. Where AWS refused the base credentials, newer ones are tried once: a
        refused call has minted nothing.
        """
        endpoint = await self._usable_endpoint(region)
        signer = await self._signer()
        try:
            return await self._exchange(endpoint, body, signer, call)
        except StsFailure as failure:
            if failure.sts_code not in BASE_REFUSED or not self._credentials.renew(signer):
                raise
        self._identity = None
        if call is not None:
            await self._require_harmless_identity()
        return await self._exchange(endpoint, body, await self._signer(), call)

    async def _exchange(
        self, endpoint: Endpoint, body: bytes, signer: Signer, call: AssumeRole | None
    ) -> answer.Reply:
        base_arn = None if self._identity is None else self._identity.arn
        if call is not None and call.after is not None:
            base_arn = call.after.role_arn
        asked = Asked(call, base_arn, endpoint.region, self._clock())
        return await exchange(self._pool, endpoint, body, signer, asked, self._clock, self._observe)

    async def _usable_endpoint(self, region: str) -> Endpoint:
        try:
            return await self.endpoint(region)
        except EndpointError as error:
            raise _unusable(
                "The broker has no usable AWS endpoint. Ask the operator to check the region of "
                "the account and the AWS settings.",
                error,
            ) from error

    async def _signer(self) -> Signer:
        try:
            return await self._credentials.signer()
        except NoBaseCredentials as error:
            raise _unusable(
                "The broker has no AWS credentials of its own. Ask the operator to give it an IAM "
                "role; `broker doctor` checks it.",
                error,
            ) from error


def _of(credentials: Credentials) -> Signer:
    return Signer(
        credentials.access_key_id, credentials.secret_access_key, credentials.session_token
    )


def _unusable(detail: str, error: Exception) -> StsFailure:
    return StsFailure(AwsUnavailable(detail, log_detail=str(error)))


@contextmanager
def _alarm_where_odd(observe: Observe) -> Iterator[None]:
    """Discard an odd answer: StsFailure with `alarm`, and an error in the log."""
    try:
        yield
    except answer.OddAnswer as odd:
        observe("odd", None)
        # Not `exception`: the reason is the message, and a trace adds nothing.
        message = "An odd answer of STS was discarded (request %s): %s"
        logger.error(message, odd.request_id, odd)  # noqa: TRY400 - as said above
        raise StsFailure(
            AwsUnavailable(
                "AWS gave an answer that the broker does not trust, and discarded. Ask the "
                "operator: the log says what was odd, under this request's id.",
                log_detail=f"odd answer of STS, request {odd.request_id}: {odd.reason}",
            ),
            request_id=odd.request_id,
            outcome_unknown=odd.may_have_minted,
            alarm=True,
        ) from odd
