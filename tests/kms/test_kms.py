"""What KMS answers is used if it is about the key that was asked, and right; else it is a fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.adapters.key_place import KmsReference
from broker.adapters.kms import KmsFault
from broker.audit import ed25519
from broker.devstack.aws import Fault
from tests.kms.conftest import Kms, allow, opened

CONTEXT = {"broker:purpose": "sealing", "broker:key-id": "k-1"}


def test_a_signature_is_plain_ed25519(kms: Kms) -> None:
    key = opened(kms.signing())
    public = key.public_key()
    signature = key.sign(b"message", public)
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"message")
    assert ed25519.verify(public, b"message", signature)


def test_a_data_key_opens_in_its_context_alone(kms: Kms) -> None:
    key = opened(kms.sealing())
    plain, wrapped = key.generate_data_key(CONTEXT)
    assert len(plain) == 32
    assert plain not in wrapped
    assert key.unwrap(wrapped, CONTEXT) == plain
    with pytest.raises(KmsFault, match="InvalidCiphertext"):
        key.unwrap(wrapped, CONTEXT | {"broker:key-id": "k-2"})
    with pytest.raises(KmsFault, match="IncorrectKey"):
        opened(kms.sealing()).unwrap(wrapped, CONTEXT)


def test_the_least_rights_that_the_documents_name_are_enough(kms: Kms) -> None:
    signing, sealing = kms.signing(), kms.sealing()
    context = {"StringEquals": {"kms:EncryptionContext:broker:purpose": "sealing"}}
    kms.grant(
        allow("GetPublicKey", on=signing),
        allow("Sign", on=signing)
        | {"Condition": {"StringEquals": {"kms:SigningAlgorithm": "ED25519_SHA_512"}}},
        allow("GenerateDataKey", "Decrypt", on=sealing) | {"Condition": context},
    )
    key = opened(signing)
    key.sign(b"message", key.public_key())
    _, wrapped = opened(sealing).generate_data_key(CONTEXT)
    opened(sealing).unwrap(wrapped, CONTEXT)
    with pytest.raises(KmsFault, match="AccessDenied"):
        opened(sealing).generate_data_key({"broker:purpose": "other"})
    with pytest.raises(KmsFault, match="AccessDenied"):
        opened(sealing).wrap(bytes(32), CONTEXT)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.THROTTLE, "ThrottlingException"),
        (Fault.SERVER_ERROR, "KMSInternalException"),
        (Fault.DROP_BEFORE, "Connection was closed"),
        (Fault.OTHER_KEY, "not by the key that it should be"),
    ],
)
def test_a_signature_that_is_not_had_is_a_fault_that_names_the_key(
    kms: Kms, fault: Fault, says: str
) -> None:
    reference = kms.signing()
    key = opened(reference)
    public = key.public_key()
    kms.aws.faults.add(fault, action="kms:Sign", times=None)
    with pytest.raises(KmsFault, match=says) as caught:
        key.sign(b"message", public)
    assert reference.arn in str(caught.value)
    kms.aws.faults.clear()
    assert key.sign(b"message", public)


@pytest.mark.parametrize("operation", ["GenerateDataKey", "Decrypt"])
def test_an_answer_of_another_key_is_refused(kms: Kms, operation: str) -> None:
    key = opened(kms.sealing())
    _, wrapped = key.generate_data_key(CONTEXT)
    kms.aws.faults.add(Fault.OTHER_KEY, action=f"kms:{operation}")
    ask: dict[str, Callable[[], object]] = {
        "Decrypt": lambda: key.unwrap(wrapped, CONTEXT),
        "GenerateDataKey": lambda: key.generate_data_key(CONTEXT),
    }
    with pytest.raises(KmsFault, match="another key"):
        ask[operation]()


def test_a_key_of_another_kind_is_refused_with_what_is_needed(kms: Kms) -> None:
    nist, _ = kms.create("ECC_NIST_P256")
    with pytest.raises(KmsFault, match="ECC_NIST_EDWARDS25519 --key-usage SIGN_VERIFY"):
        opened(nist).public_key()
    with pytest.raises(KmsFault, match="UnsupportedOperation"):
        opened(kms.sealing()).public_key()
    with pytest.raises(KmsFault, match="InvalidKeyUsage"):
        opened(kms.signing()).generate_data_key(CONTEXT)


def test_a_key_that_is_disabled_or_not_there_is_a_fault(kms: Kms) -> None:
    reference, record = kms.create("ECC_NIST_EDWARDS25519")
    record.enabled = False
    with pytest.raises(KmsFault, match="is disabled"):
        opened(reference).public_key()
    gone = KmsReference.parse(f"{reference}0")
    with pytest.raises(KmsFault, match="NotFound"):
        opened(gone).public_key()


def test_a_kms_that_is_not_there_is_a_fault(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = kms.signing()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    with pytest.raises(KmsFault, match="Could not connect"):
        opened(reference).public_key()


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("AWS_SECRET_ACCESS_KEY", "InvalidSignatureException"),
        ("AWS_ACCESS_KEY_ID", "UnrecognizedClientException"),
    ],
)
def test_requests_are_signed(
    kms: Kms, monkeypatch: pytest.MonkeyPatch, variable: str, says: str
) -> None:
    reference = kms.signing()
    monkeypatch.setenv(variable, "ASIA" + "X" * 16)
    with pytest.raises(KmsFault, match=says):
        opened(reference).public_key()


def test_long_messages_are_refused_before_they_are_sent(kms: Kms) -> None:
    key = opened(kms.signing())
    public = key.public_key()
    before = list(kms.aws.kms.calls)
    with pytest.raises(KmsFault, match="over 4096 bytes"):
        key.sign(bytes(4097), public)
    assert kms.aws.kms.calls == before


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "awskms:",
        "awskms:alias/log",
        "awskms:arn:aws:kms:eu-west-1:111122223333:alias/log",
        "awskms:arn:aws:kms:eu-west-1:1111:key/1234",
        "awskms:arn:aws:s3:eu-west-1:111122223333:key/1234",
        "awskms:arn:aws:kms:eu-west-1:111122223333:key/12 34",
        "awskms:arn:aws:kms:eu-west-1:111122223333:key/1234\n",
        "file:key",
    ],
)
def test_what_names_no_key_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="ARN of a key"):
        KmsReference.parse(reference)
