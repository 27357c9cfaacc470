"""Planned misbehaviour, seen by a client; and the record of calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from broker.devstack.aws import AwsStandIn, DemoAccount, Fault

Client = Callable[..., Any]


@pytest.fixture
def assume(demo: DemoAccount, client: Client) -> Callable[[], Any]:
    sts = client("sts", demo.hub, read_timeout=0.5)
    return lambda: sts.assume_role(
        RoleArn=demo.data_reader_arn,
        RoleSessionName="ada",
        ExternalId=demo.external_id,
        SourceIdentity="p-ada",
    )


@pytest.mark.parametrize(
    ("fault", "options", "code", "status"),
    [
        (Fault.THROTTLE, {}, "Throttling", 400),
        (Fault.SERVER_ERROR, {}, "ServiceUnavailable", 503),
        (Fault.SERVER_ERROR, {"status": 500}, "InternalFailure", 500),
        (Fault.EMPTY_MESSAGE, {}, "AccessDenied", 403),
        (Fault.REGION_DISABLED, {}, "RegionDisabledException", 403),
    ],
)
def test_refusals(
    standin: AwsStandIn,
    assume: Callable[[], Any],
    fault: Fault,
    options: Any,
    code: str,
    status: int,
) -> None:
    standin.faults.add(fault, **options)
    with pytest.raises(ClientError) as caught:
        assume()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    [seen] = standin.calls
    assert (seen.fault, seen.outcome, seen.issued_key_id) == (fault, code, None)
    # Used up: the next call is served.
    assert assume()["Credentials"]


@pytest.mark.parametrize(
    ("fault", "error", "issued"),
    [
        (Fault.DROP_BEFORE, ConnectionClosedError, False),
        (Fault.DROP_AFTER, ConnectionClosedError, True),
        (Fault.MALFORMED_XML, ResponseParserError, True),
    ],
)
def test_broken_lines(
    standin: AwsStandIn,
    assume: Callable[[], Any],
    fault: Fault,
    error: type[Exception],
    issued: bool,
) -> None:
    standin.faults.add(fault)
    with pytest.raises(error):
        assume()
    [seen] = standin.calls
    assert (seen.issued_key_id is not None) is issued


def test_hanging_past_the_read_timeout_after_minting(
    standin: AwsStandIn, assume: Callable[[], Any]
) -> None:
    standin.faults.add(Fault.HANG, seconds=60)
    with pytest.raises(ReadTimeoutError):
        assume()
    [seen] = standin.calls
    assert seen.issued_key_id is not None
    standin.faults.clear()
    assert assume()["Credentials"]


def test_a_delay_ends_with_the_plan(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    sts = client("sts", demo.hub)
    standin.faults.add(Fault.DELAY, seconds=60)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            sts.assume_role,
            RoleArn=demo.data_reader_arn,
            RoleSessionName="ada",
            ExternalId=demo.external_id,
        )
        assert not answer.done()
        standin.faults.clear()
        # Cleared before it was taken, or while it waited: answered in either case.
        assert answer.result(timeout=10)["Credentials"]


def test_answers_about_something_else(standin: AwsStandIn, assume: Callable[[], Any]) -> None:
    right = assume()
    arn = right["AssumedRoleUser"]["Arn"]

    def wrong(fault: Fault) -> Any:
        standin.faults.add(fault)
        return assume()

    assert wrong(Fault.EXPIRED)["Credentials"]["Expiration"] < datetime.now(UTC)
    assert wrong(Fault.OTHER_ROLE)["AssumedRoleUser"]["Arn"].endswith("/Other/ada")
    assert ":999999999999:" in wrong(Fault.OTHER_ACCOUNT)["AssumedRoleUser"]["Arn"]
    other = wrong(Fault.OTHER_SESSION_NAME)["AssumedRoleUser"]
    assert other["Arn"] != arn
    assert other["Arn"].rsplit("/", 1)[1] == other["AssumedRoleId"].split(":")[1]
    assert wrong(Fault.OTHER_SOURCE_IDENTITY)["SourceIdentity"] != "p-ada"
    assert "Credentials" not in wrong(Fault.NO_CREDENTIALS)


def test_a_huge_body(standin: AwsStandIn, assume: Callable[[], Any]) -> None:
    standin.faults.add(Fault.HUGE_BODY, size=2 * 1024 * 1024)
    answer = assume()
    assert int(answer["ResponseMetadata"]["HTTPHeaders"]["content-length"]) > 2 * 1024 * 1024


def test_no_namespace(standin: AwsStandIn, assume: Callable[[], Any]) -> None:
    # botocore does not look at it; whoever reads XML by namespace must notice.
    standin.faults.add(Fault.NO_NAMESPACE)
    assert assume()["Credentials"]
    assert standin.calls[-1].fault is Fault.NO_NAMESPACE


def test_a_fault_that_lasts_until_it_is_cleared(
    standin: AwsStandIn, assume: Callable[[], Any]
) -> None:
    standin.faults.add(Fault.THROTTLE, times=None)
    for _ in range(3):
        with pytest.raises(ClientError):
            assume()
    standin.faults.clear()
    assert assume()["Credentials"]
    assert [call.outcome for call in standin.calls] == ["Throttling"] * 3 + ["ok"]


def test_faults_of_one_action_leave_the_others(
    standin: AwsStandIn, demo: DemoAccount, client: Client
) -> None:
    standin.faults.add(Fault.THROTTLE, times=None)
    assert client("sts", demo.hub).get_caller_identity()
    standin.faults.add(Fault.SERVER_ERROR, action="GetCallerIdentity")
    with pytest.raises(ClientError):
        client("sts", demo.hub).get_caller_identity()


def test_the_record_of_calls(standin: AwsStandIn, assume: Callable[[], Any]) -> None:
    assert len(standin.calls) == 0
    assume()
    assert standin.calls.wait_for(1)
    assert not standin.calls.wait_for(2, timeout=0)
    [call] = standin.calls.of("AssumeRole")
    assert call.parameters["RoleSessionName"] == "ada"
    assert "Secret" not in repr(call)
    standin.calls.clear()
    assert len(standin.calls) == 0


def test_sixty_four_at_once(standin: AwsStandIn, demo: DemoAccount, client: Client) -> None:
    sts = client("sts", demo.hub, max_pool_connections=64, read_timeout=30)
    together = threading.Barrier(64)

    def one(number: int) -> str:
        together.wait(timeout=30)
        answer = sts.assume_role(
            RoleArn=demo.data_reader_arn,
            RoleSessionName=f"ada-{number}",
            ExternalId=demo.external_id,
        )
        key: str = answer["Credentials"]["AccessKeyId"]
        return key

    started = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        keys = set(pool.map(one, range(64)))
    assert len(keys) == 64
    assert {call.issued_key_id for call in standin.calls} == keys
    assert time.monotonic() - started < 30
