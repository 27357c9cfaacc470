"""Tokens in the operating system's keyring, and what becomes of them where it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from broker.cli import tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker

# A keyring for these tests: a file, with faults by environment.
BACKEND = """\
import json, os, pathlib, time
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = float(os.environ.get("TEST_KEYRING_PRIORITY", "5"))
    path = pathlib.Path(os.environ["TEST_KEYRING"])

    def _all(self):
        fault = os.environ.get("TEST_KEYRING_FAULT")
        if fault == "hang":
            time.sleep(600)
        if fault == "raise":
            raise RuntimeError("locked; was given bkr_")
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def get_password(self, service, username):
        return self._all().get(service + " " + username)

    def set_password(self, service, username, password):
        kept = self._all()
        if os.environ.get("TEST_KEYRING_FAULT") != "forget":
            kept[service + " " + username] = password
        self.path.write_text(json.dumps(kept))

    def delete_password(self, service, username):
        kept = self._all()
        del kept[service + " " + username]
        self.path.write_text(json.dumps(kept))
"""


@pytest.fixture
def ring(cli: Cli, tmp_path: Path) -> Path:
    """No BROKER_HOME, which would mean a file; a home of its own by XDG."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "test_ring.py").write_text(BACKEND)
    del cli.environment["BROKER_HOME"]
    cli.environment |= {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONPATH": str(tmp_path / "modules"),
        "PYTHON_KEYRING_BACKEND": "test_ring.Keyring",
        "TEST_KEYRING": str(tmp_path / "ring.json"),
    }
    return tmp_path / "ring.json"


def token_files(tmp_path: Path) -> list[Path]:
    return list(tmp_path.rglob("tokens.json"))


def test_tokens_are_in_the_keyring_and_in_no_file(
    cli: Cli, broker: FakeBroker, ring: Path, tmp_path: Path
):
    assert cli("login").code == 0
    assert str(broker.refresh_token) in ring.read_text()
    assert token_files(tmp_path) == []
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or b"bk" + b"r_" not in path.read_bytes()
    assert cli("whoami").code == 0
    broker.access_tokens.clear()
    assert cli("whoami").code == 0  # refreshed, and stored where the login is
    assert str(broker.refresh_token) in ring.read_text()
    assert cli("logout").code == 0
    assert "bkr_" not in ring.read_text()
    assert cli("whoami").code == 3


@pytest.mark.parametrize(
    "fault",
    [
        {"TEST_KEYRING_FAULT": "raise"},
        {"TEST_KEYRING_FAULT": "forget"},
        {"TEST_KEYRING_PRIORITY": "0.5"},
        {"BROKER_KEYRING": "off"},
        {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"},
        {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"},
        {"PYTHON_KEYRING_BACKEND": "no_such_module.Keyring"},
    ],
    ids=lambda fault: "-".join(fault.values()),
)
def test_a_keyring_that_fails_falls_back_to_a_private_file(
    cli: Cli, broker: FakeBroker, ring: Path, tmp_path: Path, fault: dict[str, str]
):
    cli.environment |= fault
    assert cli("login").code == 0
    assert len(token_files(tmp_path)) == 1
    assert cli("whoami").code == 0
    # Where the file is, no keyring is asked any more.
    cli.environment["TEST_KEYRING_FAULT"] = "hang"
    assert cli("whoami").code == 0


def test_a_keyring_that_locks_later_says_what_to_do(cli: Cli, broker: FakeBroker, ring: Path):
    assert cli("login").code == 0
    cli.environment["TEST_KEYRING_FAULT"] = "raise"
    done = cli("whoami")
    assert done.code == 1
    assert "BROKER_KEYRING=off" in done.err
    assert "bkr_" not in done.err


def test_a_keyring_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()
    monkeypatch.setattr(tokens, "_KEYRING_SECONDS", 0.1)
    monkeypatch.setattr(tokens, "_Keyring", object)
    with pytest.raises(tokens.KeyringSilent, match="in time"):
        tokens._ask_keyring(lambda _: release.wait(30))
    release.set()
