"""`broker access trust-policy`: the document alone on stdout, what to know of it on stderr."""

from __future__ import annotations

import json

from broker.cli.tokens import Tokens
from tests.cli.conftest import Cli
from tests.cli.fake_broker import FakeBroker, Reply

PATH = "/v1/access/trust-policy/data-reader"
HOP = "arn:aws:iam::444455556666:role/Hop"
ANSWER = {
    "role": "data-reader",
    "role_arn": "arn:aws:iam::111122223333:role/DataReader",
    "principal": HOP,
    "policy": {"Version": "2012-10-17", "Statement": [{"Sid": "\x1b[2J\u202e"}]},
    "notes": ["Mind the \x1b[31mgap."],
    "hops": [
        {
            "role_arn": HOP,
            "principal": "arn:aws:iam::999988887777:role/Hub",
            "policy": {"Version": "2012-10-17", "Statement": []},
            "notes": [],
        }
    ],
}


def test_stdout_is_the_document(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.of(ANSWER)
    done = cli("access", "trust-policy", "data-reader")
    assert done.code == 0
    assert json.loads(done.out) == ANSWER["policy"]
    assert "The trust policy of arn:aws:iam::111122223333:role/DataReader" in done.err
    assert f"--hop {HOP}" in done.err
    assert not any(sign in done.out + done.err for sign in "\x1b\u202e")


def test_a_hops_document(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.of(ANSWER)
    done = cli("access", "trust-policy", "data-reader", "--hop", HOP)
    assert json.loads(done.out) == {"Version": "2012-10-17", "Statement": []}
    assert "arn:aws:iam::999988887777:role/Hub" in done.err
    other = cli("access", "trust-policy", "data-reader", "--hop", "arn:aws:iam::1:role/X")
    assert other.code == 2
    assert other.out == ""
    assert HOP in other.err


def test_refusals_and_wrong_usage(cli: Cli, broker: FakeBroker, logged_in: Tokens):
    broker.replies[PATH] = Reply.problem(403, "forbidden", "Only admins may do this.")
    assert cli("access", "trust-policy", "data-reader").code == 1
    broker.replies[PATH] = Reply.of({**ANSWER, "policy": "x"})
    assert cli("access", "trust-policy", "data-reader").code == 4
    assert cli("access", "trust-policy", "../x").code == 2
    assert cli("access", "trust-policy").code == 2
