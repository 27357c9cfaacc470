"""Batches of records as objects in an S3 bucket.

Owns an object's name, which says what is in it: first and last sequence number
and the chain's value after the last record. So a batch that is repeated writes
the same bytes over the same object, and a log that was rolled back to an older
backup overwrites nothing of what it had become before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from broker.adapters.sinks.sink import Batch, DeliveryFailed, OwnThread

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
Encryption = Literal["AES256", "aws:kms"]
# What does not pass by itself: somebody has to allow, create or correct something.
_REFUSALS = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "NoSuchBucket",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "SignatureDoesNotMatch",
        "InvalidBucketName",
        "KMS.NotFoundException",
        "KMS.DisabledException",
    }
)


@dataclass(frozen=True, slots=True)
class S3Config:
    """Credentials, and what is None here, are found as botocore finds them. `bucket_owner`: the
    account that the bucket must belong to.
    """

    bucket: str
    prefix: str
    seconds: float
    region: str | None = None
    endpoint_url: str | None = None
    encryption: Encryption | None = None
    kms_key_id: str | None = None
    bucket_owner: str | None = None


class S3Sink:
    def __init__(self, name: str, config: S3Config) -> None:
        self._config = config
        self._client: Any = None
        self._thread = OwnThread(name)

    async def deliver(self, batch: Batch) -> None:
        """Raises DeliveryFailed."""
        await self._thread.run(partial(self._put, batch))

    async def aclose(self) -> None:
        """Let the connections go."""
        self._client = None

    def _put(self, batch: Batch) -> None:
        config = self._config
        asked: dict[str, object] = {
            "Bucket": config.bucket,
            "Key": object_name(config.prefix, batch),
            "Body": batch.json_lines,
            "ContentType": "application/x-ndjson",
            "ChecksumAlgorithm": "SHA256",
            "ServerSideEncryption": config.encryption,
            "SSEKMSKeyId": config.kms_key_id,
            "ExpectedBucketOwner": config.bucket_owner,
        }
        try:
            if self._client is None:
                self._client = _client(config)
            self._client.put_object(**{k: v for k, v in asked.items() if v is not None})
        except ClientError as fault:
            said = str(fault.response.get("Error", {}).get("Code", ""))
            code = said if _CODE.fullmatch(said) else "an error"
            self._client = None  # credentials or the region may be put right meanwhile
            raise DeliveryFailed(f"S3 said {code}", refused=code in _REFUSALS) from None
        except BotoCoreError as fault:
            self._client = None
            raise DeliveryFailed(f"S3 can't be asked ({type(fault).__name__})") from None


def object_name(prefix: str, batch: Batch) -> str:
    """Names sort as the records do."""
    chain = batch.records[-1].chain.hex()
    return f"{prefix}{batch.first:020d}-{batch.last:020d}-{chain[:16]}.jsonl"


def _client(config: S3Config) -> Any:  # noqa: ANN401 - boto3 has no types
    patience = max(config.seconds / 2, 1)
    options = Config(
        connect_timeout=min(patience, 5),
        read_timeout=patience,
        retries={"total_max_attempts": 1},  # the sink itself tries again
        s3={"us_east_1_regional_endpoint": "regional"},
    )
    return boto3.session.Session().client(
        "s3", region_name=config.region, endpoint_url=config.endpoint_url, config=options
    )
