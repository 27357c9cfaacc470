"""The limits on requests that the broker makes, against a server that breaks them."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from typing import Any

import httpx
import pytest
import truststore

from broker.adapters import outbound
from broker.adapters.outbound import FetchFailed, fetch_json, new_client
from broker.identity.login import LoginBinding, LoginRejected

PATH = "/.well-known/openid-configuration"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def fetch(party: Any, idp: Any) -> Any:
    return await fetch_json(party.client, "GET", f"{idp.issuer}{PATH}")


async def test_an_ordinary_answer_is_read_whole(party, idp):
    answer = await fetch(party, idp)
    assert (answer.status, answer.body["issuer"]) == (200, idp.issuer)
    (request,) = idp.requests
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("credential-broker/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(party, idp, status):
    for target in ("http://169.254.169.254/latest/meta-data", f"{idp.issuer}/elsewhere"):
        idp.replace(PATH, {}, status=status, headers={"Location": target})
        with pytest.raises(FetchFailed, match="redirect"):
            await fetch(party, idp)
    assert idp.hits["/elsewhere"] == 0


@pytest.mark.parametrize("path", [PATH, "/jwks", "/token", "/userinfo"])
async def test_no_step_of_a_login_follows_a_redirect(party, idp, path):
    idp.claims = {"groups": ...}
    idp.replace(path, {}, status=307, headers={"Location": f"{idp.issuer}/elsewhere"})
    with pytest.raises(LoginRejected, match="redirect"):
        await party.log_in()
    assert idp.hits["/elsewhere"] == 0


async def drip(writer):
    writer.write(HEAD + b"Content-Length: 100000\r\n\r\n{")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_headers(writer):
    writer.write(HEAD)
    while True:
        writer.write(b"X-A: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def say_nothing(writer):
    await asyncio.Event().wait()


@pytest.mark.parametrize("slow", [drip, drip_headers, say_nothing])
async def test_a_provider_that_drips_is_cut_off_after_the_total_time(party, idp, slow):
    idp.replace(PATH, raw=slow)
    async with new_client(total_seconds=0.3) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(FetchFailed, match=r"no answer in time|no connection"):
            await fetch_json(client, "GET", f"{idp.issuer}{PATH}")
        # Far less than a deadline per byte, with room for a busy machine.
        assert asyncio.get_running_loop().time() - started < 4


async def fifty_megabytes(writer):
    writer.write(HEAD + b"Connection: close\r\n\r\n")
    for _ in range(50):
        writer.write(b" " * 1024 * 1024)
        await writer.drain()


async def fifty_chunked_megabytes(writer):
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(50):
        writer.write(b"100000\r\n" + b" " * 1024 * 1024 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("flood", [fifty_megabytes, fifty_chunked_megabytes])
async def test_a_body_of_50_megabytes_is_cut_off_after_one(party, idp, flood):
    idp.replace(PATH, raw=flood)
    with pytest.raises(FetchFailed, match="over 1 MiB"):
        await fetch(party, idp)


async def test_a_body_of_exactly_one_mebibyte_is_read(party, idp):
    text = json.dumps({"a": "x" * (outbound.MAX_BODY_BYTES - 9)}).encode()
    assert len(text) == outbound.MAX_BODY_BYTES
    idp.replace(PATH, text)
    assert (await fetch(party, idp)).status == 200
    idp.replace(PATH, text + b" ")
    with pytest.raises(FetchFailed, match="over 1 MiB"):
        await fetch(party, idp)


async def test_a_compressed_body_is_refused_unread(party, idp):
    bomb = gzip.compress(b" " * 1024 * 1024)
    idp.replace(PATH, bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(FetchFailed, match="compressed"):
        await fetch(party, idp)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "text/html"),
        (b"{}", ""),
        (b"{}", "application/jsonp"),
        (b"<html>", "application/json"),
        (b"[]", "application/json"),
        (b'{"a":1,"a":2}', "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
async def test_what_is_no_json_object_is_refused(party, idp, body, content_type):
    idp.replace(PATH, body, headers={"Content-Type": content_type})
    with pytest.raises(FetchFailed):
        await fetch(party, idp)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/jwk-set+json"],
)
async def test_json_by_any_of_its_names_is_read(party, idp, content_type):
    idp.replace(PATH, b"{}", headers={"Content-Type": content_type})
    assert (await fetch(party, idp)).body == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        HEAD + b"Content-Length: 10\r\n\r\n{",
    ],
)
async def test_broken_http_is_a_failed_fetch(party, idp, raw):
    async def send(writer):
        writer.write(raw)
        await writer.drain()

    idp.replace(PATH, raw=send)
    with pytest.raises(FetchFailed):
        await fetch(party, idp)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "http://", "http://[", "ftp://a/b", "http://a.invalid/", "http://\0/"]
)
async def test_an_impossible_url_is_a_failed_fetch(party, url):
    with pytest.raises(FetchFailed):
        await fetch_json(party.client, "GET", url)


async def test_cookies_of_a_provider_are_not_kept(party, idp):
    idp.replace(PATH, {}, headers={"Set-Cookie": "a=b; Path=/"})
    await fetch(party, idp)
    await fetch(party, idp)
    assert "cookie" not in idp.requests[-1].headers


async def test_proxies_of_the_environment_are_not_used(party, idp, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with new_client() as client:
        assert (await fetch_json(client, "GET", f"{idp.issuer}{PATH}")).status == 200


async def test_certificates_are_checked_against_the_systems_authorities(monkeypatch):
    contexts = []

    class Recorded(truststore.SSLContext):
        def __init__(self, protocol):
            super().__init__(protocol)
            contexts.append(self)

    monkeypatch.setattr(truststore, "SSLContext", Recorded)
    async with new_client():
        (context,) = contexts
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_one_dead_provider_does_not_hold_up_a_login_with_another(party, idp):
    idp.replace("/dead", raw=say_nothing)
    dead = [
        asyncio.create_task(fetch_json(party.client, "GET", f"{idp.issuer}/dead"))
        for _ in range(20)
    ]
    await idp.asked("/dead", 20)
    assert (await party.authorize(LoginBinding.new()))["client_id"] == "broker"
    assert not any(task.done() for task in dead)
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


def test_the_production_limits_are_those_promised():
    assert (outbound.TOTAL_SECONDS, outbound.MAX_BODY_BYTES) == (5.0, 1024 * 1024)
    client = new_client()
    assert not client.follow_redirects
    assert not client.trust_env
    assert client.timeout == httpx.Timeout(5.0)
