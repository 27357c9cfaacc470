"""Signature Version 4, verified: who sent a request, or AWS's refusal.

Owns the check of the Authorization header and of presigned queries; the
signature itself is recomputed by botocore. Does not own what a caller may do.

Stricter than AWS in one thing: every X-Amz-* header must be signed on all
services, not on S3 alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from broker.devstack.aws.credentials import Key, Keys
from broker.devstack.aws.wire import AwsError, Request

ALGORITHM = "AWS4-HMAC-SHA256"
_SKEW_SECONDS = 5 * 60
_S3_SKEW_SECONDS = 15 * 60
_MAX_PRESIGNED_SECONDS = 7 * 24 * 3600
_STAMP = "%Y%m%dT%H%M%SZ"
_CREDENTIAL = re.compile(
    r"(?P<key>[A-Za-z0-9_]{16,128})/(?P<day>[0-9]{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)"
    r"/aws4_request"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your"
    " AWS Secret Access Key and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request says of its own signature; nothing of it is verified yet."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    token: str | None
    expires: int | None  # of a presigned query, in seconds


def read(request: Request) -> Signed | None:
    """The signature a request carries; None when it carries none.

    Raises AwsError (IncompleteSignature) when it is malformed.
    """
    header = request.headers.get("authorization")
    if header is not None:
        return _from_header(request, header)
    query = dict(request.query_pairs)
    if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
        return _from_query(request, query)
    return None


def authenticate(request: Request, signed: Signed, keys: Keys, now: float) -> Key:
    """The key whose holder sent this request.

    Raises AwsError as the service named in the signature's scope words it.
    """
    s3 = signed.service == "s3"
    _check_headers_are_signed(request, signed)
    _check_time(signed, now)
    key = keys.find(signed.access_key_id)
    if key is None:
        if s3:
            raise AwsError(
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
                403,
            )
        raise _invalid_token()
    if not hmac.compare_digest(signed.token or "", key.session_token or ""):
        if s3:
            raise AwsError("InvalidToken", "The provided token is malformed or otherwise invalid.")
        raise _invalid_token()
    expected = _signature(request, signed, key)
    if not hmac.compare_digest(expected, signed.signature):
        raise AwsError("SignatureDoesNotMatch", _MISMATCH, 403)
    _check_payload(request, signed)
    if key.expires_at is not None and now >= key.expires_at:
        if s3:
            raise AwsError("ExpiredToken", "The provided token has expired.", 400)
        raise AwsError("ExpiredToken", "The security token included in the request is expired", 403)
    return key


def _from_header(request: Request, header: str) -> Signed:
    algorithm, _, rest = header.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    credential = _CREDENTIAL.fullmatch(fields.get("Credential", ""))
    stamp = request.headers.get("x-amz-date")
    if (
        algorithm != ALGORITHM
        or credential is None
        or not fields.get("Signature")
        or not fields.get("SignedHeaders")
        or stamp is None
    ):
        raise AwsError(
            "IncompleteSignature",
            "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders'"
            " parameters and an 'X-Amz-Date' header.",
        )
    return Signed(
        credential["key"],
        credential["day"],
        credential["region"],
        credential["service"],
        tuple(fields["SignedHeaders"].split(";")),
        fields["Signature"],
        stamp,
        request.headers.get("x-amz-security-token"),
        None,
    )


def _from_query(request: Request, query: dict[str, str]) -> Signed:
    names = [name for name, _ in request.query_pairs]
    credential = _CREDENTIAL.fullmatch(query.get("X-Amz-Credential", ""))
    expires = query.get("X-Amz-Expires", "")
    if (
        len(names) != len(set(names))
        or query.get("X-Amz-Algorithm") != ALGORITHM
        or credential is None
        or not query.get("X-Amz-Signature")
        or not query.get("X-Amz-SignedHeaders")
        or "X-Amz-Date" not in query
        or not expires.isascii()
        or not expires.isdigit()
        or int(expires) > _MAX_PRESIGNED_SECONDS
    ):
        raise AwsError(
            "IncompleteSignature", "The query string lacks a part of the signature or doubles one."
        )
    return Signed(
        credential["key"],
        credential["day"],
        credential["region"],
        credential["service"],
        tuple(query["X-Amz-SignedHeaders"].split(";")),
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        query.get("X-Amz-Security-Token"),
        int(expires),
    )


def _check_headers_are_signed(request: Request, signed: Signed) -> None:
    names = set(signed.signed_headers)
    if "host" not in names:
        raise AwsError(
            "SignatureDoesNotMatch",
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
            403,
        )
    if not names <= set(request.headers):
        raise AwsError("SignatureDoesNotMatch", _MISMATCH, 403)
    loose = {name for name in request.headers if name.startswith("x-amz-")} - names
    if loose:
        raise AwsError(
            "SignatureDoesNotMatch",
            f"There were headers present in the request which were not signed: {min(loose)}",
            403,
        )


def _check_time(signed: Signed, now: float) -> None:
    try:
        at = datetime.strptime(signed.stamp, _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise AwsError(
            "IncompleteSignature",
            "Date must be in ISO-8601 'basic format'. Got"
            f" '{signed.stamp}'. See http://en.wikipedia.org/wiki/ISO_8601",
        ) from error
    if signed.stamp[:8] != signed.day:
        raise AwsError(
            "SignatureDoesNotMatch", "Date in Credential scope does not match YYYYMMDD.", 403
        )
    skew = _S3_SKEW_SECONDS if signed.service == "s3" else _SKEW_SECONDS
    until = skew if signed.expires is None else signed.expires
    if at - skew <= now <= at + until:
        return
    if signed.service == "s3":
        if signed.expires is not None and now > at:
            raise AwsError("AccessDenied", "Request has expired", 403)
        raise AwsError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            403,
        )
    minutes = until // 60
    if now > at:
        raise AwsError(
            "SignatureDoesNotMatch",
            f"Signature expired: {signed.stamp} is now earlier than {_stamp(now - until)}"
            f" ({_stamp(now)} - {minutes} min.)",
            403,
        )
    raise AwsError(
        "SignatureDoesNotMatch",
        f"Signature not yet current: {signed.stamp} is still later than {_stamp(now + skew)}"
        f" ({_stamp(now)} + {_SKEW_SECONDS // 60} min.)",
        403,
    )


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_STAMP)


def _check_payload(request: Request, signed: Signed) -> None:
    declared = request.headers.get("x-amz-content-sha256")
    if declared is None:
        if signed.service == "s3" and signed.expires is None:
            raise AwsError(
                "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
            )
        return
    if signed.service == "s3" and (
        declared == "UNSIGNED-PAYLOAD" or declared.startswith("STREAMING-")
    ):
        return
    if declared != hashlib.sha256(request.body).hexdigest():
        raise AwsError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )


class _Exact:
    """Signs the headers the client named, no more and no fewer."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name in request.context["signed_headers"]:
            headers[name] = request.headers[name]
        return headers


class _Query(_Exact, SigV4Auth):  # type: ignore[misc]
    pass


class _S3(_Exact, S3SigV4Auth):  # type: ignore[misc]
    def payload(self, request: AWSRequest) -> str:
        if request.context["presigned"]:
            return "UNSIGNED-PAYLOAD"
        digest: str = super().payload(request)
        return digest


def _signature(request: Request, signed: Signed, key: Key) -> str:
    query = "&".join(
        pair
        for pair in request.query.split("&")
        if unquote(pair.partition("=")[0]) != "X-Amz-Signature"
    )
    url = f"http://{request.headers['host']}{request.path}"
    sent = AWSRequest(
        method=request.method,
        url=f"{url}?{query}" if query else url,
        data=request.body,
        headers={name: request.headers[name] for name in signed.signed_headers},
    )
    if urlsplit(sent.url).path != request.path:
        raise AwsError("SignatureDoesNotMatch", _MISMATCH, 403)
    sent.context.update(
        timestamp=signed.stamp,
        signed_headers=signed.signed_headers,
        presigned=signed.expires is not None,
    )
    signer = (_S3 if signed.service == "s3" else _Query)(
        Credentials(key.access_key_id, key.secret_access_key, key.session_token),
        signed.service,
        signed.region,
    )
    text = signer.string_to_sign(sent, signer.canonical_request(sent))
    signature: str = signer.signature(text, sent)
    return signature


def _invalid_token() -> AwsError:
    return AwsError(
        "InvalidClientTokenId", "The security token included in the request is invalid.", 403
    )
