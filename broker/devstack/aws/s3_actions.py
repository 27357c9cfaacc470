"""Which S3 actions a request needs, on which resources (path-style addresses alone).

Pure. Source: Service Authorization Reference, "Actions, resources, and condition
keys for Amazon S3". A request that is not understood here is refused: it must
not reach moto undecided.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from broker.devstack.aws.wire import AwsError, Request

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_GET = {
    "location": "GetBucketLocation",
    "versions": "ListBucketVersions",
    "uploads": "ListBucketMultipartUploads",
    "versioning": "GetBucketVersioning",
    "policy": "GetBucketPolicy",
    "policyStatus": "GetBucketPolicyStatus",
    "acl": "GetBucketAcl",
    "tagging": "GetBucketTagging",
    "cors": "GetBucketCORS",
    "encryption": "GetEncryptionConfiguration",
    "lifecycle": "GetLifecycleConfiguration",
    "logging": "GetBucketLogging",
    "notification": "GetBucketNotification",
    "website": "GetBucketWebsite",
    "publicAccessBlock": "GetBucketPublicAccessBlock",
    "ownershipControls": "GetBucketOwnershipControls",
    "object-lock": "GetBucketObjectLockConfiguration",
}
_BUCKET_PUT = {
    "versioning": "PutBucketVersioning",
    "policy": "PutBucketPolicy",
    "acl": "PutBucketAcl",
    "tagging": "PutBucketTagging",
    "cors": "PutBucketCORS",
    "encryption": "PutEncryptionConfiguration",
    "lifecycle": "PutLifecycleConfiguration",
    "logging": "PutBucketLogging",
    "notification": "PutBucketNotification",
    "website": "PutBucketWebsite",
    "publicAccessBlock": "PutBucketPublicAccessBlock",
    "ownershipControls": "PutBucketOwnershipControls",
    "object-lock": "PutBucketObjectLockConfiguration",
}
_BUCKET_DELETE = {
    "policy": "DeleteBucketPolicy",
    "tagging": "PutBucketTagging",
    "cors": "PutBucketCORS",
    "encryption": "PutEncryptionConfiguration",
    "lifecycle": "PutLifecycleConfiguration",
    "website": "DeleteBucketWebsite",
    "publicAccessBlock": "PutBucketPublicAccessBlock",
    "ownershipControls": "PutBucketOwnershipControls",
}
_OBJECT = {
    "GET": {
        "acl": "GetObjectAcl",
        "tagging": "GetObjectTagging",
        "attributes": "GetObjectAttributes",
        "retention": "GetObjectRetention",
        "legal-hold": "GetObjectLegalHold",
        "uploadId": "ListMultipartUploadParts",
        "versionId": "GetObjectVersion",
        "": "GetObject",
    },
    "PUT": {
        "acl": "PutObjectAcl",
        "tagging": "PutObjectTagging",
        "retention": "PutObjectRetention",
        "legal-hold": "PutObjectLegalHold",
        "": "PutObject",
    },
    "DELETE": {
        "tagging": "DeleteObjectTagging",
        "uploadId": "AbortMultipartUpload",
        "versionId": "DeleteObjectVersion",
        "": "DeleteObject",
    },
    "POST": {"uploads": "PutObject", "uploadId": "PutObject", "restore": "RestoreObject"},
}
# Query parameters that pick what is done, beyond those in the tables.
_SUBRESOURCES = {
    *_BUCKET_GET,
    *_BUCKET_PUT,
    *(name for actions in _OBJECT.values() for name in actions if name),
    "delete",
    "select",
    "torrent",
    "accelerate",
    "analytics",
    "inventory",
    "metrics",
    "replication",
    "requestPayment",
    "intelligent-tiering",
    "session",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A path-style address, decoded. No bucket: the service itself."""

    bucket: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Need:
    """One action that must be allowed on one resource for the request to go through."""

    action: str  # with the s3: prefix
    bucket: str | None
    key: str | None

    def arn(self, partition: str) -> str:
        path = "*" if self.bucket is None else self.bucket
        return f"arn:{partition}:s3:::{path}{'' if self.key is None else '/' + self.key}"


def target_of(request: Request) -> Target:
    """The bucket and key a request names. Raises AwsError for an address moto could misread."""
    if request.path == "/":
        return Target(None, None)
    first = request.path[1:].split("/", 1)[0]
    if _BUCKET_NAME.fullmatch(first) is None:
        raise AwsError("InvalidBucketName", "The specified bucket is not valid.")
    # As moto reads it: decoded as a whole, then split.
    key = "/".join(unquote(request.path).split("/")[2:])
    return Target(first, key or None)


def needs(request: Request, target: Target) -> list[Need]:
    """The actions a request needs; all of them must be allowed. Raises AwsError (501).

    The objects of a bulk delete are not among them: they are decided one by one.
    """
    query = dict(request.query_pairs)
    subresources = [name for name in query if name in _SUBRESOURCES]
    # versionId and uploadId go with others (PUT ?partNumber&uploadId, GET ?tagging&versionId).
    chosen = [name for name in subresources if name not in ("versionId", "uploadId")]
    if len(chosen) > 1:
        raise _not_implemented()
    picked = (chosen or subresources or [""])[0]
    if target.bucket is None:
        if request.method != "GET" or picked:
            raise _not_implemented()
        return [Need("s3:ListAllMyBuckets", None, None)]
    if target.key is None:
        return _bucket_needs(request.method, picked, target.bucket)
    return _object_needs(request, picked, target.bucket, target.key)


def _bucket_needs(method: str, picked: str, bucket: str) -> list[Need]:
    tables: Mapping[str, Mapping[str, str]] = {
        "GET": {"": "ListBucket", **_BUCKET_GET},
        "HEAD": {"": "ListBucket"},
        "PUT": {"": "CreateBucket", **_BUCKET_PUT},
        "DELETE": {"": "DeleteBucket", **_BUCKET_DELETE},
    }
    if method == "POST" and picked == "delete":
        return []
    action = tables.get(method, {}).get(picked)
    if action is None:
        raise _not_implemented()
    return [Need(f"s3:{action}", bucket, None)]


def _object_needs(request: Request, picked: str, bucket: str, key: str) -> list[Need]:
    method = "GET" if request.method == "HEAD" else request.method
    if method == "PUT" and picked == "uploadId":
        picked = ""
    action = _OBJECT.get(method, {}).get(picked)
    if action is None:
        raise _not_implemented()
    found = [Need(f"s3:{action}", bucket, key)]
    if action == "GetObjectAttributes":
        found.append(Need("s3:GetObject", bucket, key))
    if action == "PutObject" and "x-amz-tagging" in request.headers:
        found.append(Need("s3:PutObjectTagging", bucket, key))
    if action == "PutObject" and "x-amz-acl" in request.headers:
        found.append(Need("s3:PutObjectAcl", bucket, key))
    source = request.headers.get("x-amz-copy-source")
    if source is not None:
        found.append(_copy_source(source))
    return found


def _copy_source(source: str) -> Need:
    path, _, query = source.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if _BUCKET_NAME.fullmatch(bucket) is None or not key:
        raise AwsError("InvalidArgument", "Copy Source must mention the source bucket and key.")
    action = "s3:GetObjectVersion" if query.startswith("versionId=") else "s3:GetObject"
    return Need(action, bucket, key)


def request_context(request: Request) -> dict[str, tuple[str, ...]]:
    """S3's condition keys of a request, names in lower case."""
    query = dict(request.query_pairs)
    context: dict[str, tuple[str, ...]] = {}
    for parameter, key in (
        ("prefix", "s3:prefix"),
        ("delimiter", "s3:delimiter"),
        ("max-keys", "s3:max-keys"),
        ("versionId", "s3:versionid"),
    ):
        if parameter in query:
            context[key] = (query[parameter],)
    for header in ("x-amz-acl", "x-amz-server-side-encryption", "x-amz-storage-class"):
        if header in request.headers:
            context[f"s3:{header}"] = (request.headers[header],)
    return context


def _not_implemented() -> AwsError:
    return AwsError(
        "NotImplemented", "A header you provided implies functionality that is not implemented", 501
    )
