"""Where a key is, as settings name it: in a file, or in AWS KMS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_REFERENCE = re.compile(
    r"awskms:(?P<arn>arn:(?P<partition>aws|aws-cn|aws-us-gov):kms:(?P<region>[a-z0-9-]{1,32})"
    r":[0-9]{12}:key/[A-Za-z0-9-]{1,64})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class KmsReference:
    """`awskms:ARN`: the ARN of a key, not of an alias, which somebody could point elsewhere."""

    arn: str
    partition: str
    region: str

    @classmethod
    def parse(cls, reference: str) -> KmsReference:
        """Raises ValueError."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ValueError(
                "write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID, the ARN of a key (not of an alias)"
            )
        return cls(match["arn"], match["partition"], match["region"])

    def __str__(self) -> str:
        return f"awskms:{self.arn}"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """`at` is a file's path, or a key of KMS, which is asked for with that AWS profile."""

    at: Path | KmsReference
    profile: str | None = None

    @property
    def path(self) -> Path | None:
        """None for a key in KMS."""
        return self.at if isinstance(self.at, Path) else None

    def __str__(self) -> str:
        return f"file:{self.at}" if isinstance(self.at, Path) else str(self.at)
