"""Which STS endpoint answers for a region.

botocore's own resolver decides, so that AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL,
FIPS and profile settings mean here what they mean to every AWS tool; only
regional endpoints are used, since the global one's tokens do not work in opt-in
regions.
"""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session

from broker.adapters.loopback import is_loopback
from broker.adapters.sts.config import StsConfig

_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/", re.ASCII)


class EndpointError(Exception):
    """No usable endpoint; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` as in the Host header; `region` as in the signature; `proxy` may hold a password."""

    url: str
    host: str
    path: str
    region: str
    proxy: str | None = field(default=None, repr=False)


def resolve(config: StsConfig, region: str) -> Endpoint:
    """Blocking (botocore reads its data files): call it in a thread. Raises EndpointError."""
    try:
        session = botocore.session.Session(profile=config.profile)
        _check_partition(session, config, region)
        session.set_config_variable("sts_regional_endpoints", "regional")
        client = session.create_client(
            "sts",
            region_name=region,
            endpoint_url=config.sts_endpoint_url,
            # Given, so that botocore does not look for real ones: this client sends nothing.
            aws_access_key_id="unused",
            aws_secret_access_key="unused",  # noqa: S106 - not a secret
        )
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise EndpointError(f"no STS endpoint for region {region!r}: {error}") from error
    return from_url(client.meta.endpoint_url, region)


def _check_partition(session: botocore.session.Session, config: StsConfig, region: str) -> None:
    try:
        actual = session.get_partition_for_region(region)
    except botocore.exceptions.UnknownRegionError:
        return  # newer than botocore: its resolver falls back on the pattern of `aws`
    if actual != config.partition:
        raise EndpointError(f"region {region!r} is in partition {actual}, not {config.partition}")


def from_url(url: str, region: str) -> Endpoint:
    """Raises EndpointError unless `url` is https, or http to this machine, with a plain path."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise EndpointError(f"the STS endpoint {url!r} is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise EndpointError(f"the STS endpoint {url!r} is not an http(s) URL without a query")
    if parts.username is not None or parts.password is not None:
        raise EndpointError("the STS endpoint URL must not hold a user name or password")
    # Base session tokens and minted credentials travel here: in clear only within this machine.
    if parts.scheme == "http" and not is_loopback(host):
        raise EndpointError(f"the STS endpoint {url!r} is plain http to another machine; use https")
    path = parts.path.rstrip("/") + "/"
    if not _PATH.fullmatch(path):
        raise EndpointError(f"the path of the STS endpoint {url!r} is not plain")
    name = f"[{host}]" if ":" in host else host
    default = 443 if parts.scheme == "https" else 80
    netloc = name if port is None or port == default else f"{name}:{port}"
    proxy = _proxy(host) if parts.scheme == "https" else None
    return Endpoint(f"{parts.scheme}://{netloc}{path}", netloc, path, region, proxy)


def _proxy(host: str) -> str | None:
    """HTTPS_PROXY, unless NO_PROXY names the host. This machine is never behind a proxy."""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get("https")
