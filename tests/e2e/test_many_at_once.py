"""64 callers over two server processes on one PostgreSQL: one gapless chain that verifies."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from broker.audit.verify import verify

CALLERS = 64


async def issue(client: httpx.AsyncClient, base: str, token: str) -> httpx.Response:
    return await client.post(
        f"{base}/v1/credentials",
        headers={"Authorization": f"Bearer {token}"},
        json={"role": "data-reader"},
    )


async def all_at_once(bases: list[str], token: str) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=CALLERS)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
        calls = [issue(client, bases[i % len(bases)], token) for i in range(CALLERS)]
        return await asyncio.gather(*calls)


@pytest.fixture
def exported(deploy, postgresql_url) -> bytes:
    """The log of a broker that just served 64 concurrent callers, as its auditor exports it."""
    broker = deploy(postgresql_url, processes=2)
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    alice = broker.enrolled("alice")
    bases = [f"http://127.0.0.1:{port}" for port in broker.ports]
    answers = asyncio.run(all_at_once(bases, alice.access_token))
    assert [answer.status_code for answer in answers] == [200] * CALLERS
    keys = {answer.json()["credentials"]["access_key_id"] for answer in answers}
    names = {answer.json()["session_name"] for answer in answers}
    assert len(keys) == len(names) == CALLERS
    ran = grace.terminal.run("audit", "export")
    assert ran.code == 0, ran.err
    export: str = ran.out
    return export.encode()


def test_two_processes_write_one_gapless_chain(exported):
    lines = exported.splitlines()
    records = [json.loads(json.loads(line)["record"]) for line in lines]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    kinds = [record["type"] for record in records]
    assert kinds.count("issuance.requested") == kinds.count("issuance.issued") == CALLERS
    times = [record["time"] for record in records]
    assert times == sorted(times)
    assert verify([exported]).problem is None

    for number in range(0, len(lines), 7):
        for offset in range(3, len(lines[number]), 97):
            spoilt = bytearray(lines[number])
            spoilt[offset] ^= 0x01
            changed = [*lines[:number], bytes(spoilt), *lines[number + 1 :]]
            problem = verify([b"\n".join(changed) + b"\n"]).problem
            assert problem is not None
            assert problem.seq == number + 1
