"""Every secret of a run is looked for wherever it must not be: logs at DEBUG, the database,
arguments of processes, error bodies.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.e2e.deployment import Deployment, User


class ArgumentWatch:
    """Collects the arguments and environments' names of every process while it runs."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> ArgumentWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for process in psutil.process_iter():
                try:
                    self.seen.update(process.cmdline())
                except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                    continue


def error_bodies(broker: Deployment, secrets: list[str], token: str) -> list[str]:
    """What refusals say when a secret stands where it does not belong."""
    bearer = {"Authorization": f"Bearer {token}"}
    bodies = []
    with httpx.Client(base_url=broker.public_url, trust_env=False, timeout=30) as client:
        for secret in secrets:
            answers = [
                client.post("/v1/credentials", headers=bearer, json={"role": secret[:60]}),
                client.post("/v1/mfa/verify", headers=bearer, json={"code": secret}),
                client.post("/v1/credentials", headers=bearer, json={secret: "data-reader"}),
                client.get("/v1/me", headers={"Authorization": f"Bearer {secret}x"}),
                client.post("/oauth/token", data={"grant_type": "refresh_token"} | {"x": secret}),
                client.get("/login/callback", params={"code": secret, "state": secret}),
            ]
            assert all(answer.status_code >= 400 for answer in answers), answers
            bodies += [answer.text for answer in answers]
    return bodies


def secrets_of(broker: Deployment, user: User, credentials: dict[str, str]) -> dict[str, str]:
    """By name, every secret that a person, their client, or the broker handles in this run."""
    assert user.person.totp_secret is not None
    token_files = "".join(
        path.read_text("utf-8", "replace")
        for path in user.terminal.home.rglob("*")
        if path.is_file()
    )
    kept = [word for word in token_files.replace('"', " ").split() if word[:4] in ("bka_", "bkr_")]
    assert len(kept) >= 2
    cookies = [cookie.value or "" for cookie in user.browser.cookies.jar if cookie.domain]
    key_ring = Path(broker.folder / "keys" / "sealing").read_text("utf-8", "replace")
    keys = [word for word in key_ring.replace('"', " ").split() if len(word) > 40]
    named = {
        "password": user.person.password,
        "totp secret": user.person.totp_secret,
        "recovery code": user.person.recovery_codes[0],
        "oidc client secret": broker.canaille.client_secret,
        "hub secret key": broker.hub.secret_access_key,
        "hub session token": broker.hub.session_token or "",
        "issued secret key": credentials["SecretAccessKey"],
        "issued session token": credentials["SessionToken"],
    }
    named |= {f"token {number}": word for number, word in enumerate(kept)}
    named |= {f"cookie {number}": word for number, word in enumerate(cookies) if len(word) > 20}
    named |= {f"sealing key {number}": word for number, word in enumerate(keys)}
    return {name: secret for name, secret in named.items() if secret}


def database_contents(database_url: str, request: pytest.FixtureRequest) -> bytes:
    """All that somebody who stole the database would read."""
    if database_url.startswith("sqlite"):
        path = Path(urlsplit(database_url).path)
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    server = request.getfixturevalue("postgresql").server
    name = urlsplit(database_url).path.lstrip("/")
    dumped = subprocess.run(
        [server.bin_path / "pg_dump", "--inserts", server.get_uri(database=name)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return dumped.stdout


def shapes(secret: str) -> list[bytes]:
    """The secret as it is, and as binary columns are dumped."""
    raw = secret.encode()
    forms = [raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")]
    if re.fullmatch(r"[A-Z2-7]{32}", secret):  # a TOTP secret stands for 160 bits
        bits = base64.b32decode(secret)
        forms += [bits, bits.hex().encode(), base64.b64encode(bits).rstrip(b"=")]
    return forms


def whereabouts(secrets: dict[str, str], places: dict[str, bytes]) -> list[str]:
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, content in places.items()
        if any(shape in content for shape in shapes(secret))
    ]


def test_no_secret_of_a_run_is_found_anywhere_else(deploy, database_url, request):
    with ArgumentWatch() as watch:
        broker = deploy(database_url)
        grace = broker.enrolled("grace")
        broker.apply_policy(grace)
        alice = broker.enrolled("alice")
        ran = alice.terminal.run("creds", "data-reader", "--format", "json")
        assert ran.code == 0, ran.err
        process = alice.terminal.run("credential-process", "data-reader")
        assert process.code == 0, process.err
        assert alice.terminal.run("creds", "no-such-role").code == 1
    secrets = secrets_of(broker, alice, json.loads(ran.out))
    places = {
        "the server's log at DEBUG": "".join(s.output() for s in broker.servers).encode(),
        "the database": database_contents(database_url, request),
        "arguments of processes": "\n".join(watch.seen).encode(),
        "the client's messages": (ran.err + process.err).encode(),
    }
    assert len(places["the server's log at DEBUG"]) > 1000
    assert b"issuance.issued" in places["the database"]
    assert whereabouts(secrets, places) == []

    # Only now: what a caller puts into a role's name is on the record, as it should be.
    bodies = error_bodies(broker, list(secrets.values()), alice.access_token)
    assert whereabouts(secrets, {"error bodies": "\n".join(bodies).encode()}) == []
