"""How open a file with a secret may be: by mode, owner and who asks."""

from __future__ import annotations

import os
import stat

import pytest

from broker.adapters.secret_mode import others_may_read

BROKER = 10001


def status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, BROKER, 1, 0, 0, 0))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_root_may_give_a_file_to_the_group_of_the_broker(monkeypatch, mode):
    monkeypatch.setattr(os, "geteuid", lambda: BROKER)
    assert not others_may_read(status(mode, owner=0))


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604, 0o660, 0o650, 0o641, 0o642])
def test_nobody_may_give_it_to_everybody_or_let_the_group_write(monkeypatch, mode):
    monkeypatch.setattr(os, "geteuid", lambda: BROKER)
    assert others_may_read(status(mode, owner=0))


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o604])
def test_a_file_of_the_brokers_own_or_of_another_user_is_its_owners_alone(monkeypatch, mode):
    monkeypatch.setattr(os, "geteuid", lambda: BROKER)
    assert others_may_read(status(mode, owner=BROKER))
    assert others_may_read(status(mode, owner=1000))


def test_a_broker_that_is_root_keeps_its_files_to_itself(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert others_may_read(status(0o440, owner=0))
    assert not others_may_read(status(0o400, owner=0))
