"""canaille, a third-party OpenID provider, run as its authors ship it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from broker.devstack.browser import Page, ScriptedBrowser, ScriptedPerson
from tests.e2e.processes import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
CLIENT_SECRET = "canaille-client-secret-canary"
BIN = ROOT / ".venv-canaille" / "bin"

_NEW_KEY = (
    "from joserfc.jwk import RSAKey; import json; print(json.dumps(RSAKey.generate_key(2048,"
    " {'alg': 'RS256', 'use': 'sig', 'kid': 'first'}).as_dict(private=True)))"
)


class CanaillePerson(ScriptedPerson):
    """Knows canaille's own pages as well: name, then password, then consent."""

    def answer(self, browser: ScriptedBrowser, page: Page, enrolment_code: str) -> Page | None:
        if (form := page.form_with("login")) and "password" not in form.fields:
            return browser.submit(page, form, {"login": self.username, "answer": "Continue"})
        if (form := page.form_with("password")) and "csrf_token" in form.fields:
            return browser.submit(page, form, {"password": self.password})
        if (form := page.form_with("answer")) and ("answer", "accept") in form.buttons:
            return browser.submit(page, form, {"answer": "accept"})
        return super().answer(browser, page, enrolment_code)


@dataclass(frozen=True, slots=True)
class Canaille:
    """The running provider: its issuer, and the one client registered with it."""

    issuer: str
    client_id: str
    client_secret: str
    process: Process

    def person(self, name: str) -> CanaillePerson:
        return CanaillePerson(name, f"{name}-has-a-long-password-9")


def start(folder: Path, redirect_uris: tuple[str, ...]) -> Canaille:
    """alice (analysts), bob (no group) and grace (platform), behind one confidential client."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    key = json.loads(_run_python(_NEW_KEY))
    inline = ", ".join(f'{name} = "{value}"' for name, value in key.items())
    config = folder / "canaille.toml"
    config.write_text(
        f'SECRET_KEY = "an-end-to-end-test-and-nothing-more"\n'
        f'SERVER_NAME = "127.0.0.1:{port}"\n'
        f'PREFERRED_URL_SCHEME = "http"\n'
        f"[CANAILLE]\n"
        f'DATABASE = "sql"\n'
        f"JAVASCRIPT = false\nHTMX = false\n"
        f'[CANAILLE_SQL]\nDATABASE_URI = "sqlite:///{folder}/canaille.db"\n'
        f"[CANAILLE_OIDC]\nACTIVE_JWKS = [{{ {inline} }}]\nREQUIRE_NONCE = true\n"
    )
    environment = {"CANAILLE_CONFIG": str(config), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    script = folder / "seed.py"
    script.write_text(_seed_script(redirect_uris))
    subprocess.run(
        [str(BIN / "python"), str(script)],
        check=True,
        env=environment,
        cwd=folder,
        capture_output=True,
    )
    process = Process(
        [str(BIN / "canaille"), "run", "--bind", f"127.0.0.1:{port}"],
        folder / "canaille.log",
        environment,
        folder,
    )
    process.wait_for(f"{issuer}/.well-known/openid-configuration")
    return Canaille(issuer, "broker", CLIENT_SECRET, process)


def _run_python(code: str) -> str:
    return subprocess.run(
        [str(BIN / "python"), "-c", code], check=True, capture_output=True, text=True
    ).stdout


def _seed_script(redirect_uris: tuple[str, ...]) -> str:
    """canaille's own command line, called in one process: each start of it takes a second."""
    commands = ["install"]
    for name, family in (("alice", "Analyst"), ("bob", "Builder"), ("grace", "Guard")):
        commands.append(
            f"create user --user-name {name} --family-name {family} --formatted-name {name}"
            f" --password {name}-has-a-long-password-9 --emails {name}@example.com"
        )
    redirects = " ".join(f"--redirect-uris {uri}" for uri in redirect_uris)
    commands += [
        "create group --display-name analysts --members alice",
        "create group --display-name platform --members grace",
        (
            f"create client --client-id broker --client-name broker --client-uri http://127.0.0.1"
            f" --client-secret {CLIENT_SECRET} {redirects}"
            f" --grant-types authorization_code --response-types code"
            f" --scope openid --scope profile --scope email --scope groups"
            f" --token-endpoint-auth-method client_secret_basic"
            f" --id-token-signed-response-alg RS256"
        ),
        "set client broker --audience broker",
    ]
    return (
        "from canaille.commands import cli\n"
        f"for command in {commands!r}:\n"
        "    cli.main(args=command.split(), standalone_mode=False)\n"
    )
