from __future__ import annotations

import base64
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.sealing import FileKeyRing, UnsealFailed, _associated_data
from broker.errors import StartupError

SECRET = b"JBSWY3DPEHPK3PXP"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "sealing"


@pytest.fixture
def ring(path: Path) -> FileKeyRing:
    return FileKeyRing.create(path)


def seal(ring: FileKeyRing):
    return ring.seal(SECRET, purpose="totp", owner="p-1")


def unseal(ring: FileKeyRing, sealed, purpose="totp", owner="p-1"):
    return ring.unseal(sealed, purpose=purpose, owner=owner)


def test_what_was_sealed_opens_again_after_a_restart(path, ring):
    assert unseal(FileKeyRing.load(path), seal(ring)) == SECRET


def test_the_same_secret_never_looks_the_same_twice(ring):
    first, second = seal(ring), seal(ring)
    assert first.nonce != second.nonce
    assert first.ciphertext != second.ciphertext
    assert SECRET not in first.ciphertext


def test_a_value_opens_for_its_purpose_and_owner_alone(ring):
    sealed = seal(ring)
    for purpose, owner in [("totp", "p-2"), ("other", "p-1"), ("totpp", "-1"), ("", "totpp-1")]:
        with pytest.raises(UnsealFailed, match="not what was sealed"):
            unseal(ring, sealed, purpose, owner)


def test_a_changed_value_does_not_open(ring):
    sealed = seal(ring)
    flipped = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    for changed in (
        replace(sealed, ciphertext=flipped),
        replace(sealed, ciphertext=b""),
        replace(sealed, ciphertext=sealed.ciphertext[:-1]),
        replace(sealed, nonce=b"\0" * 12),
        replace(sealed, nonce=b""),
        replace(sealed, version=2),
    ):
        with pytest.raises(UnsealFailed):
            unseal(ring, changed)


def test_rotation_keeps_old_values_readable_and_seals_new_ones_with_the_new_key(path, ring):
    old = seal(ring)
    rotated = FileKeyRing.rotate(path)
    assert rotated.current != ring.current
    assert unseal(rotated, old) == SECRET
    assert not rotated.is_current(old)
    new = rotated.reseal(old, purpose="totp", owner="p-1")
    assert rotated.is_current(new)
    assert unseal(rotated, new) == SECRET
    with pytest.raises(UnsealFailed, match=f"key '{new.key_id}', which is not in the key ring"):
        unseal(ring, new)


def test_a_value_can_not_be_relabelled_with_another_key(path, ring):
    old = seal(ring)
    rotated = FileKeyRing.rotate(path)
    with pytest.raises(UnsealFailed):
        unseal(rotated, replace(old, key_id=rotated.current))


def test_the_file_is_the_owners_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        FileKeyRing.create(path)
        FileKeyRing.rotate(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["sealing"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_file_that_others_can_read_stops_the_start_and_names_the_cure(path, ring, mode):
    path.chmod(mode)
    for action in (FileKeyRing.load, FileKeyRing.rotate):
        with pytest.raises(StartupError, match=f"chmod 600 {path}"):
            action(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["sealing"]


def test_a_ring_is_never_overwritten(path, ring):
    before = path.read_bytes()
    with pytest.raises(StartupError, match="exists already"):
        FileKeyRing.create(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["sealing"]


def test_a_missing_file_says_how_to_make_one(path):
    with pytest.raises(StartupError, match="broker keys init"):
        FileKeyRing.load(path)


KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"version":2}',
        json.dumps({"version": 1, "current": "a", "keys": {}}),
        json.dumps({"version": 1, "current": "b", "keys": {"a": KEY}}),
        json.dumps({"version": 1, "current": "a", "keys": {"a": KEY[:-4]}}),
        json.dumps({"version": 1, "current": "a", "keys": {"a": "!" * 44}}),
        json.dumps({"version": 1, "current": "a", "keys": {"a": 7}}),
        json.dumps({"version": 1, "current": ["a"], "keys": {"a": KEY}}),
        json.dumps({"version": 1, "current": "a|b", "keys": {"a|b": KEY}}),
        json.dumps({"version": 1, "current": "a", "keys": [KEY]}),
        "x" * 100_000,
    ],
)
def test_a_damaged_file_is_said_to_be_damaged_and_never_quoted(path, content):
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(StartupError, match="damaged") as refused:
        FileKeyRing.load(path)
    assert refused.value.__cause__ is None
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(mode=0o700), lambda p: os.mkfifo(p, 0o600)])
def test_what_is_no_file_is_refused_at_once(path, make):
    path.parent.mkdir()
    make(path)
    with pytest.raises(StartupError, match="not a regular file"):
        FileKeyRing.load(path)


def test_a_rotation_left_half_done_is_reported_and_the_ring_still_works(path, ring):
    staging = path.with_name("sealing.new")
    staging.touch()
    with pytest.raises(StartupError, match=f"remove {staging}"):
        FileKeyRing.rotate(path)
    assert unseal(FileKeyRing.load(path), seal(ring)) == SECRET


def test_rotations_at_once_never_lose_a_key(path, ring):
    values = [seal(ring)]
    refused = []

    def rotate():
        try:
            values.append(seal(FileKeyRing.rotate(path)))
        except StartupError as error:
            refused.append(error)

    threads = [threading.Thread(target=rotate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) + len(refused) == 9
    assert len(values) > 1
    final = FileKeyRing.load(path)
    assert {unseal(final, value) for value in values} == {SECRET}


def test_nothing_of_a_key_shows_in_a_repr(path, ring):
    keys = json.loads(path.read_text())["keys"]
    assert ring.current in repr(ring)
    assert not any(key in repr(ring) for key in keys.values())


fields = st.tuples(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6), st.integers(0, 9))


@given(fields, fields)
def test_no_two_bindings_are_encoded_alike(one, other):
    assert (_associated_data(*one) == _associated_data(*other)) == (one == other)
