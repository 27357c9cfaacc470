"""KMS over HTTP: JSON 1.1, for the two kinds of keys that the broker uses.

Owns keys, their operations and KMS's own refusals: moto's KMS has no Ed25519, and
no policy is asked there. Signatures and policies are checked as for the other
services. Not here: grants, key policies beyond the account's own (what IAM allows
in the key's account holds), aliases, regions.

What it answers for Ed25519 is as botocore's model of the API says: spec
ECC_NIST_EDWARDS25519, ED25519_SHA_512 with MessageType RAW alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.devstack.aws import sigv4
from broker.devstack.aws.credentials import Key, Keys, caller_of, context_of, policies_of
from broker.devstack.aws.evaluate import Resource, evaluate
from broker.devstack.aws.faults import Fault, Faults, Planned
from broker.devstack.aws.sts_service import Dropped
from broker.devstack.aws.wire import AwsError, Request, Response, request_id
from broker.devstack.aws.world import World

Spec = Literal["ECC_NIST_EDWARDS25519", "ECC_NIST_P256", "SYMMETRIC_DEFAULT"]
Members = dict[str, object]

_TARGET = "TrentService."
_MAX_BODY = 64 * 1024
_SIGNING_ALGORITHMS = {
    "ECC_NIST_EDWARDS25519": ["ED25519_SHA_512", "ED25519_PH_SHA_512"],
    "ECC_NIST_P256": ["ECDSA_SHA_256"],
}


# As services of JSON name what the Query protocol's name otherwise.
_CODES = {
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "ExpiredToken": "ExpiredTokenException",
}


@dataclass(slots=True)
class KmsKeyRecord:
    """`enabled` may be set by a test."""

    arn: str
    spec: Spec
    private: Ed25519PrivateKey = field(repr=False)
    material: AESGCM = field(repr=False)
    enabled: bool = True

    @property
    def symmetric(self) -> bool:
        return self.spec == "SYMMETRIC_DEFAULT"


class KmsService:
    """Answers the requests that are signed for kms."""

    def __init__(
        self, *, keys: Keys, world: World, faults: Faults, clock: Callable[[], float], region: str
    ) -> None:
        self._keys = keys
        self._world = world
        self._faults = faults
        self._clock = clock
        self._region = region
        self._records: dict[str, KmsKeyRecord] = {}
        self._other = Ed25519PrivateKey.generate()
        # The operations that were answered, oldest first.
        self.calls: list[str] = []

    def create_key(self, account: str, spec: Spec) -> KmsKeyRecord:
        """A key of that account, in the stand-in's region."""
        arn = f"arn:{self._world.partition}:kms:{self._region}:{account}:key/{uuid.uuid4()}"
        record = KmsKeyRecord(
            arn, spec, Ed25519PrivateKey.generate(), AESGCM(AESGCM.generate_key(256))
        )
        self._records[arn] = record
        return record

    def answer(self, request: Request, signed: sigv4.Signed) -> Response:
        """Raises Dropped where a planned fault says so."""
        operation = request.headers.get("x-amz-target", "").removeprefix(_TARGET)
        planned = self._faults.take(f"kms:{operation}")
        try:
            self._before(planned)
            caller = sigv4.authenticate(request, signed, self._keys, self._clock())
            members = _members(request)
            record = self._record(members)
            context = _encryption_context(members)
            named = {f"encryptioncontext:{name.lower()}": value for name, value in context.items()}
            if operation == "Sign":
                named["signingalgorithm"] = str(members.get("SigningAlgorithm"))
            self._authorize(operation, record, caller, request, signed.region, named)
            found = self._act(operation, record, members, context)
        except AwsError as error:
            code = _CODES.get(error.code, error.code)
            return _answer(error.status, {"__type": code, "message": error.message})
        self.calls.append(operation)
        return _answer(200, self._twisted(planned, operation, members, found))

    # --- Whether ---------------------------------------------------------------------------

    def _before(self, planned: Planned | None) -> None:
        match None if planned is None else planned.fault:
            case Fault.DROP_BEFORE:
                raise Dropped
            case Fault.THROTTLE:
                raise AwsError("ThrottlingException", "Rate exceeded")
            case Fault.SERVER_ERROR:
                raise AwsError("KMSInternalException", "An internal error occurred.", 500)
            case Fault.HANG if planned is not None:
                self._faults.wait(planned.seconds)
                raise Dropped

    def _record(self, members: Mapping[str, object]) -> KmsKeyRecord:
        record = self._records.get(str(members.get("KeyId")))
        if record is None:
            raise AwsError("NotFoundException", f"Key '{members.get('KeyId')}' does not exist")
        return record

    def _authorize(
        self,
        operation: str,
        record: KmsKeyRecord,
        caller: Key,
        request: Request,
        region: str,
        named: Mapping[str, str],
    ) -> None:
        """`named`: KMS's own condition keys, without `kms:` and in lower case."""
        context = context_of(
            caller, self._world, now=self._clock(), source_ip=request.source_ip, region=region
        )
        context |= {f"kms:{name}": (value,) for name, value in named.items()}
        action = f"kms:{operation}"
        resource = Resource(record.arn, record.arn.split(":")[4])
        decision = evaluate(
            action, resource, caller_of(caller), policies_of(caller, self._world), context
        )
        if not decision.allowed:
            raise AwsError(
                "AccessDeniedException",
                f"User: {caller.arn} is not authorized to perform: {action} on resource:"
                f" {record.arn} {decision.reason}",
            )
        if not record.enabled:
            raise AwsError("DisabledException", f"{record.arn} is disabled.")

    # --- What ------------------------------------------------------------------------------

    def _act(
        self,
        operation: str,
        record: KmsKeyRecord,
        members: Mapping[str, object],
        context: Mapping[str, str],
    ) -> Members:
        symmetric = operation in ("GenerateDataKey", "Encrypt", "Decrypt")
        if not symmetric and operation not in ("GetPublicKey", "Sign"):
            raise AwsError("UnknownOperationException", f"{operation} is not part of this", 400)
        if symmetric is not record.symmetric:
            usage = "ENCRYPT_DECRYPT" if record.symmetric else "SIGN_VERIFY"
            raise AwsError(
                "UnsupportedOperationException"
                if operation == "GetPublicKey"
                else "InvalidKeyUsageException",
                f"{record.arn} key usage is {usage} which is not valid for {operation}.",
            )
        match operation:
            case "GetPublicKey":
                return self._public_key(record)
            case "Sign":
                return self._sign(record, members)
            case "GenerateDataKey":
                plaintext = secrets.token_bytes(32)
                if members.get("KeySpec") != "AES_256":
                    raise _invalid("this stand-in makes keys of KeySpec AES_256")
                sealed = _seal(record, plaintext, context)
                return {
                    "KeyId": record.arn,
                    "Plaintext": _base64(plaintext),
                    "CiphertextBlob": _base64(sealed),
                }
            case "Encrypt":
                sealed = _seal(record, _bytes(members, "Plaintext"), context)
                return {"KeyId": record.arn, "CiphertextBlob": _base64(sealed)}
            case _:
                return self._decrypt(record, members, context)

    def _public_key(self, record: KmsKeyRecord) -> Members:
        public = (
            record.private.public_key()
            if record.spec == "ECC_NIST_EDWARDS25519"
            else generate_private_key(SECP256R1()).public_key()
        )
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "KeyId": record.arn,
            "PublicKey": _base64(der),
            "KeySpec": record.spec,
            "CustomerMasterKeySpec": record.spec,
            "KeyUsage": "SIGN_VERIFY",
            "SigningAlgorithms": _SIGNING_ALGORITHMS[record.spec],
        }

    def _sign(self, record: KmsKeyRecord, members: Mapping[str, object]) -> Members:
        algorithm = members.get("SigningAlgorithm")
        if record.spec != "ECC_NIST_EDWARDS25519" or algorithm != "ED25519_SHA_512":
            raise AwsError(
                "InvalidKeyUsageException",
                f"Algorithm {algorithm} and key spec {record.spec} are incompatible.",
            )
        if members.get("MessageType", "RAW") != "RAW":
            raise _invalid("ED25519_SHA_512 needs MessageType RAW")
        message = _bytes(members, "Message")
        if not 1 <= len(message) <= 4096:
            raise _invalid("Message must have 1 to 4096 bytes")
        return {
            "KeyId": record.arn,
            "Signature": _base64(record.private.sign(message)),
            "SigningAlgorithm": algorithm,
        }

    def _decrypt(
        self, record: KmsKeyRecord, members: Mapping[str, object], context: Mapping[str, str]
    ) -> Members:
        blob = _bytes(members, "CiphertextBlob")
        arn, _, sealed = blob.partition(b"\0")
        if arn != record.arn.encode():
            raise AwsError(
                "IncorrectKeyException",
                "The key ID in the request does not identify a key that can perform this.",
            )
        try:
            plaintext = record.material.decrypt(sealed[:12], sealed[12:], _aad(context))
        except (InvalidTag, ValueError):
            raise AwsError("InvalidCiphertextException", "") from None
        return {
            "KeyId": record.arn,
            "Plaintext": _base64(plaintext),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _twisted(
        self, planned: Planned | None, operation: str, asked: Mapping[str, object], found: Members
    ) -> Members:
        """A wrong answer, true in form."""
        if planned is None or planned.fault is not Fault.OTHER_KEY:
            return found
        if operation == "Sign":
            return {**found, "Signature": _base64(self._other.sign(_bytes(asked, "Message")))}
        return {**found, "KeyId": f"{found['KeyId']}0"}


def _seal(record: KmsKeyRecord, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    nonce = secrets.token_bytes(12)
    sealed = record.material.encrypt(nonce, plaintext, _aad(context))
    return record.arn.encode() + b"\0" + nonce + sealed


def _aad(context: Mapping[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _members(request: Request) -> dict[str, object]:
    kind = request.headers.get("content-type", "")
    if request.method != "POST" or request.path != "/" or kind != "application/x-amz-json-1.1":
        raise AwsError("UnknownOperationException", "KMS is served by POST to /, as JSON 1.1")
    if len(request.body) > _MAX_BODY:
        raise AwsError("SerializationException", "The body is too large.", 413)
    try:
        members = json.loads(request.body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise AwsError("SerializationException", "The body is not a JSON object.")
    return members


def _encryption_context(members: Mapping[str, object]) -> dict[str, str]:
    context = members.get("EncryptionContext", {})
    if not isinstance(context, dict) or not all(isinstance(v, str) for v in context.values()):
        raise _invalid("EncryptionContext must map strings to strings")
    return context


def _bytes(members: Mapping[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(str(members.get(name, "")), validate=True)
    except binascii.Error:
        raise AwsError("SerializationException", f"{name} is not base64") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def _answer(status: int, members: Members) -> Response:
    headers = (
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-RequestId", request_id()),
    )
    return Response(status, headers, json.dumps(members).encode())
