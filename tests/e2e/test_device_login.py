"""A machine without a browser, a person with one elsewhere, and real processes between them."""

from __future__ import annotations

import json

from broker.devstack.terminal import Terminal


def test_a_headless_machine_gets_credentials_and_no_rights(deploy, sqlite_url, tmp_path):
    broker = deploy(sqlite_url)
    grace = broker.enrolled("grace")
    broker.apply_policy(grace)
    alice = broker.enrolled("alice")

    machine = Terminal(broker.public_url, tmp_path / "headless")
    ran = machine.log_in_by_code(alice.person, alice.browser)
    assert ran.code == 0, ran.err
    issued = machine.run("creds", "data-reader", "--format", "json")
    assert issued.code == 0, issued.err
    assert json.loads(issued.out)["AccessKeyId"]

    # An admin's own, with the factor just shown, administers nothing.
    ran = machine.log_in_by_code(grace.person, grace.browser)
    assert ran.code == 0, ran.err
    refused = machine.run("enrol-code", "corp/alice@example.com")
    assert refused.code == 1
    assert "by a code from another device" in refused.err
    assert grace.terminal.run("access", "export").code == 0
