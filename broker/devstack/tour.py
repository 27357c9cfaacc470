"""The walk through the running broker: each step in plain words, each with its proof.

Owns: what is shown and what must be true for a step to pass. Every step goes
the way a user goes: the `broker` command, the browser's pages, stock boto3. A
step that does not come out as told ends the tour with TourFailed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from broker.devstack.browser import ScriptedBrowser, ScriptedPerson
from broker.devstack.terminal import Ran, Terminal

if TYPE_CHECKING:
    from broker.devstack.aws import AwsStandIn, HubCredentials

EXTERNAL_ID = "broker-demo"  # as in access.yaml
POLICY = Path(__file__).with_name("access.yaml")
_SECRET = re.compile(r'("(?:SecretAccessKey|SessionToken)": ")([^"]{4})[^"]*')


class TourFailed(Exception):
    """A step did not come out as told."""


@dataclass(slots=True)
class Member:
    """One person of the demonstration, with their own browser and terminal."""

    person: ScriptedPerson
    terminal: Terminal
    browser: ScriptedBrowser = field(default_factory=ScriptedBrowser)


@dataclass(slots=True)
class Stage:
    """What the tour walks on. `enrolment_code` gives a one-time code for an e-mail address, as
    `broker recover` prints it on the server's host. `log_key` is the log's verifier key, as
    auditors are given it.
    """

    aws: AwsStandIn
    hub: HubCredentials
    region: str
    alice: Member
    bob: Member
    grace: Member
    enrolment_code: Callable[[str], str]
    log_key: str
    folder: Path
    say: Callable[[str], None]
    stolen: dict[str, str] = field(default_factory=dict, repr=False)

    def enrol(self, member: Member) -> None:
        """Sign in through the pages and confirm an authenticator with an enrolment code."""
        code = self.enrolment_code(f"{member.person.username}@example.com")
        page = member.person.sign_in(
            member.browser, f"{member.terminal.server}/login", enrolment_code=code
        )
        _require(member.person.totp_secret is not None, f"no factor was enrolled at {page.path}")


def prepare(stage: Stage) -> None:
    """Enrol everybody and apply the access policy: what `broker dev` needs before use."""
    for member in (stage.grace, stage.alice, stage.bob):
        stage.enrol(member)
    _succeeded(stage.grace.terminal.log_in(stage.grace.person, stage.grace.browser))
    _succeeded(stage.grace.terminal.run("access", "apply", str(POLICY), "--yes"))


def walk(stage: Stage) -> None:
    """The whole tour, after the stand-ins and the broker are up. Raises TourFailed."""
    chapters = (
        ("An admin enrols a second factor", _admin_enrols),
        ("The admin applies the access policy", _policy_is_applied),
        ("Alice, an analyst, signs in", _alice_signs_in),
        ("Alice gets scoped credentials", _alice_gets_credentials),
        ("The credentials do what they may, and nothing else", _credentials_are_used),
        ("Bob, who has no entitlement, is refused", _bob_is_refused),
        ("Why, and why not", _why),
        ("Bob is given the role for a time", _bob_is_granted),
        ("Alice's laptop is stolen: she is stopped at once", _alice_is_suspended),
        ("Alice is back", _alice_is_reinstated),
        ("Everything is on the record", _record_is_read),
        ("The log verifies, and a changed byte is found", _log_is_verified),
    )
    for number, (title, chapter) in enumerate(chapters, 1):
        stage.say(f"\n{number}. {title}")
        try:
            chapter(stage)
        except TourFailed:
            raise
        except Exception as fault:
            raise TourFailed(f"step {number} ({title}): {fault!r}") from fault


def _admin_enrols(stage: Stage) -> None:
    stage.say("   Grace's password alone opens nothing. Her first authenticator needs a one-time")
    stage.say("   code, which `broker recover` prints on the server's host.")
    stage.enrol(stage.grace)
    codes = stage.grace.person.recovery_codes
    _require(len(codes) == 10, f"ten recovery codes were to be shown, not {len(codes)}")
    _done(stage, "her authenticator is confirmed by a code; ten recovery codes were shown once")


def _policy_is_applied(stage: Stage) -> None:
    _show(stage, _succeeded(stage.grace.terminal.log_in(stage.grace.person, stage.grace.browser)))
    _show(stage, _succeeded(stage.grace.terminal.run("access", "apply", str(POLICY), "--yes")))
    _done(stage, "who may have what is now one versioned, audited file")


def _alice_signs_in(stage: Stage) -> None:
    stage.say("   The browser goes to the OpenID provider, comes back, asks for the second factor,")
    stage.say("   and then for one click: nothing on this computer signs in behind her back.")
    stage.enrol(stage.alice)
    _show(stage, _succeeded(stage.alice.terminal.log_in(stage.alice.person, stage.alice.browser)))
    _show(stage, _succeeded(stage.alice.terminal.run("whoami")))
    _show(stage, _succeeded(stage.alice.terminal.run("roles")))
    _done(stage, "she holds a 15-minute token and no AWS key")


def _alice_gets_credentials(stage: Stage) -> None:
    ran = _succeeded(
        stage.alice.terminal.run("creds", "data-reader", "--duration", "12h", "--format", "json")
    )
    _show(stage, ran)
    call = stage.aws.calls[-1]
    stage.say("   What the broker asked of STS, all of it set by the server:")
    for name in ("RoleArn", "RoleSessionName", "SourceIdentity", "DurationSeconds", "Policy"):
        stage.say(f"     {name} = {call.parameters.get(name, '')}")
    _require(call.parameters["DurationSeconds"] == "3600", "12 h were to be lowered to 1 h")
    _done(stage, "she asked for 12 hours; the broker is itself a role session, so AWS allows one")


def _credentials_are_used(stage: Stage) -> None:
    ran = _succeeded(stage.alice.terminal.run("creds", "data-reader", "--format", "json"))
    s3 = _s3(stage, json.loads(ran.out))
    body = s3.get_object(Bucket="reports", Key="public/q3.csv")["Body"].read()
    _require(bool(body), "the object was empty")
    _done(stage, f"read s3://reports/public/q3.csv: {len(body)} bytes")
    with _refused_by_aws():
        s3.get_object(Bucket="reports", Key="private/salaries.csv")
    _done(stage, "s3://reports/private/salaries.csv: AccessDenied, outside the chosen prefix")
    with _refused_by_aws():
        s3.put_object(Bucket="reports", Key="public/mine.csv", Body=b"x")
    _done(stage, "writing: AccessDenied, though the IAM role itself may write ...")
    unscoped = _s3(stage, _assume_without_session_policy(stage))
    unscoped.put_object(Bucket="reports", Key="public/mine.csv", Body=b"x")
    _done(stage, "... as the same role without the broker's session policy shows")


def _bob_is_refused(stage: Stage) -> None:
    stage.enrol(stage.bob)
    _succeeded(stage.bob.terminal.log_in(stage.bob.person, stage.bob.browser))
    before = len(stage.aws.calls)
    ran = stage.bob.terminal.run("creds", "data-reader")
    _show(stage, ran)
    _require(ran.code == 1 and "not_found" in ran.err, "Bob was to be refused with not_found")
    _require(len(stage.aws.calls) == before, "STS was called for Bob")
    _done(stage, "to Bob the role does not even exist, and STS was never asked")


def _why(stage: Stage) -> None:
    ran = _succeeded(stage.alice.terminal.run("why", "data-reader", "--duration", "12h"))
    _show(stage, ran)
    _require("ALLOWED" in ran.out, "Alice was to be allowed")
    bob = f"dev/{stage.bob.person.username}@example.com"
    ran = _succeeded(stage.grace.terminal.run("why", "data-reader", "--principal", bob))
    _show(stage, ran)
    _require("REFUSED" in ran.out, "Bob was to be refused")
    _done(stage, "the decision as it would fall now; nothing was issued to find out")


def _bob_is_granted(stage: Stage) -> None:
    grace, bob = stage.grace.terminal, stage.bob.terminal
    give = ("grant", "bob@example.com", "data-reader", "--reason", "covers for Alice")
    given = _succeeded(grace.run(*give, "--for", "40m"))
    _show(stage, given)
    ran = _succeeded(bob.run("creds", "data-reader", "--format", "json"))
    body = _s3(stage, json.loads(ran.out)).get_object(Bucket="reports", Key="public/q3.csv")
    _require(bool(body["Body"].read()), "the object was empty")
    seconds = int(stage.aws.calls[-1].parameters["DurationSeconds"])
    _require(0 < 2400 - seconds <= 60, f"{seconds} s outlive a grant of 2400 s")
    _done(stage, f"Bob reads the report; his credentials end with the grant, in {seconds} s")
    _show(stage, _succeeded(grace.run("revoke", given.out.strip(), "--reason", "Alice is back")))
    ran = bob.run("creds", "data-reader")
    _require(ran.code == 1 and "not_found" in ran.err, "a revoked grant was to give nothing")
    _done(stage, "revoked: from that moment on the role is gone for Bob again")
    _succeeded(grace.run(*give, "--for", "14m"))
    ran = bob.run("creds", "data-reader")
    _show(stage, ran)
    _require(ran.code == 1 and "duration_too_short" in ran.err, "14 minutes were to be too few")
    _done(stage, "a grant about to expire gives nothing: AWS gives no less than 15 minutes")


def _alice_is_suspended(stage: Stage) -> None:
    held = _succeeded(stage.alice.terminal.run("creds", "data-reader", "--format", "json"))
    stage.stolen = json.loads(held.out)
    ran = _succeeded(
        stage.grace.terminal.run("suspend", "alice@example.com", "--reason", "laptop stolen")
    )
    _show(stage, ran)
    refused = stage.alice.terminal.run("creds", "data-reader")
    _show(stage, refused)
    _require(refused.code == 3, f"Alice was to be logged out, not {refused.code}")
    _done(stage, "the broker refuses her next request; but AWS knows nothing of it yet ...")
    s3 = _s3(stage, stage.stolen)
    s3.get_object(Bucket="reports", Key="public/q3.csv")
    _paste(stage, ran)
    with _refused_by_aws():
        s3.get_object(Bucket="reports", Key="public/q3.csv")
    _done(
        stage, "... until the printed policy is on the role: her credentials are dead, others' not"
    )


def _alice_is_reinstated(stage: Stage) -> None:
    ran = _succeeded(
        stage.grace.terminal.run("reinstate", "alice@example.com", "--reason", "a new laptop")
    )
    _show(stage, ran)
    _paste(stage, ran)
    _succeeded(stage.alice.terminal.log_in(stage.alice.person, stage.alice.browser))
    # AWS counts whole seconds: credentials of the second in which it was lifted are denied too.
    time.sleep(max(0.0, _cut(ran) - stage.aws.now()))
    fresh = _succeeded(stage.alice.terminal.run("creds", "data-reader", "--format", "json"))
    _s3(stage, json.loads(fresh.out)).get_object(Bucket="reports", Key="public/q3.csv")
    with _refused_by_aws():
        _s3(stage, stage.stolen).get_object(Bucket="reports", Key="public/q3.csv")
    _done(stage, "she logs in anew and works; what was stolen stays denied")


def _paste(stage: Stage, ran: Ran) -> None:
    """What an AWS admin does with the output: the policy goes onto the role that it names."""
    role = re.search(r"^# role +(\S+)$", ran.out, re.MULTILINE)
    name = re.search(r"^# policy +(\S+)$", ran.out, re.MULTILINE)
    if role is None or name is None:
        raise TourFailed("no role and policy were named")
    iam = boto3.client(
        "iam",
        endpoint_url=stage.aws.url,
        region_name=stage.region,
        **stage.aws.hub_credentials("root").client_arguments(),
    )
    iam.put_role_policy(
        RoleName=role[1].rpartition("/")[2],
        PolicyName=name[1],
        PolicyDocument=_policy(ran),
    )


def _policy(ran: Ran) -> str:
    return "\n".join(line for line in ran.out.splitlines() if not line.startswith("#"))


def _cut(ran: Ran) -> float:
    [statement] = json.loads(_policy(ran))["Statement"]
    return datetime.fromisoformat(
        statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
    ).timestamp()


def _record_is_read(stage: Stage) -> None:
    ran = _succeeded(stage.grace.terminal.run("audit", "tail"))
    for line in ran.out.strip().splitlines()[-8:]:
        stage.say(f"     {line[:118]}")
    for expected in (
        "issuance.requested",
        "issuance.issued",
        "issuance.denied",
        "mfa.enrolled",
        "grant.revoked",
        "revocation.requested",
        "revocation.lifted",
    ):
        _require(expected in ran.out, f"no {expected} in the log")
    _done(stage, "intent before STS, outcome after it, and the refusal too")


def _log_is_verified(stage: Stage) -> None:
    export = stage.folder / "audit.jsonl"
    _succeeded(stage.grace.terminal.run("audit", "export", "-o", str(export)))
    _show(stage, _succeeded(stage.grace.terminal.run("audit", "verify", str(export))))
    verify = ("audit", "verify", str(export), "--key", stage.log_key)
    ran = _succeeded(stage.grace.terminal.run(*verify))
    _show(stage, ran)
    _require(ran.out.startswith("authentic: "), "the log was to be called authentic")
    _done(stage, "the log's own key, which is not in the database, has signed it")
    spoilt = stage.folder / "spoilt.jsonl"
    lines = export.read_text("utf-8").splitlines(keepends=True)
    lines[2] = lines[2].replace("success", "failure", 1).replace("grace", "alice", 1)
    _require(lines[2] != export.read_text("utf-8").splitlines(keepends=True)[2], "nothing changed")
    spoilt.write_text("".join(lines), "utf-8")
    ran = stage.grace.terminal.run("audit", "verify", str(spoilt))
    _show(stage, ran)
    _require(ran.code == 1 and "seq 3" in ran.out + ran.err, "the change was to be found at seq 3")
    _done(stage, "one word changed in record 3, and it is named")
    spoilt.write_text("".join(export.read_text("utf-8").splitlines(keepends=True)[:5]), "utf-8")
    signed = export.with_name(f"{export.name}.checkpoint")
    ran = stage.grace.terminal.run(
        "audit", "verify", str(spoilt), "--key", stage.log_key, "--checkpoint", str(signed)
    )
    _show(stage, ran)
    _require(ran.code == 1 and "seq 6" in ran.out, "the missing records were to be noticed")
    _done(stage, "a log cut off after record 5 is consistent in itself, and not what was signed")


def _s3(stage: Stage, credentials: dict[str, str]) -> Any:  # noqa: ANN401 - boto3 has no types
    return boto3.client(
        "s3",
        endpoint_url=stage.aws.url,
        region_name=stage.region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def _assume_without_session_policy(stage: Stage) -> dict[str, str]:
    """What the hub role could do by itself, to show what the broker's policy takes away."""
    hub = stage.hub
    sts = boto3.client(
        "sts",
        endpoint_url=stage.aws.url,
        region_name=stage.region,
        aws_access_key_id=hub.access_key_id,
        aws_secret_access_key=hub.secret_access_key,
        aws_session_token=hub.session_token,
    )
    answer = sts.assume_role(
        RoleArn="arn:aws:iam::111122223333:role/DataReader",
        RoleSessionName="tour-without-broker",
        ExternalId=EXTERNAL_ID,
    )
    credentials: dict[str, str] = answer["Credentials"]
    return credentials


@contextmanager
def _refused_by_aws() -> Iterator[None]:
    try:
        yield
    except ClientError as refusal:
        _require(refusal.response["Error"]["Code"] == "AccessDenied", str(refusal))
        return
    raise TourFailed("AWS allowed what the session policy forbids")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise TourFailed(otherwise)


def _succeeded(ran: Ran) -> Ran:
    _require(ran.code == 0, f"broker {' '.join(ran.arguments)} ended with {ran.code}: {ran.err}")
    return ran


def _show(stage: Stage, ran: Ran) -> None:
    stage.say(f"   $ broker {' '.join(ran.arguments)}")
    for line in (ran.out + ran.err).splitlines():
        if line.strip():
            masked = _SECRET.sub(r"\1\2…", line)
            stage.say(f"     {masked[:160]}")


def _done(stage: Stage, words: str) -> None:
    stage.say(f"   ✓ {words}")
