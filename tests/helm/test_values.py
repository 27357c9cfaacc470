"""What the chart refuses, in the schema or by its own checks, each with a line that says where."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import broker
from tests.helm.conftest import VALUES, values_of
from tests.helm.rendering import CHART, Document, Job, Rendered, render
from tools import chart as generated

Change = tuple[str, Any]
ITEM = {"name": "s", "key": "k"}
PEER = {"cidr": "10.0.0.0/8"}

# What is wrong, the values that differ from `minimal`, and a part of the answer.
REFUSED: dict[str, tuple[Sequence[Change], str]] = {
    # --- Images ---
    "tag latest": ([("image.tag", "latest")], "/image/tag"),
    "tag Latest": ([("image.tag", "Latest")], "/image/tag"),
    "no tag": ([("image.tag", "")], "/image/tag"),
    "tag of another image": ([("image.tag", "1@sha256:aa")], "/image/tag"),
    "tag that is a number": ([("image.tag", 1.0)], "/image/tag"),
    "digest cut": ([("image.digest", "sha256:abc")], "/image/digest"),
    "no image": ([("image.repository", "")], "/image/repository"),
    "tag in the repository": ([("image.repository", "r.example.com/b:latest")], "/repository"),
    "image with a line break": ([("image.repository", "r/b\nprivileged: true")], "/repository"),
    "pull policy of no such name": ([("image.pullPolicy", "Sometimes")], "/pullPolicy"),
    # --- Unknown keys: no override of what pods may do ---
    "unknown value": ([("replica", 3)], "replica"),
    "unknown value inside": ([("image.name", "x")], "name"),
    "privileged": ([("securityContext", {"privileged": True})], "securityContext"),
    "another user": ([("podSecurityContext", {"runAsUser": 0})], "podSecurityContext"),
    "host network": ([("hostNetwork", True)], "hostNetwork"),
    "volumes of the host": ([("extraVolumes", [{"hostPath": {"path": "/"}}])], "extraVolumes"),
    "more containers": ([("extraContainers", [{}])], "extraContainers"),
    "another command": ([("command", ["sh"])], "command"),
    "token of the cluster": (
        [("serviceAccount.automountServiceAccountToken", True)],
        "automountServiceAccountToken",
    ),
    "unknown setting": ([("settings.server.prot", 1)], "prot"),
    "unknown section": ([("settings.sever", {})], "sever"),
    "setting of the chart's own": ([("settings.server.port", 80)], "port"),
    "unsafe durability": ([("settings.audit", {"allow_unsafe_durability": True})], "unsafe"),
    # --- Addresses ---
    "public_url missing": ([("settings.server", {})], "public_url"),
    "public_url of http": ([("settings.server.public_url", "http://b.example.com")], "public_url"),
    "public_url of loopback": ([("settings.server.public_url", "http://127.0.0.1")], "public_url"),
    "public_url with a path": ([("settings.server.public_url", "https://b.example/x")], "public"),
    "public_url of a person": ([("settings.server.public_url", "https://a@b.example")], "public"),
    "public_url with a line break": (
        [("settings.server.public_url", "https://b.example.com\n")],
        "public_url",
    ),
    "issuer of http": (
        [
            (
                "settings.oidc",
                [oidc := {"name": "corp", "client_id": "b"} | {"issuer": "http://id.example.com"}],
            )
        ],
        "issuer",
    ),
    "title that ends its line": (
        [("settings.oidc", [oidc | {"issuer": "https://i.example", "title": "a\u0085b: c"}])],
        "title",
    ),
    # --- Secrets as values ---
    "client secret inline": (
        [("settings.oidc", [oidc | {"issuer": "https://i.example", "client_secret": "s3cret"}])],
        "client_secret",
    ),
    "database URL inline": (
        [("settings.database", {"url": "postgresql+asyncpg://u:p@h/d"})],
        "url",
    ),
    "database URL as the name": (
        [("secrets.database.name", "postgresql+asyncpg://u:p@h/d")],
        "/secrets/database/name",
    ),
    "secret value": ([("secrets.database.value", "s3cret")], "value"),
    "keys inline": ([("settings.keys", {"sealing": "file:x"})], "keys"),
    "file of another place": (
        [
            (
                "settings.audit",
                {
                    "sinks": [
                        {
                            "name": "a",
                            "kind": "webhook",
                            "url": "https://s.example",
                            "secret_file": "/proc/self/environ",
                        }
                    ]
                },
            )
        ],
        "sinks",
    ),
    "AWS keys": ([("env", {"AWS_SECRET_ACCESS_KEY": "x"})], "'AWS_SECRET_ACCESS_KEY'"),
    "database password": ([("env", {"PGPASSWORD": "x"})], "'PGPASSWORD'"),
    "collector's headers": ([("env", {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=x"})], "HEADERS'"),
    "proxy with a password": ([("env", {"HTTPS_PROXY": "http://u:p@proxy:3128"})], "/env"),
    "setting by the environment": ([("env", {"BROKER_MFA__ENROLMENT": "open"})], "ENROLMENT'"),
    "loader of libraries": ([("env", {"LD_PRELOAD": "/tmp/x.so"})], "'LD_PRELOAD'"),
    "file of no provider": ([("secrets.oidc", {"other": ITEM})], "secrets.oidc.other"),
    "owner as application": (
        [("secrets.migration", {"name": "broker-database", "key": "url"})],
        "two roles",
    ),
    "name of no Secret": ([("secrets.sealing.name", "Broker/Keys")], "/secrets/sealing/name"),
    "path as a file's name": ([("secrets.files", {"../x": ITEM})], "'../x'"),
    "csi path of another kind": (
        [("secrets.source", "csi"), ("secrets.database.key", "a || b")],
        "/secrets/database/key",
    ),
    "external secrets without a store": (
        [("secrets.source", "externalSecrets")],
        "/secrets/externalSecrets/store/name",
    ),
    # --- Names that would be more than names ---
    "fullname with a line break": ([("fullnameOverride", "a\n  evil: true")], "/fullnameOverride"),
    "name with a template": ([("nameOverride", "{{ .Release }}")], "/nameOverride"),
    "service account with a colon": ([("serviceAccount.name", "a: b")], "/serviceAccount/name"),
    "class with quotes": ([("ingress.className", 'a"b')], "/ingress/className"),
    "claim with a path": ([("persistence.existingClaim", "../a")], "/persistence/existingClaim"),
    "label of the chart's own": (
        [("podLabels", {"app.kubernetes.io/name": "other"})],
        "/podLabels",
    ),
    "label with a line break": ([("podLabels", {"a": "b\nc: d"})], "/podLabels/a"),
    "annotation of a hook": ([("podAnnotations", {"helm.sh/hook": "x"})], "/podAnnotations"),
    "annotation that is no text": ([("podAnnotations", {"a": True})], "/podAnnotations/a"),
    "snippet of nginx": (
        [("ingress.annotations", {"nginx.ingress.kubernetes.io/server-snippet": "x"})],
        "server-snippet'",
    ),
    "role by annotation": (
        [("serviceAccount.annotations", {"eks.amazonaws.com/role-arn": "x"})],
        "eks.amazonaws.com/role-arn'",
    ),
    "database role that ends its word": ([("migration.appRole", "broker; DROP")], "/appRole"),
    "application role that is an option": ([("migration.appRole", "--x")], "/appRole"),
    "copy in the pod": (
        [("settings.audit", {"checkpoint_copies": ["directory:/var/lib/broker/heads"]})],
        "which goes",
    ),
    "sink in the pod": (
        [("settings.audit", {"sinks": [{"name": "f", "kind": "file", "path": "/tmp/audit"}]})],
        "no volume",
    ),
    "proxies of everybody": ([("settings.server.trusted_proxies", ["0.0.0.0/0"])], "/trusted_"),
    "proxies of all of IPv6": ([("settings.server.trusted_proxies", ["::/0"])], "/trusted_"),
    # --- AWS ---
    "irsa without a role": ([("aws.identity", "irsa")], "/aws/roleArn"),
    "role of no ARN": ([("aws.roleArn", "Broker")], "/aws/roleArn"),
    "role of a user": ([("aws.roleArn", "arn:aws:iam::111122223333:user/x")], "/aws/roleArn"),
    "alias of a key": ([("keys.sealing", "awskms:arn:aws:kms:eu-west-1:1:alias/x")], "/sealing"),
    # --- Numbers ---
    "fewer than no replicas": ([("replicas", -1)], "/replicas"),
    "no replicas": ([("replicas", 0)], "/replicas"),
    "half a replica": ([("replicas", 1.5)], "/replicas"),
    "replicas as text": ([("replicas", "3")], "/replicas"),
    "as many as fit nowhere": ([("replicas", 10_000)], "/replicas"),
    "scaling upside down": (
        [("autoscaling.enabled", True), ("autoscaling.maxReplicas", 2)],
        "below minReplicas",
    ),
    "killed while it drains": ([("shutdown.gracePeriodSeconds", 45)], "gracePeriodSeconds"),
    "no time for balancers": ([("shutdown.preStopSeconds", 0)], "/shutdown/preStopSeconds"),
    "no rollout": ([("updateStrategy.maxSurge", 0)], "/updateStrategy/maxUnavailable"),
    "no disruption ever": ([("podDisruptionBudget.maxUnavailable", 0)], "/maxUnavailable"),
    "no memory limit": ([("resources.limits", {"memory": None})], "/resources/limits"),
    "no limits": ([("resources", {"limits": None})], "/resources"),
    "devices": ([("resources.limits", {"nvidia.com/gpu": 1})], "/resources/limits"),
    # --- SQLite is for one ---
    "sqlite with replicas": ([("database.kind", "sqlite")], "/replicas"),
    "sqlite that scales": (
        [("database.kind", "sqlite"), ("replicas", 1), ("autoscaling.enabled", True)],
        "/autoscaling/enabled",
    ),
    "database of another kind": ([("database.kind", "mysql")], "/database/kind"),
    # --- Networks ---
    "egress to everywhere": (
        [("networkPolicy.egress.idp.peers", [{"cidr": "0.0.0.0/0"}])],
        "/networkPolicy/egress/idp",
    ),
    "egress to everywhere in halves": (
        [("networkPolicy.egress.sts.peers", [{"cidr": "0.0.0.0/1"}, {"cidr": "128.0.0.0/1"}])],
        "/networkPolicy/egress/sts",
    ),
    "egress to everywhere of IPv6": (
        [("networkPolicy.egress.sts.peers", [{"cidr": "::/0"}])],
        "/networkPolicy/egress/sts",
    ),
    "ingress from everywhere": (
        [("networkPolicy.ingress.controller", [{"cidr": "0.0.0.0/0"}])],
        "/networkPolicy/ingress/controller",
    ),
    "peer of nothing": ([("networkPolicy.ingress.controller", [{}])], "/controller"),
    "peer of all pods": ([("networkPolicy.ingress.prometheus", [{"podLabels": {}}])], "/podLabels"),
    "peer of two kinds": (
        [("networkPolicy.ingress.controller", [PEER | {"podLabels": {"a": "b"}}])],
        "/controller",
    ),
    "address of no network": (
        [("networkPolicy.egress.database.peers", [{"cidr": "10.0.0.999/32"}])],
        "/networkPolicy/egress/database",
    ),
    "ports of all": ([("networkPolicy.egress.idp.ports", [])], "/networkPolicy/egress/idp/ports"),
    "nowhere to log in": (
        [("networkPolicy.egress.allowInternet", False)],
        "networkPolicy.egress.idp.peers is empty",
    ),
    "nowhere to store": (
        [("networkPolicy.egress.database.peers", [])],
        "networkPolicy.egress.database.peers is empty",
    ),
    "route that nobody may use": (
        [("ingress.enabled", True)],
        "networkPolicy.ingress.controller is empty",
    ),
    "metrics that nobody may read": (
        [("metrics.serviceMonitor.enabled", True)],
        "networkPolicy.ingress.prometheus is empty",
    ),
    "route without a gateway": ([("httpRoute.enabled", True)], "/httpRoute/parentRefs"),
    "port of every node": ([("service.type", "NodePort")], "/service/type"),
}


def changed(changes: Sequence[Change]) -> Document:
    values = values_of("minimal")
    for path, value in changes:
        *parents, last = path.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = copy.deepcopy(value)
    return values


@pytest.fixture(scope="session")
def refusals() -> dict[str, Rendered]:
    jobs = [Job(changed(changes)) for changes, _ in REFUSED.values()]
    return dict(zip(REFUSED, render(jobs), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_and_wrong_values_are_refused(refusals: dict[str, Rendered], name: str) -> None:
    refused = refusals[name]
    assert refused.error is not None, refused.manifests
    assert REFUSED[name][1] in refused.error
    assert refused.manifests == {}


def test_names_of_releases_stay_names() -> None:
    """The longest release has the longest names, and a name of its own."""
    longest = "r" * 53
    values = changed([("metrics.dashboards.enabled", True)])
    (rendered,) = render([Job(values, name=longest)])
    names = [one["metadata"]["name"] for one in rendered.documents]
    assert max(map(len, names)) <= 63
    assert all(name.startswith("r" * 40) for name in names)


def test_defaults_need_no_more_than_what_is_said_to_be_required() -> None:
    (rendered,) = render([Job({})])
    assert rendered.error is not None
    places = set(re.findall(r"- at '([^']*)'", rendered.error))
    assert places == {"/image/repository", "/settings/server"}


# --- README ----------------------------------------------------------------------------------


def blocks(kind: str) -> list[str]:
    text = generated.README.read_text("utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def merged(below: Document, above: Document) -> Document:
    """As Helm lays one file of values over another."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        maps = isinstance(value, dict) and isinstance(under, dict)
        found[key] = merged(under or {}, value) if maps else value
    return found


def test_values_in_the_readme_are_taken() -> None:
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    whole, *parts = shown
    rendered = render([Job(whole), *(Job(merged(values_of("minimal"), part)) for part in parts)])
    assert len(parts) >= 8
    assert [one.error for one in rendered] == [None] * len(shown)


def test_keys_are_made_as_the_readme_says(tmp_path: Path) -> None:
    """And are what the Secret of the next step is made of."""
    (block,) = [block for block in blocks("sh") if "broker keys init" in block]
    lines = [shlex.split(line) for line in block.splitlines()]
    exported = [pair.partition("=") for word, *pairs in lines if word == "export" for pair in pairs]
    commands = [words for word, *words in lines if word == "broker"]
    assert len(exported) + len(commands) == 5
    # Both in one process: starting it is most of the cost.
    script = f"from broker.entry import main\nfor words in {commands}:\n    assert main(words) == 0"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BROKER_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=kept | {name: value for name, _, value in exported},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (secrets,) = [block for block in blocks("sh") if "create secret" in block]
    assert "--from-file=sealing --from-file=signing" in secrets
    assert {path.name for path in tmp_path.iterdir()} == {"sealing", "signing"}
    assert "broker.example.com" in done.stdout


# --- The chart's own files -------------------------------------------------------------------


def test_the_chart_is_of_this_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert str(chart["appVersion"]) == broker.__version__
    assert values["image"]["tag"] == broker.__version__


def test_the_schema_has_the_settings_of_this_broker() -> None:
    assert generated.SCHEMA.read_text("utf-8") == generated.schema_text(), (
        "run `python -m tools.chart`"
    )


def test_the_readme_has_every_value() -> None:
    text = generated.README.read_text("utf-8")
    assert text == generated.readme_text(), "run `python -m tools.chart`"
    schema = json.loads(generated.SCHEMA.read_text("utf-8"))
    rows = [row for row, _, _ in generated.rows()]
    for path in leaves(yaml.safe_load(generated.VALUES.read_text("utf-8"))):
        if not path.startswith("settings"):
            assert any(path.startswith(row) for row in rows), path
    for section in schema["definitions"]["settings"]["properties"]:
        assert f"`settings.{section}`" in text


def leaves(values: Document, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        found += leaves(value, f"{path}.") if isinstance(value, dict) and value else [path]
    return found


def test_every_value_of_the_schema_has_a_default_or_is_required() -> None:
    """Templates read values without asking whether they are there."""
    values = yaml.safe_load(generated.VALUES.read_text("utf-8"))
    known = {path for path, _, _ in generated.rows() if not path.startswith("settings")}
    there = leaves(values)
    for path in known:
        assert any(one == path or one.startswith(f"{path}.") for one in there), path


def test_objects_of_the_schema_are_closed() -> None:
    """Every object names its members, or says what its keys and values look like."""
    schema = json.loads(generated.SCHEMA.read_text("utf-8"))
    free = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity"}
    for path, one in objects(schema):
        if path.rpartition("/")[2] not in free:
            assert one.get("additionalProperties") is False or (
                "propertyNames" in one and isinstance(one["additionalProperties"], dict)
            ), path


def objects(one: Any, path: str = "") -> list[tuple[str, Document]]:
    found: list[tuple[str, Document]] = []
    if isinstance(one, dict):
        if one.get("type") == "object":
            found.append((path, one))
        for key, value in one.items():
            found += objects(value, f"{path}/{key}")
    elif isinstance(one, list):
        for index, value in enumerate(one):
            found += objects(value, f"{path}/{index}")
    return found


def test_sets_of_values_say_what_they_are_for() -> None:
    for path in VALUES.values():
        assert path.read_text("utf-8").startswith("# "), path.name
