"""The signing key's file: private, all or nothing, and old signatures verify for ever."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.signing import SigningKeys
from broker.audit.checkpoint import Checkpoint, follow, opened
from broker.audit.note import VerifierKey
from broker.errors import StartupError
from tests.unit.audit.keys import ORIGIN, TestSigner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "signing"


def test_what_it_signs_verifies_after_a_restart(path: Path) -> None:
    created = SigningKeys.create(path, ORIGIN)
    checkpoint = Checkpoint(ORIGIN, 7, bytes(32))
    assert opened(checkpoint.signed(SigningKeys.load(path).signer), created.log.keys) == checkpoint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_old_checkpoints_verify_over_many_rotations_and_old_private_keys_are_gone(
    path: Path,
) -> None:
    first = SigningKeys.create(path, ORIGIN)
    checkpoint = Checkpoint(ORIGIN, 7, bytes(32))
    old = checkpoint.signed(first.signer)
    seeds = {json.loads(path.read_text())["seed"]}
    for _ in range(3):
        rotated = SigningKeys.rotate(path)
        text = path.read_text()
        assert not any(seed in text for seed in seeds)
        seeds.add(json.loads(text)["seed"])
    assert len(seeds) == len(rotated.log.keys) == 4
    assert opened(old, rotated.log.keys) == checkpoint
    # Who trusts the first key alone reaches the newest by what the file says.
    assert follow(ORIGIN, first.log.keys, rotated.log.successions) == list(rotated.log.keys)
    assert rotated.signer.key == rotated.log.keys[-1]


def test_nothing_of_the_key_shows_in_a_repr(path: Path) -> None:
    keys = SigningKeys.create(path, ORIGIN)
    seed = json.loads(path.read_text())["seed"]
    assert seed not in repr(keys)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_stops_the_start(path: Path, mode: int) -> None:
    SigningKeys.create(path, ORIGIN)
    path.chmod(mode)
    with pytest.raises(StartupError, match=f"chmod 600 {path}"):
        SigningKeys.load(path)


def test_it_is_never_overwritten_and_a_missing_one_names_the_cure(path: Path) -> None:
    with pytest.raises(StartupError, match="broker migrate"):
        SigningKeys.load(path)
    SigningKeys.create(path, ORIGIN)
    with pytest.raises(StartupError, match="exists already"):
        SigningKeys.create(path, ORIGIN)
    assert [one.name for one in path.parent.iterdir()] == ["signing"]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"seed": "AAAA"},
        {"seed": None},
        {"keys": []},
        {"keys": [str(TestSigner(seed=3).key)]},
        {"origin": "other.example.com"},
        {"origin": 7},
        {"successions": ["x"]},
    ],
)
def test_a_damaged_file_is_said_to_be_damaged(path: Path, change: dict[str, Any]) -> None:
    SigningKeys.create(path, ORIGIN)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StartupError, match="is damaged"):
        SigningKeys.load(path)


def test_a_key_slipped_in_without_its_predecessors_signature_is_refused(path: Path) -> None:
    SigningKeys.create(path, ORIGIN)
    document = json.loads(path.read_text())
    stranger = path.with_name("other")
    other = SigningKeys.create(stranger, ORIGIN)
    document["keys"].append(str(other.signer.key))
    document["seed"] = json.loads(stranger.read_text())["seed"]
    path.write_text(json.dumps(document))
    with pytest.raises(StartupError, match="is damaged"):
        SigningKeys.load(path)
    assert VerifierKey.parse(document["keys"][0]).name == ORIGIN
