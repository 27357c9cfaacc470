"""Objects in S3, on a stand-in of AWS that checks signatures and rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from broker.adapters.sinks.s3 import S3Config, S3Sink
from broker.adapters.sinks.sink import Batch, DeliveryFailed
from broker.devstack.aws import AwsStandIn
from tests.sinks.conftest import make_batch

REGION = "us-east-1"


def allow(actions: str, resource: str) -> dict[str, object]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}


class World:
    """A bucket, its owner, and a broker that may put objects under broker/ alone."""

    def __init__(self, aws: AwsStandIn) -> None:
        self.url = aws.url
        owner = aws.hub_credentials("user", name="owner", policy=allow("s3:*", "*"))
        self.owner: Any = boto3.client(
            "s3", endpoint_url=aws.url, region_name=REGION, **owner.client_arguments()
        )
        self.owner.create_bucket(Bucket="logs")
        self.broker = aws.hub_credentials(
            name="broker", policy=allow("s3:PutObject", "arn:aws:s3:::logs/broker/*")
        )

    def objects(self) -> dict[str, bytes]:
        listed = self.owner.list_objects_v2(Bucket="logs").get("Contents", [])
        return {
            one["Key"]: self.owner.get_object(Bucket="logs", Key=one["Key"])["Body"].read()
            for one in listed
        }


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with AwsStandIn.start() as aws:
        made = World(aws)
        for name, value in made.broker.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def sink(world: World, **changes: Any) -> S3Sink:
    values: dict[str, Any] = {
        "bucket": "logs",
        "prefix": "broker/",
        "seconds": 30.0,
        "region": REGION,
        "endpoint_url": world.url,
    }
    return S3Sink("s3", S3Config(**(values | changes)))


async def test_objects_are_named_by_what_is_in_them_and_a_repeat_changes_nothing(
    world: World,
) -> None:
    made = sink(world)
    first, second = make_batch(1, 10), make_batch(11, 5)
    for batch in (first, second, first, second):
        await made.deliver(batch)
    await made.aclose()
    assert world.objects() == {name(first): first.json_lines, name(second): second.json_lines}
    assert sorted(world.objects()) == [name(first), name(second)]


def name(batch: Batch) -> str:
    chain = batch.records[-1].chain.hex()[:16]
    return f"broker/{batch.first:020d}-{batch.last:020d}-{chain}.jsonl"


async def test_a_log_that_was_rolled_back_overwrites_nothing(world: World) -> None:
    made = sink(world)
    before, after = make_batch(1, 3), make_batch(1, 3, pad=1)
    await made.deliver(before)
    await made.deliver(after)
    await made.aclose()
    assert set(world.objects().values()) == {before.json_lines, after.json_lines}


async def test_encryption_is_asked_for(world: World) -> None:
    made = sink(world, encryption="aws:kms", kms_key_id="alias/audit")
    batch = make_batch()
    await made.deliver(batch)
    await made.aclose()
    head = world.owner.head_object(Bucket="logs", Key=name(batch))
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"].endswith("alias/audit")
    assert head["ContentType"] == "application/x-ndjson"


async def test_what_s3_refuses_is_said_without_its_words(world: World) -> None:
    cases = {"elsewhere/": "AccessDenied"}
    for prefix, code in cases.items():
        made = sink(world, prefix=prefix)
        with pytest.raises(DeliveryFailed, match=f"^S3 said {code}$") as failed:
            await made.deliver(make_batch())
        assert failed.value.refused
        await made.aclose()
    assert world.objects() == {}


async def test_an_s3_that_is_not_there_is_a_failure_that_passes(world: World) -> None:
    made = sink(world, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(DeliveryFailed, match="can't be asked") as failed:
        await made.deliver(make_batch())
    assert not failed.value.refused
    await made.aclose()
