"""Tokens that a copied, forked, renamed or forging job would show: refused, and on record."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from broker.identity.ci_token import ALGORITHMS
from broker.identity.id_token import TokenRejected, UnverifiedToken
from tests.ci.conftest import World
from tests.ci.issuer import AUDIENCE, LocalIssuer, b64, ec_key, policy_text

Mint = Callable[[LocalIssuer], str]


def github(**changes: object) -> Mint:
    return lambda issuer: issuer.mint("github", **changes)


def gitlab(**changes: object) -> Mint:
    return lambda issuer: issuer.mint("gitlab", **changes)


def cluster(**changes: object) -> Mint:
    """With changes below `kubernetes.io`."""

    def mint(issuer: LocalIssuer) -> str:
        claims = issuer.claims("kubernetes")
        claims["kubernetes.io"] = {**dict(claims["kubernetes.io"]), **changes}  # type: ignore[call-overload]
        return issuer.sign(json.dumps(claims))

    return mint


def raw(change: Callable[[str], str]) -> Mint:
    """A signed payload that is not what a JSON encoder writes."""
    return lambda issuer: issuer.sign(change(json.dumps(issuer.claims())))


def header(**changes: object) -> Mint:
    return lambda issuer: issuer.sign(json.dumps(issuer.claims()), header=changes)


def forged(issuer: LocalIssuer) -> str:
    """Another key under the issuer's key id."""
    honest = issuer.keys["k1"]
    issuer.keys["k1"] = ec_key(666)
    try:
        return issuer.mint()
    finally:
        issuer.keys["k1"] = honest


def unsigned(issuer: LocalIssuer) -> str:
    head = b64(b'{"alg":"none"}')
    return f"{head}.{b64(json.dumps(issuer.claims()).encode())}."


def with_secret(issuer: LocalIssuer) -> str:
    return issuer.sign(json.dumps(issuer.claims()), header={"alg": "HS256"})


def legacy_cluster(issuer: LocalIssuer) -> str:
    """What a Secret of a service account held: no expiry, no audience, names flat."""
    return issuer.sign(
        json.dumps(
            {
                "iss": issuer.issuer("kubernetes"),
                "kubernetes.io/serviceaccount/namespace": "prod",
                "kubernetes.io/serviceaccount/service-account.name": "deploy",
                "kubernetes.io/serviceaccount/service-account.uid": "sa-uid",
                "sub": "system:serviceaccount:prod:deploy",
            }
        )
    )


NOW = int(time.time())
REFUSED: dict[str, Mint] = {
    "audience absent": github(aud=None),
    "audience default": github(aud="https://github.com/octo"),
    "audience two": github(aud=[AUDIENCE, "https://other.test"]),
    "audience twice": github(aud=[AUDIENCE, AUDIENCE]),
    "audience none in a list": github(aud=[]),
    "audience with a suffix": github(aud=f"{AUDIENCE}.evil.test"),
    "audience with a slash": github(aud=f"{AUDIENCE}/"),
    "audience in a list in a list": github(aud=[[AUDIENCE]]),
    "another issuer with GitHub's claims": lambda i: i.mint("github", iss=i.issuer("gitlab")),
    "an issuer that is not configured": github(iss="https://evil.test"),
    "an issuer with a slash": lambda i: i.mint("github", iss=i.issuer("github") + "/"),
    "an issuer in a list": lambda i: i.mint("github", iss=[i.issuer("github")]),
    "no issuer": github(iss=None),
    "same name, another repository": github(repository_id="43"),
    "same name, another owner": github(repository_owner_id="8"),
    "an id as a number": github(repository_id=42),
    "an id in a list": github(repository_id=["42"]),
    "a prefix of the ref": github(ref="refs/heads/mai"),
    "a suffix on the ref": github(ref="refs/heads/main2"),
    "a ref that ends like it": github(ref="refs/heads/x/refs/heads/main"),
    "a line break after the ref": github(ref="refs/heads/main\n"),
    "a line break after the id": github(repository_id="42\n"),
    "the ref and another": github(ref="refs/heads/main|refs/heads/x"),
    "another case": github(ref="refs/heads/Main"),
    "pull_request_target": github(event_name="pull_request_target"),
    "pull_request": github(event_name="pull_request"),
    "a fork's event": github(event_name="fork"),
    "a fork": github(repository_id="99", repository="evil/repo", repository_owner_id="66"),
    "no environment": github(environment=None),
    "an empty environment": github(environment=""),
    "an unprotected ref": github(ref_protected="false"),
    "a protected ref as a truth value": github(ref_protected=True),
    "GitLab: an unprotected ref": gitlab(ref_protected="false"),
    "GitLab: protected as a truth value": gitlab(ref_protected=True),
    "GitLab: a merge request": gitlab(pipeline_source="merge_request_event"),
    "GitLab: another namespace": gitlab(namespace_id="73"),
    "another Kubernetes namespace": cluster(namespace="dev"),
    "a recreated service account": cluster(serviceaccount={"name": "deploy", "uid": "new-uid"}),
    "another service account": cluster(serviceaccount={"name": "other", "uid": "sa-uid"}),
    "no service account": cluster(serviceaccount=None),
    "a legacy Kubernetes token": legacy_cluster,
    "CircleCI: a rerun with SSH": lambda i: i.mint(
        "circleci", **{"oidc.circleci.com/ssh-rerun": True}
    ),
    "exp as a string": github(exp=str(NOW + 300)),
    "exp with a fraction": github(exp=NOW + 300.5),
    "exp as a truth value": github(exp=True),
    "exp absent": github(exp=None),
    "exp not a number": raw(lambda text: text.replace('"exp": ', '"exp": NaN, "x": ')),
    "exp infinite": raw(lambda text: text.replace('"exp": ', '"exp": Infinity, "x": ')),
    "exp of 400 digits": raw(lambda text: text.replace('"exp": ', f'"exp": {"9" * 400}, "x": ')),
    "exp as 1e400": raw(lambda text: text.replace('"exp": ', '"exp": 1e400, "x": ')),
    "exp twice": raw(lambda text: text.replace('"exp": ', f'"exp": {NOW + 9000}, "exp": ')),
    "a claim twice": raw(lambda text: text[:-1] + ', "ref": "refs/heads/main"}'),
    "expired": github(iat=NOW - 700, nbf=NOW - 700, exp=NOW - 60),
    "not yet": github(nbf=NOW + 600),
    "issued in the future": github(iat=NOW + 600, exp=NOW + 700),
    "iat absent": github(iat=None),
    "lives two hours": github(exp=NOW + 7200),
    "GitLab: lives two days": gitlab(exp=NOW + 2 * 86400),
    "expires before it is issued": github(exp=NOW + 1, iat=NOW + 2),
    "jti as a number": github(jti=1),
    "jti empty": github(jti=""),
    "an array": lambda i: i.sign("[]"),
    "a lone surrogate": raw(lambda text: text.replace('"push"', '"\\ud800"')),
    "not JSON": lambda i: i.sign("{"),
    "nested deeply": raw(lambda text: text[:-1] + ', "x": ' + "[" * 3000 + "]" * 3000 + "}"),
    "another's signature": forged,
    "unsigned": unsigned,
    "signed with a secret": with_secret,
    "its own key": header(jwk={"kty": "EC"}),
    "a key elsewhere": header(jku="https://evil.test/jwks"),
    "a critical extension": header(crit=["exp"], exp=1),
    "an unknown key": header(kid="k9"),
    "no token at all": lambda _: "x",
    "four parts": lambda i: i.mint() + ".x",
    "a padded part": lambda i: i.mint() + "=",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_and_on_record(world: World, name: str) -> None:
    token = REFUSED[name](world.issuer)
    answer = await world.credentials(token)
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] == "ci_token_rejected"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    (record,) = await world.records("ci.rejected")
    assert record["outcome"] == "denied"
    assert record["detail"]["code"] == "ci_token_rejected"
    assert record["detail"]["reason"]
    assert len(record["detail"]["token_sha256"]) == 64
    assert world.broker.sts.calls == []
    assert await world.records("ci.exchanged") == []


async def test_nobody_is_asked_about_an_issuer_that_is_not_configured(world: World) -> None:
    token = world.issuer.mint("github", iss=f"{world.issuer.origin}/other")
    assert (await world.credentials(token)).status_code == 401
    assert world.issuer.requests == []


async def test_the_policys_claims_are_for_auditors_and_not_for_strangers(world: World) -> None:
    answer = await world.credentials(world.issuer.mint(ref="refs/heads/dev", environment=None))
    assert "production" not in answer.text
    assert "refs/heads/main" not in answer.text
    (record,) = await world.records("ci.rejected")
    assert record["detail"]["near"] == [
        {
            "workload": "github",
            "failed": [
                {
                    "claim": "ref",
                    "expected": "'refs/heads/main'",
                    "found": "refs/heads/dev",
                },
                {"claim": "environment", "expected": "'production'", "found": None},
            ],
        }
    ]
    assert record["detail"]["claims"]["repository"] == "octo/repo"


async def test_a_flood_of_refusals_is_counted_and_not_recorded_one_by_one(world: World) -> None:
    for _ in range(30):
        assert (await world.credentials(world.issuer.mint(environment=None))).status_code == 401
    assert (await world.credentials("x")).status_code == 401
    assert (await world.credentials(world.issuer.mint(ref="x"))).status_code == 401
    recorded = [record["detail"]["reason"] for record in await world.records("ci.rejected")]
    assert len(set(recorded)) == 3
    assert len(recorded) <= 4  # a minute may turn in between
    assert any("github fails by environment" in reason for reason in recorded)


@pytest.mark.parametrize(
    "token",
    [
        "." * 1_000_000,
        "e30." * 300_000,
        f"{b64(b'{}')}.{b64(b'[' * 100_000)}.{b64(b'x')}",
        f"{b64(b'[' * 11_000)}.e30.e30",
        f"{base64.urlsafe_b64encode(b'{' * 9000).decode()}.e30.e30",
    ],
    ids=["dots", "parts", "deep claims", "deep header", "braces"],
)
def test_hostile_tokens_cost_next_to_nothing(token: str) -> None:
    started = time.process_time()
    with pytest.raises(TokenRejected):
        UnverifiedToken.parse(token, ALGORITHMS)
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize("token", ["." * 1_000_000, f"a.{b64(b'[' * 100_000)}.b"])
async def test_hostile_tokens_are_refused_over_http_and_recorded(world: World, token: str) -> None:
    assert (await world.credentials(token)).json()["code"] == "ci_token_rejected"
    exchanged = await world.exchange(token)
    assert exchanged.status_code in (400, 413), exchanged.text
    assert await world.records("ci.rejected")


async def test_an_entry_may_admit_one_algorithm_alone(world: World) -> None:
    await world.apply(policy_text(world.issuer, more=", algorithms: [RS256]"))
    answer = await world.credentials(world.issuer.mint())
    assert answer.json()["code"] == "ci_token_rejected"
    assert "algorithm" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"subject_token_type": "urn:x"}, "invalid_request"),
        ({"requested_token_type": "urn:x"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"subject_token": ""}, "invalid_request"),
    ],
)
async def test_token_exchange_takes_one_kind_of_request(
    world: World, fields: dict[str, str], error: str
) -> None:
    answer = await world.exchange(world.issuer.mint(), **fields)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_token_exchange_refuses_in_rfc_8693s_words(world: World) -> None:
    answer = await world.exchange(world.issuer.mint(environment=None))
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert answer.json()["code"] == "ci_token_rejected"
    assert answer.headers["cache-control"] == "no-store"
