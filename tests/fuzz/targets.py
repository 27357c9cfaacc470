"""What reads the outside's bytes, as functions of bytes that a fuzzer calls.

A target ends quietly where the input is refused as its docstring says, or taken; anything else
it raises is a finding. `SEEDS` are inputs near the grammar, to start from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from broker.access.finding import PolicyRefused
from broker.access.hours import Hours, HoursError
from broker.access.lint import lint_policy
from broker.access.parse import parse_policy
from broker.access.template import PolicyTemplate, TemplateRefused, TextTemplate, ValueRefused
from broker.adapters.sts.answer import OddAnswer, Reply, caller_identity, minted, refusal
from broker.audit.note import Note, VerifierKey
from broker.audit.receipt import Receipt
from broker.audit.verify import export_line, verify
from broker.cli.cached import parse_duration
from broker.errors import BrokerError
from broker.identity.ci_token import ALGORITHMS, unverified_issuer
from broker.identity.device import ALPHABET, clean_host_name, read_user_code
from broker.identity.id_token import TokenRejected, UnverifiedToken
from broker.identity.strict_json import parse_object
from broker.identity.totp import matching_step
from broker.identity.typed_codes import TypedCodeKind, hash_of_typed
from broker.issuance.request import CredentialRequest
from tests.hostile.world import POLICY
from tests.oidc.conftest import b64
from tests.sts.misbehaving import a_call, good_answer, identity_answer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
_VALUE = "v"


def _text(data: bytes) -> str:
    """As the web hands text over: anything that UTF-8 can say."""
    return data.decode("utf-8", "replace")


def token(data: bytes) -> None:
    """A JWT before its signature is looked at: TokenRejected, or parsed with an issuer."""
    try:
        unverified = UnverifiedToken.parse(data.decode("latin-1"), ALGORITHMS)
        issuer = unverified_issuer(unverified)
    except TokenRejected:
        return
    assert unverified.algorithm in ALGORITHMS
    assert isinstance(issuer, str)


def strict_json(data: bytes) -> None:
    """A JSON object: TokenRejected's ValueError, or what json.loads reads of it."""
    try:
        found = parse_object(data)
    except ValueError:
        return
    assert found == json.loads(data)


def policy(data: bytes) -> None:
    """The access policy: PolicyRefused with findings that have lines, or a policy."""
    text = _text(data)
    try:
        parsed = parse_policy(text, providers=frozenset({"corp"}))
    except PolicyRefused:
        assert lint_policy(text, frozenset({"corp"}), lambda _: ()), "refused without a word"
        return
    # Nothing that could be applied gives a right by a name it does not have.
    assert all(one.role in parsed.roles for one in parsed.entitlements)


def template(data: bytes) -> None:
    """A session policy's text: TemplateRefused, or it renders without a placeholder left."""
    text = _text(data)
    try:
        parsed = TextTemplate.parse(text)
        whole = PolicyTemplate.parse({"Statement": [{"Resource": [text]}]})
    except TemplateRefused:
        return
    values = dict.fromkeys(parsed.placeholders | whole.placeholders, _VALUE)
    try:
        rendered = parsed.render(values)
    except ValueRefused:
        return
    assert "{{" not in rendered
    if not parsed.placeholders:
        assert rendered == text


def hours(data: bytes) -> None:
    """Opening hours: HoursError, or they say of any instant whether it is within."""
    try:
        parsed = Hours.parse([_text(data)])
    except HoursError:
        return
    parsed.remaining(NOW)


def duration(data: bytes) -> None:
    """A duration on the command line: ValueError, or whole seconds above nothing."""
    try:
        seconds = parse_duration(_text(data))
    except ValueError:
        return
    assert seconds > 0


def request(data: bytes) -> None:
    """The body of a request for credentials: a refusal with a code, or a request."""
    try:
        asked = CredentialRequest.parse(parse_object(data))
    except (BrokerError, ValueError):
        return
    assert asked.duration is None or type(asked.duration) is int
    assert all(isinstance(value, str) for value in asked.parameters.values())


def sts_answer(data: bytes) -> None:
    """STS's XML: OddAnswer, or exactly the answer to what was asked."""
    call = a_call()
    reply = Reply(200, data, None, None)
    for read in (lambda: minted(reply, call, NOW), lambda: caller_identity(reply)):
        try:
            read()
        except OddAnswer:
            continue
    try:
        refused = refusal(Reply(400, data, None, None))
    except OddAnswer:
        return
    assert refused.message.isprintable()


def export(data: bytes) -> None:
    """An export of the log: verified, or a problem with a number; never an exception."""
    found = verify([data[:7], data[7:]])
    assert found.problem is not None or found.head.seq == data.count(b"\n")


def note(data: bytes) -> None:
    """Signed notes, keys and receipts: ValueError, or what they say."""
    text = _text(data)
    for read in (Note.parse, VerifierKey.parse, _receipt):
        try:
            read(text)
        except ValueError:
            continue


def _receipt(text: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    Receipt.parse(value)


def typed_code(data: bytes) -> None:
    """What people type: a device's user code, a TOTP code, recovery and enrolment codes."""
    text = _text(data)
    read = read_user_code(text)
    assert read is None or (len(read.replace("-", "")) == 8 and set(read) <= {*ALPHABET, "-"})
    step = matching_step(TOTP_SECRET, text, NOW, -1)
    assert step is None or (len(text) == 6 and text.isascii())
    for kind in TypedCodeKind:
        hashed = hash_of_typed(kind, text)
        assert hashed is None or len(hashed) == 32
    name = clean_host_name(text)
    assert name is None or name.isprintable()


_TOKEN = ".".join(
    b64(part)
    for part in (
        b'{"alg":"RS256","kid":"k"}',
        b'{"iss":"https://token.actions.githubusercontent.com","aud":"b","exp":1,"iat":0}',
        b"signature",
    )
)
_REQUEST = (
    b'{"role":"r","duration":900,"parameters":{"b":"x"},"restrict":[{"Effect":"Deny",'
    b'"Action":"s3:*","Resource":"*"}],"reason":"t"}'
)
_RECORD = b'{"v":1,"seq":1,"time":"2026-11-24T12:00:00.000000Z","type":"audit.checkpoint"}'
_POLICY = POLICY.format(
    data_reader="arn:aws:iam::111122223333:role/DataReader", external_id="x" * 16
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        token,
        strict_json,
        policy,
        template,
        hours,
        duration,
        request,
        sts_answer,
        export,
        note,
        typed_code,
    )
}
SEEDS: dict[str, tuple[bytes, ...]] = {
    "token": (_TOKEN.encode(),),
    "strict_json": (b'{"a":[1,-2.5e3,"\\u00e9",null,{"b":true}]}',),
    "policy": (_POLICY.encode(),),
    "template": (b"arn:aws:s3:::{{bucket}}/{{principal.claims.team}}/*", b"${aws:username}"),
    "hours": (b"Mon-Fri 08:00-20:00 Europe/Berlin", b"Sat,Sun 22:00-02:00 UTC"),
    "duration": (b"45m", b"3d", b"3600"),
    "request": (_REQUEST,),
    "sts_answer": (
        good_answer().encode(),
        identity_answer("arn:aws:iam::111122223333:role/R").encode(),
    ),
    "export": (export_line(_RECORD, b"\1" * 32, b"\2" * 32),),
    "note": (
        b"broker.test\n1\nAAAA\n\n\xe2\x80\x94 broker.test AAAAAAAA\n",
        b"broker.test+00000000+AQ==",
        b'{"version":1,"seq":1,"record":"{}","path":[],"checkpoint":"x"}',
    ),
    "typed_code": (b"BCDF-GHJK", b"123456", "\uff11\uff12\uff13456".encode(), b"abcdef-" * 4),
}
