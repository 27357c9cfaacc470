"""AWS Signature Version 4 for one kind of request: a form POST to STS.

Written out here because botocore's general signer costs more than the rest of
the call together; the tests hold it to botocore's byte by byte. Source: AWS
General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from broker.adapters.sts.endpoint import Endpoint

CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
_SERVICE = "sts"


class Signer:
    """One set of base credentials. Its repr shows the access key id alone."""

    __slots__ = ("_day_keys", "_secret", "access_key_id", "session_token")

    def __init__(self, access_key_id: str, secret: str, session_token: str | None) -> None:
        self.access_key_id = access_key_id
        self.session_token = session_token
        self._secret = secret
        self._day_keys: dict[str, tuple[str, bytes]] = {}

    def __repr__(self) -> str:
        return f"Signer({self.access_key_id})"

    def sign(self, endpoint: Endpoint, body: bytes, now: datetime) -> dict[str, str]:
        """The headers to send with `body`; `now` is UTC and good for five minutes at AWS."""
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        headers = {"content-type": CONTENT_TYPE, "host": endpoint.host, "x-amz-date": stamp}
        if self.session_token is not None:
            headers["x-amz-security-token"] = self.session_token
        names = ";".join(headers)  # written in alphabetical order above
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"POST\n{endpoint.path}\n\n{lines}\n{names}\n{digest}"
        scope = f"{stamp[:8]}/{endpoint.region}/{_SERVICE}/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
        signature = _hmac(self._day_key(stamp[:8], endpoint.region), to_sign).hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _day_key(self, day: str, region: str) -> bytes:
        """Four of the five HMACs depend on the day and region alone: one kept a region."""
        kept_day, key = self._day_keys.get(region, ("", b""))
        if kept_day != day:
            key = f"AWS4{self._secret}".encode()
            for part in (day, region, _SERVICE, "aws4_request"):
                key = _hmac(key, part)
            self._day_keys[region] = (day, key)
        return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
