"""What the chart makes is what Kubernetes takes, and what its objects say of each other is true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.app import create_app
from broker.server_cli import server
from broker.settings import Settings
from tests.helm.conftest import VALUES
from tests.helm.rendering import CHART, Document, Rendered

SCHEMAS = Path(__file__).parent / "schemas"
OLDEST = "1.30"
RESTRICTED_VOLUMES = {"configMap", "csi", "emptyDir", "persistentVolumeClaim", "projected"}


def containers(pod: Document) -> Iterator[Document]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def volumes(pod: Document) -> dict[str, Document]:
    return {one["name"]: one for one in pod["spec"]["volumes"]}


def environment(container: Document) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def test_it_renders_and_lints_without_a_warning(rendered: Rendered) -> None:
    assert rendered.error is None
    assert rendered.messages == []
    assert rendered.documents


def test_kubernetes_takes_it(renders: Mapping[str, Rendered]) -> None:
    """Every document as the oldest Kubernetes sees it, and all of one set as the newest.

    One test, with its own imports: a worker needs seconds for them.
    """
    import jsonschema  # noqa: PLC0415
    import kubernetes_validate  # noqa: PLC0415

    newest = kubernetes_validate.latest_version()
    documents = {
        json.dumps(one, sort_keys=True): name
        for name, rendered in renders.items()
        for one in rendered.documents
    }
    for text, name in documents.items():
        document = json.loads(text)
        own = SCHEMAS / f"{document['kind']}.json"
        if own.exists():
            jsonschema.validate(document, json.loads(own.read_text("utf-8")))
            continue
        for version in (OLDEST, newest) if name == "everything" else (OLDEST,):
            kubernetes_validate.validate(document, version, strict=True)


def test_the_oldest_kubernetes_is_the_charts(renders: Mapping[str, Rendered]) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_every_kind_of_object_is_made_by_some_set(renders: Mapping[str, Rendered]) -> None:
    kinds = {one["kind"] for rendered in renders.values() for one in rendered.documents}
    templates = {path.name for path in (CHART / "templates").glob("*.yaml")}
    for name in templates - {"migration.yaml", "secrets.yaml", "rules.yaml", "dashboards.yaml"}:
        assert any(kind.lower() == name.removesuffix(".yaml") for kind in kinds), name
    assert {"Job", "ExternalSecret", "SecretProviderClass"} <= kinds


def test_names_are_given_once_and_fit(rendered: Rendered) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered.documents]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


# --- Pods ------------------------------------------------------------------------------------


def test_pods_keep_the_restricted_profile(rendered: Rendered) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for name, pod in rendered.pods.items():
        spec = pod["spec"]
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec["volumes"]:
            (kind,) = volume.keys() - {"name"}
            assert kind in RESTRICTED_VOLUMES, name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["privileged"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["runAsNonRoot"] is True
            assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_no_pod_has_a_token_of_the_cluster(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
    for account in rendered.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    text = json.dumps(rendered.documents)
    assert "serviceAccountToken" not in text
    assert "RoleBinding" not in text


def test_services_put_nothing_into_the_environment(rendered: Rendered) -> None:
    """BROKER_PORT=tcp://... of a Service named broker is no setting, and stops the broker."""
    for pod in rendered.pods.values():
        assert pod["spec"]["enableServiceLinks"] is False


def test_every_container_has_requests_and_limits(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() >= {"cpu", "memory"}


def test_every_mount_has_its_volume_and_every_volume_its_mount(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == volumes(pod).keys()
        for container in containers(pod):
            writable = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
            assert writable <= {"tmp", "data"}


def test_what_pods_refer_to_is_there(rendered: Rendered) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in rendered.documents}
    classes = {name for kind, name in made if kind in {"SecretProviderClass", "ExternalSecret"}}
    for name, pod in rendered.pods.items():
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in made
        found = volumes(pod)
        assert ("ConfigMap", found["config"]["configMap"]["name"]) in made
        wanted = {source["secret"]["name"] for source in found["secrets"]["projected"]["sources"]}
        if classes:
            assert wanted <= classes, name
        if "secrets-store" in found:
            attributes = found["secrets-store"]["csi"]["volumeAttributes"]
            assert ("SecretProviderClass", attributes["secretProviderClass"]) in made
        if "data" in found:
            claim = found["data"]["persistentVolumeClaim"]["claimName"]
            assert ("PersistentVolumeClaim", claim) in made


def test_secrets_are_mounted_as_the_broker_accepts_them(rendered: Rendered) -> None:
    """Root's, and its own group's to read: `broker.adapters.secret_mode`."""
    for pod in rendered.pods.values():
        assert volumes(pod)["secrets"]["projected"]["defaultMode"] == 0o440
        assert pod["spec"]["securityContext"]["fsGroup"] == 10001


@cache
def served_paths() -> set[str]:
    return set(create_app(Settings()).openapi()["paths"])


# --- The server ------------------------------------------------------------------------------


@pytest.fixture
def deployment(rendered: Rendered) -> Document:
    return rendered.of("Deployment")


def test_probes_ask_what_the_server_serves(deployment: Document) -> None:
    paths = served_paths()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["args"] == ["server"]
    wanted = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in wanted.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
        assert path in paths
    assert environment(container)["BROKER_SERVER__PORT"] == str(ports["http"])


def test_a_pod_may_end_what_it_began(deployment: Document) -> None:
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    told = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= told + server._DRAIN_SECONDS + 15


def test_selectors_find_the_servers_pods_and_no_others(rendered: Rendered) -> None:
    deployment, instance = rendered.of("Deployment"), "broker"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    others = [pod["metadata"]["labels"] for name, pod in rendered.pods.items() if "Job" in name]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in rendered.all("Service")]
    budgets = rendered.all("PodDisruptionBudget")
    selectors += [one["spec"]["selector"]["matchLabels"] for one in budgets]
    policies = rendered.all("NetworkPolicy", deployment["metadata"]["name"])
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in policies]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [one["labelSelector"]["matchLabels"] for one in spread]
    for selector in selectors:
        assert selector["app.kubernetes.io/instance"] == instance
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)


def test_services_and_routes_lead_to_ports_that_are_there(rendered: Rendered) -> None:
    (container,) = rendered.of("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in rendered.all("Service")}
    assert all(port["targetPort"] in ports for found in services.values() for port in found)
    for ingress in rendered.all("Ingress"):
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        backend = path["backend"]["service"]
        assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]}
    for route in rendered.all("HTTPRoute"):
        (rule,) = route["spec"]["rules"]
        (backend,) = rule["backendRefs"]
        assert backend["port"] in {port["port"] for port in services[backend["name"]]}


def test_routes_are_for_the_address_that_people_open(renders: Mapping[str, Rendered]) -> None:
    (rule,) = renders["eks-pod-identity"].of("Ingress")["spec"]["rules"]
    assert rule["host"] == "broker.example.com"
    assert renders["gateway-api"].of("HTTPRoute")["spec"]["hostnames"] == ["broker.example.com"]
    tls = renders["everything"].of("Ingress")["spec"]["tls"]
    assert tls == [{"hosts": ["broker.example.com"], "secretName": "broker-cert"}]
    assert "tls" not in renders["eks-irsa"].of("Ingress")["spec"]


def test_the_public_service_does_not_have_the_metrics(rendered: Rendered) -> None:
    public, metrics = sorted(rendered.all("Service"), key=lambda one: one["metadata"]["name"])
    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["http"]
    assert [port["targetPort"] for port in metrics["spec"]["ports"]] == ["metrics"]
    assert metrics["spec"]["clusterIP"] == "None"


def test_prometheus_finds_the_metrics(renders: Mapping[str, Rendered]) -> None:
    everything = renders["everything"]
    monitor = everything.of("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [s for s in everything.all("Service") if wanted <= s["metadata"]["labels"].items()]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["aws-broker"]}


def test_replicas_are_one_thing_or_the_other(rendered: Rendered) -> None:
    scalers = rendered.all("HorizontalPodAutoscaler")
    spec = rendered.of("Deployment")["spec"]
    assert bool(scalers) != ("replicas" in spec)
    for scaler in scalers:
        assert (
            scaler["spec"]["scaleTargetRef"]["name"]
            == (rendered.of("Deployment")["metadata"]["name"])
        )


def test_one_replica_has_no_disruption_budget(renders: Mapping[str, Rendered]) -> None:
    """It would keep its node from ever being drained."""
    assert not renders["sqlite"].all("PodDisruptionBudget")
    budget = renders["minimal"].of("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_sqlite_never_has_two_processes(renders: Mapping[str, Rendered]) -> None:
    rendered = renders["sqlite"]
    spec = rendered.of("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (migrate,) = spec["template"]["spec"]["initContainers"]
    assert migrate["args"] == ["migrate", "--no-keys"]
    assert not rendered.all("Job")
    annotations = rendered.of("PersistentVolumeClaim")["metadata"]["annotations"]
    assert annotations["helm.sh/resource-policy"] == "keep"


def test_new_settings_start_new_pods(renders: Mapping[str, Rendered]) -> None:
    sums = {
        one.of("Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for one in renders.values()
    }
    tomls = {
        one.of("ConfigMap", one.of("Deployment")["metadata"]["name"])["data"]["broker.toml"]
        for one in renders.values()
    }
    assert len(sums) == len(tomls) > 1


# --- AWS -------------------------------------------------------------------------------------


def test_irsa_is_an_annotation(renders: Mapping[str, Rendered]) -> None:
    account = renders["eks-irsa"].of("ServiceAccount", "broker")
    role = "arn:aws:iam::111122223333:role/broker/Broker"
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == role
    migration = renders["eks-irsa"].of("ServiceAccount", "broker-migrate")
    assert not any("eks" in key for key in migration["metadata"]["annotations"])


def test_pod_identity_reaches_its_agent_and_is_told_of_session_tags(
    renders: Mapping[str, Rendered],
) -> None:
    rendered = renders["eks-pod-identity"]
    rules = rendered.of("NetworkPolicy", "broker")["spec"]["egress"]
    agent = [rule for rule in rules if {"ipBlock": {"cidr": "169.254.170.23/32"}} in rule["to"]]
    assert [rule["ports"] for rule in agent] == [[{"protocol": "TCP", "port": 80}]]
    assert "--disable-session-tags" in rendered.notes
    assert "--service-account broker" in rendered.notes
    assert "transitive" in rendered.notes
    readme = (CHART / "README.md").read_text("utf-8")
    assert "--disable-session-tags" in readme
    for name in VALUES.keys() - {"eks-pod-identity"}:
        assert "169.254.170.23" not in json.dumps(renders[name].documents)


# --- The migration ---------------------------------------------------------------------------


@pytest.fixture(params=sorted(VALUES.keys() - {"sqlite"}))
def migrating(request: pytest.FixtureRequest, renders: Mapping[str, Rendered]) -> Rendered:
    """SQLite is migrated by an init container."""
    return renders[request.param]


def test_the_migration_brings_all_it_needs(migrating: Rendered) -> None:
    """When a release is first installed, nothing but earlier hooks is there."""
    job = migrating.of("Job")
    hooks = {
        (one["kind"], one["metadata"]["name"]): one["metadata"]["annotations"]
        for one in migrating.documents
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    }
    weight = int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
    pod = job["spec"]["template"]["spec"]
    found = volumes(job["spec"]["template"])
    needed = [
        ("ServiceAccount", pod["serviceAccountName"]),
        ("ConfigMap", found["config"]["configMap"]["name"]),
        ("NetworkPolicy", job["metadata"]["name"]),
    ]
    kinds = {"ExternalSecret", "SecretProviderClass"}
    needed += [(kind, job["metadata"]["name"]) for kind in kinds if migrating.all(kind)]
    for each in needed:
        assert hooks[each]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert int(hooks[each]["helm.sh/hook-weight"]) < weight
        assert hooks[each]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_the_owner_of_the_tables_and_the_keys_never_meet(migrating: Rendered) -> None:
    job = migrating.of("Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][:2] == ["migrate", "--no-keys"]
    assert container["args"][2].startswith("--app-role=broker")
    items = secret_files(job["spec"]["template"])
    assert items == {"database-url"}
    server_secrets = json.dumps(volumes(migrating.of("Deployment")["spec"]["template"])["secrets"])
    assert "broker-migrat" not in server_secrets


def secret_files(pod: Document) -> set[str]:
    sources = volumes(pod)["secrets"]["projected"]["sources"]
    return {item["path"] for source in sources for item in source["secret"]["items"]}


def test_keys_of_kms_are_in_no_secret(renders: Mapping[str, Rendered]) -> None:
    pod = renders["kms"].of("Deployment")["spec"]["template"]
    assert secret_files(pod) == {"database-url"}
    (first_use,) = pod["spec"]["initContainers"]
    assert first_use["args"] == ["migrate"]


def test_objects_of_stores_become_the_files_that_settings_name(
    renders: Mapping[str, Rendered],
) -> None:
    files = {"database-url", "sealing", "signing", "oidc-corp"}
    external = renders["external-secrets"]
    data = external.of("ExternalSecret", "broker-secrets")["spec"]["data"]
    assert {one["secretKey"] for one in data} == files
    assert {"secretKey": "sealing", "remoteRef": {"key": "broker/sealing"}} in data
    assert secret_files(external.of("Deployment")["spec"]["template"]) == files

    csi = renders["csi"]
    made = csi.of("SecretProviderClass", "broker-secrets")["spec"]
    (secret,) = made["secretObjects"]
    assert {one["objectName"] for one in secret["data"]} == files
    objects = yaml.safe_load(made["parameters"]["objects"])
    aliases = {alias["objectAlias"] for one in objects for alias in one.get("jmesPath", [one])}
    assert aliases == files
    names = [one["objectName"] for one in objects]
    assert len(names) == len(set(names)), "the driver refuses an object that is named twice"
    assert secret_files(csi.of("Deployment")["spec"]["template"]) == files


# --- Alerts and dashboards -------------------------------------------------------------------


def test_every_rule_and_dashboard_is_in_its_object(renders: Mapping[str, Rendered]) -> None:
    everything = renders["everything"]
    dashboards = {path.name: path.read_text("utf-8") for path in CHART.glob("dashboards/*.json")}
    maps = everything.all("ConfigMap", "broker-aws-broker-dashboards")
    assert [one["data"] for one in maps] == ([dashboards] if dashboards else [])
    rules: list[Any] = []
    for path in sorted(CHART.glob("rules/*.yaml")):
        rules += yaml.safe_load(path.read_text("utf-8"))["groups"]
    made = everything.all("PrometheusRule")
    assert [one["spec"]["groups"] for one in made] == ([rules] if rules else [])
    assert not renders["minimal"].all("PrometheusRule")
