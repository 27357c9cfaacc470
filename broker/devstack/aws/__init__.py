"""A local AWS: moto for IAM and S3 behind an STS stand-in that refuses what AWS refuses.

It proves that the broker's requests are right, so it is strict: signatures are
verified, role and session policies are evaluated for every call, and whatever it
does not know is refused. Start it with `AwsStandIn.start()`, fill it with
`seed_demo`, or run it as a process of its own with `main`.

It is no place for secrets and no emulator of everything: sts (AssumeRole,
GetCallerIdentity), kms (what the broker asks of it), iam and s3 as far as moto
goes; one partition; path-style S3 addresses; no anonymous access; no groups of
organizations, no SCP.
"""

from __future__ import annotations

from broker.devstack.aws.faults import Fault, StsCall
from broker.devstack.aws.process import main
from broker.devstack.aws.seed import DemoAccount, seed_demo
from broker.devstack.aws.server import AwsStandIn, HubCredentials

__all__ = [
    "AwsStandIn",
    "DemoAccount",
    "Fault",
    "HubCredentials",
    "StsCall",
    "main",
    "seed_demo",
]
