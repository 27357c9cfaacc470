"""Where a region's STS is, and which endpoints are refused."""

from __future__ import annotations

import pytest

from broker.adapters.sts.config import StsConfig
from broker.adapters.sts.endpoint import EndpointError, from_url, resolve


@pytest.mark.parametrize(
    ("partition", "region", "url"),
    [
        ("aws", "us-east-1", "https://sts.us-east-1.amazonaws.com/"),
        ("aws", "eu-central-2", "https://sts.eu-central-2.amazonaws.com/"),
        ("aws", "xx-newer-1", "https://sts.xx-newer-1.amazonaws.com/"),
        ("aws-cn", "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"),
        ("aws-us-gov", "us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com/"),
    ],
)
def test_regional_endpoints(partition, region, url):
    found = resolve(StsConfig(partition, region), region)
    assert (found.url, found.region) == (url, region)


def test_the_global_endpoint_is_not_used_even_where_old_settings_ask_for_it(monkeypatch):
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    found = resolve(StsConfig("aws", "us-west-2"), "us-west-2")
    assert found.host == "sts.us-west-2.amazonaws.com"


def test_fips_is_honoured(monkeypatch):
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    found = resolve(StsConfig("aws", "us-east-1"), "us-east-1")
    assert found.host == "sts-fips.us-east-1.amazonaws.com"


def test_the_setting_wins_over_the_environment_and_the_narrow_variable_over_the_wide(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    config = StsConfig("aws", "us-east-1")
    assert resolve(config, "us-east-1").url == "http://127.0.0.1:1/"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:2/sts")
    assert resolve(config, "us-east-1").url == "http://127.0.0.1:2/sts/"
    config = StsConfig("aws", "us-east-1", sts_endpoint_url="https://sts.example.com:8443")
    found = resolve(config, "eu-west-1")
    assert (found.url, found.host, found.region) == (
        "https://sts.example.com:8443/",
        "sts.example.com:8443",
        "eu-west-1",
    )


def test_a_region_of_another_partition_is_refused():
    with pytest.raises(EndpointError, match="partition aws-cn, not aws"):
        resolve(StsConfig("aws", "us-east-1"), "cn-north-1")


@pytest.mark.parametrize("region", ["", "x/../y", "evil.example.com/", "a b", "us-east-1#"])
def test_a_region_that_is_none_never_makes_a_host(region):
    with pytest.raises(EndpointError):
        resolve(StsConfig("aws", "us-east-1"), region)


@pytest.mark.parametrize(
    "url",
    [
        "http://sts.us-east-1.amazonaws.com",
        "http://169.254.169.254/",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "ftp://127.0.0.1/",
        "https:///nothing",
        "https://sts.example.com/?x=1",
        "https://sts.example.com/#x",
        "https://user:canary@sts.example.com/",
        "https://sts.example.com/a/../b",
        "https://sts.example.com/a//b",
        "https://sts.example.com/a%2fb",
        "https://sts.example.com:port/",
        "https://[::1",
    ],
)
def test_endpoints_that_are_not_plainly_safe_are_refused(url):
    with pytest.raises(EndpointError) as caught:
        from_url(url, "us-east-1")
    assert "canary" not in str(caught.value)


def test_a_proxy_is_taken_from_the_environment_unless_bypassed(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://u:canary@127.0.0.1:3128")
    found = from_url("https://sts.us-east-1.amazonaws.com", "us-east-1")
    assert found.proxy == "http://u:canary@127.0.0.1:3128"
    assert "canary" not in repr(found)
    assert from_url("http://127.0.0.1:1", "us-east-1").proxy is None
    assert from_url("https://localhost:1", "us-east-1").proxy is None
    monkeypatch.setenv("no_proxy", ".amazonaws.com")
    assert from_url("https://sts.us-east-1.amazonaws.com", "us-east-1").proxy is None
