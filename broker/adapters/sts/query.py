"""The AWS Query protocol's request bodies, in botocore's order of parameters."""

from __future__ import annotations

from urllib.parse import urlencode

from broker.issuance.sts import AssumeRole

_VERSION = "2011-06-15"

GET_CALLER_IDENTITY = urlencode({"Action": "GetCallerIdentity", "Version": _VERSION}).encode()


def assume_role(call: AssumeRole) -> bytes:
    pairs = [
        ("Action", "AssumeRole"),
        ("Version", _VERSION),
        ("RoleArn", call.role_arn),
        ("RoleSessionName", call.role_session_name),
    ]
    for n, arn in enumerate(call.policy_arns, 1):
        pairs.append((f"PolicyArns.member.{n}.arn", arn))
    if call.policy is not None:
        pairs.append(("Policy", call.policy))
    pairs.append(("DurationSeconds", str(call.duration_seconds)))
    for n, (key, value) in enumerate(call.tags, 1):
        pairs.append((f"Tags.member.{n}.Key", key))
        pairs.append((f"Tags.member.{n}.Value", value))
    for n, key in enumerate(call.transitive_tag_keys, 1):
        pairs.append((f"TransitiveTagKeys.member.{n}", key))
    if call.external_id is not None:
        pairs.append(("ExternalId", call.external_id))
    if call.source_identity is not None:
        pairs.append(("SourceIdentity", call.source_identity))
    return urlencode(pairs).encode("ascii")
