"""A fresh stand-in for each test, and stock boto3 clients against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config

from broker.devstack.aws import AwsStandIn, DemoAccount, HubCredentials, seed_demo

# One session, so that botocore reads its models once.
_SESSION = boto3.Session(
    aws_access_key_id="unused", aws_secret_access_key="unused", region_name="us-east-1"
)
Client = Callable[..., Any]


@pytest.fixture
def standin() -> Iterator[AwsStandIn]:
    with AwsStandIn.start() as running:
        yield running


@pytest.fixture
def demo(standin: AwsStandIn) -> DemoAccount:
    return seed_demo(standin)


@pytest.fixture
def client(standin: AwsStandIn) -> Iterator[Client]:
    """`client("s3", credentials)`: the credentials of AssumeRole's answer, or a hub's."""
    made: list[Any] = []

    def make(service: str, credentials: HubCredentials | Mapping[str, Any], **config: Any) -> Any:
        if isinstance(credentials, HubCredentials):
            arguments = credentials.client_arguments()
        else:
            arguments = {
                "aws_access_key_id": credentials["AccessKeyId"],
                "aws_secret_access_key": credentials["SecretAccessKey"],
                "aws_session_token": credentials["SessionToken"],
            }
        made.append(
            _SESSION.client(
                service,
                endpoint_url=standin.url,
                config=Config(retries={"total_max_attempts": 1}, **{"read_timeout": 5, **config}),
                **arguments,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def call(demo: DemoAccount, client: Client) -> Callable[..., Any]:
    """AssumeRole as the demo's hub, which is a role session, with a call that succeeds."""
    sts = client("sts", demo.hub)

    def assume(**changes: Any) -> Any:
        arguments = {
            "RoleArn": demo.data_reader_arn,
            "RoleSessionName": "ada-0123",
            "ExternalId": demo.external_id,
            **changes,
        }
        return sts.assume_role(**{k: v for k, v in arguments.items() if v is not None})

    return assume
