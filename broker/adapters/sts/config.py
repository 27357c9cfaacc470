"""Where and how the broker reaches STS in one AWS partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class StsConfig:
    """One `[[aws]]` of the settings.

    `region` serves calls that name none. `sts_endpoint_url` wins over
    AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL. `chained` overrides the detection
    of role-session base credentials. `profile` names the AWS profile of the base
    credentials; partitions do not share credentials, so whoever has two needs it.
    """

    partition: str
    region: str
    sts_endpoint_url: str | None = None
    chained: bool | Literal["auto"] = "auto"
    profile: str | None = None
