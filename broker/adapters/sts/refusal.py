"""What each refusal of STS means to the person who asked, and to the operator.

The person gets the broker's own words, which name the cure; STS's message, which
may name other people's objects, goes to the operator's log alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from broker.adapters.sts.answer import Refusal
from broker.errors import (
    AwsDenied,
    AwsThrottled,
    AwsUnavailable,
    BrokerError,
    ScopeTooLarge,
)
from broker.issuance.sts import AssumeRole, StsFailure

RETRY_AFTER_SECONDS = 5

THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "SlowDown",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
    }
)
# The base credentials are at fault: newer ones may be taken.
BASE_REFUSED = frozenset({"ExpiredToken", "InvalidClientTokenId", "UnrecognizedClientException"})

_ACTION = re.compile(r"not authorized to perform: (sts:[A-Za-z]{1,40})")
_PERCENT = re.compile(r"([0-9]{1,6})%")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, by whom, where: what a cure has to name. `call` is None for
    GetCallerIdentity; `base_arn` is None until the broker's identity is known.
    """

    call: AssumeRole | None
    base_arn: str | None
    region: str
    now: datetime


def is_throttle(refusal: Refusal) -> bool:
    return refusal.code in THROTTLED or refusal.status == 429


def failure(refusal: Refusal, asked: Asked) -> StsFailure:
    """The StsFailure for a refusal: nothing was minted."""
    if is_throttle(refusal):
        error: BrokerError = AwsThrottled(retry_after=RETRY_AFTER_SECONDS)
    elif refusal.status >= 500:
        error = AwsUnavailable("AWS STS has a fault of its own; try again in a minute.")
    else:
        error = _CURES.get(refusal.code, _other)(refusal, asked)
    error.log_detail = (
        f"STS answered {refusal.status} {refusal.code}, request {refusal.request_id}: "
        f"{refusal.message}"
    )
    return StsFailure(
        error,
        sts_code=refusal.code,
        sts_message=refusal.message,
        request_id=refusal.request_id,
    )


def _validation(refusal: Refusal, asked: Asked) -> BrokerError:
    message = refusal.message
    if "MaxSessionDuration" in message:
        return AwsDenied(
            "Ask for less time, and ask the operator: role_maximum in the access policy is above "
            "the role's MaxSessionDuration in AWS; `broker doctor` compares them."
        )
    if "role chaining" in message:
        return AwsDenied(
            "Ask for 3600 seconds or less, and ask the operator: the broker's own credentials are "
            "a role session's, for which AWS gives one hour at most, but the setting `chained` "
            f"of partition {_partition(asked)} says otherwise."
        )
    if "'policy'" in message and "length" in message:
        return ScopeTooLarge("The session policy is over the 2048 characters that AWS takes.")
    return AwsDenied(
        "AWS found the call malformed. Ask the operator: the log has what AWS said, under this "
        "request's id."
    )


def _access_denied(refusal: Refusal, asked: Asked) -> BrokerError:
    if asked.call is None:
        return AwsUnavailable(
            "The broker's own AWS credentials may not even be looked up. Ask the operator to run "
            "`broker doctor`."
        )
    found = _ACTION.search(refusal.message)
    refused = found.group(1) if found else "sts:AssumeRole"
    external_id = "" if asked.call.external_id is None else ", given the ExternalId it sends"
    return AwsDenied(
        f"AWS refused {refused}. Ask the operator: {asked.call.role_arn} must exist, and both its "
        f"trust policy{external_id} and the broker's own policy must let "
        f"{asked.base_arn or 'the broker'} do sts:AssumeRole, sts:TagSession and "
        "sts:SetSourceIdentity; `broker doctor` finds which is missing."
    )


def _packed(refusal: Refusal, asked: Asked) -> BrokerError:
    found = _PERCENT.search(refusal.message)
    share = f"{found.group(1)}% of" if found else "more than"
    return ScopeTooLarge(
        f"The session policy and tags take {share} the space that AWS gives. Use fewer or shorter "
        "parameters and restrictions, or ask the operator to shorten the role's policy and tags."
    )


def _malformed_policy(refusal: Refusal, asked: Asked) -> BrokerError:
    return AwsDenied(
        "AWS does not accept the session policy. Check your restrictions if you gave any; else ask "
        "the operator: `broker access lint` and the log say more."
    )


def _region_disabled(refusal: Refusal, asked: Asked) -> BrokerError:
    account = asked.call.role_arn.split(":")[4] if asked.call else "the broker's account"
    return AwsDenied(
        f"STS is not activated in {asked.region} for account {account}. Ask the operator to "
        "activate it (IAM console, account settings) or to set another region for the account "
        "in the access policy."
    )


def _base_refused(refusal: Refusal, asked: Asked) -> BrokerError:
    return AwsUnavailable(
        "AWS does not accept the broker's own credentials: expired, deleted, or of a region that "
        "is not enabled. Ask the operator to renew them; `broker doctor` checks them."
    )


def _signature(refusal: Refusal, asked: Asked) -> BrokerError:
    clock = ("expired", "not yet current", "too skewed", "RequestExpired", "RequestTimeTooSkewed")
    text = f"{refusal.code} {refusal.message}"
    if any(word in text for word in clock):
        return AwsUnavailable(
            f"The clock of the broker's host is wrong{_skew(refusal, asked)}, so AWS does not "
            "accept its signatures. Ask the operator to set the clock (NTP)."
        )
    return AwsUnavailable(
        "AWS does not accept the broker's signature. Ask the operator: the broker's secret access "
        "key does not belong to its access key id, or a proxy changes its requests."
    )


def _skew(refusal: Refusal, asked: Asked) -> str:
    try:
        theirs = parsedate_to_datetime(refusal.date or "")
        seconds = round((asked.now - theirs).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone: nothing to compare with
        return ""
    return f" by {abs(seconds)} s ({'ahead' if seconds > 0 else 'behind'})"


def _other(refusal: Refusal, asked: Asked) -> BrokerError:
    return AwsDenied(
        f"AWS refused with {refusal.code}. Ask the operator: the log has what AWS said, under this "
        "request's id."
    )


def _partition(asked: Asked) -> str:
    return asked.call.partition if asked.call else "of this region"


_CURES: Mapping[str, Callable[[Refusal, Asked], BrokerError]] = {
    "ValidationError": _validation,
    "AccessDenied": _access_denied,
    "AccessDeniedException": _access_denied,
    "PackedPolicyTooLarge": _packed,
    "MalformedPolicyDocument": _malformed_policy,
    "RegionDisabledException": _region_disabled,
    "ExpiredToken": _base_refused,
    "InvalidClientTokenId": _base_refused,
    "UnrecognizedClientException": _base_refused,
    "SignatureDoesNotMatch": _signature,
    "IncompleteSignature": _signature,
    "RequestExpired": _signature,
    "RequestTimeTooSkewed": _signature,
}
# Every code that the broker knows the meaning of.
KNOWN_CODES = (
    THROTTLED
    | _CURES.keys()
    | {"InternalFailure", "InternalError", "ServiceUnavailable", "ServiceFailure"}
    | {"429", "500", "502", "503", "504"}
)
