"""One question to STS and its answer, asked again only where that cannot mint twice.

Asked again: after a connection that never came about, a throttle, a 5xx. Never:
after a time-out or a line that broke once the request may have been sent, since
STS may have minted; that ends as `outcome_unknown`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime

from broker.adapters import trace_context
from broker.adapters.sts import refusal as refusals
from broker.adapters.sts.answer import OddAnswer, Reply, refusal
from broker.adapters.sts.connection import LineCut, NotSent
from broker.adapters.sts.endpoint import Endpoint
from broker.adapters.sts.pool import Pool
from broker.adapters.sts.sigv4 import Signer
from broker.errors import AwsThrottled, AwsUnavailable
from broker.issuance.sts import StsFailure

# Told of each attempt by itself: how it ended (ok, throttled, refused, server_fault, not_sent, cut)
# and the code of STS's error where it gave one; and of an answer that was discarded (odd).
Observe = Callable[[str, str | None], None]

# Longest pauses before the second and third attempt; half of each is random.
PAUSES = (0.3, 0.9)
TOTAL_SECONDS = 12.0
# An attempt with less time than this could only fail with its outcome unknown.
_LEAST_SECONDS = 1.0


async def exchange(
    pool: Pool,
    endpoint: Endpoint,
    body: bytes,
    signer: Signer,
    asked: refusals.Asked,
    clock: Callable[[], datetime],
    observe: Observe = lambda _result, _code: None,
) -> Reply:
    """The 200 answer, unread. Raises StsFailure, OddAnswer."""
    deadline = time.monotonic() + TOTAL_SECONDS
    for pause in (*PAUSES, None):
        left = deadline - time.monotonic()
        try:
            headers = signer.sign(endpoint, body, clock())
            if (parent := trace_context.outgoing.get()) is not None:
                headers["traceparent"] = parent
            reply = await pool.post(endpoint, headers, body, within=left)
        except NotSent as error:
            observe("not_sent", None)
            failure = _not_sent(endpoint, error)
        except LineCut as error:
            observe("cut", None)
            raise _outcome_unknown(error) from error
        else:
            if reply.status == 200:
                observe("ok", None)
                return reply
            failure, passing = _refused(reply, asked)
            observe(_kind(failure, reply, passing=passing), failure.sts_code)
            if not passing:
                raise failure
        if pause is None or time.monotonic() + pause + _LEAST_SECONDS > deadline:
            break
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, no secret
    raise failure


def _refused(reply: Reply, asked: refusals.Asked) -> tuple[StsFailure, bool]:
    """The failure, and whether it may pass by itself. Raises OddAnswer."""
    try:
        said = refusal(reply)
    except OddAnswer:
        # Load balancers answer throttles and faults in their own words: no alarm for those.
        if reply.status == 429:
            throttled = AwsThrottled(retry_after=refusals.RETRY_AFTER_SECONDS)
            return StsFailure(throttled, sts_code="429"), True
        if reply.status >= 500:
            return StsFailure(_server_fault(reply), sts_code=str(reply.status)), True
        raise
    return refusals.failure(said, asked), refusals.is_throttle(said) or reply.status >= 500


def _kind(failure: StsFailure, reply: Reply, *, passing: bool) -> str:
    if isinstance(failure.error, AwsThrottled):
        return "throttled"
    return "server_fault" if passing or reply.status >= 500 else "refused"


def _server_fault(reply: Reply) -> AwsUnavailable:
    return AwsUnavailable(
        "AWS STS has a fault of its own; try again in a minute.",
        log_detail=f"STS answered {reply.status} without an explanation",
    )


def _not_sent(endpoint: Endpoint, error: NotSent) -> StsFailure:
    return StsFailure(
        AwsUnavailable(
            "The broker can't reach AWS STS. Ask the operator: `broker doctor` checks the network, "
            "the proxy and the certificate authorities (AWS_CA_BUNDLE).",
            log_detail=f"no connection to {endpoint.host}: {error}",
        )
    )


def _outcome_unknown(error: LineCut) -> StsFailure:
    return StsFailure(
        AwsUnavailable(
            "The line to AWS broke before its answer came. Nothing was given to you; try again.",
            log_detail=f"the outcome at STS is unknown: {error}",
        ),
        outcome_unknown=True,
    )
