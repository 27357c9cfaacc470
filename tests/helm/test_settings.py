"""broker.toml of the chart is one that the broker takes, and means what the values say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from broker import settings as broker_settings
from broker.settings import Settings
from tests.helm.conftest import VALUES, values_of
from tests.helm.rendering import Document, Job, Rendered, render
from tests.helm.test_objects import containers, environment, secret_files

URLS = {"database-url": "postgresql+asyncpg://broker:secret@db.example.com/broker?ssl=verify-full"}
SECRET = "0123456789abcdef-secret"


def load(
    rendered: Rendered, pod: Document, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """As the first container of `pod` reads them, its mounts put into `folder`."""
    for name in secret_files(pod):
        path = folder / name
        path.write_text(URLS.get(name, SECRET))
        path.chmod(0o400)
    config = next(one for one in pod["spec"]["volumes"] if one["name"] == "config")
    text = rendered.of("ConfigMap", config["configMap"]["name"])["data"]["broker.toml"]
    file = folder / "broker.toml"
    file.write_text(text.replace("/etc/broker/secrets/", f"{folder}/"))
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        monkeypatch.delenv(name)
    variables = environment(list(containers(pod))[-1])
    assert variables["BROKER_CONFIG"] == "/etc/broker/broker.toml"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return broker_settings.load(file)


def test_the_broker_takes_the_settings(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = rendered.of("Deployment")["spec"]["template"]
    found = load(rendered, pod, tmp_path, monkeypatch)
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert found.server.port == ports["http"]
    assert found.server.metrics_port == ports["metrics"]
    assert found.server.host in {"0.0.0.0", "::"}
    assert found.audit.allow_unsafe_durability is False
    for provider in found.oidc:
        wanted = f"oidc-{provider.name}" in secret_files(pod)
        assert (provider.client_secret is not None) == wanted


def test_the_migration_takes_its_own(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in rendered.all("Job"):
        found = load(rendered, job["spec"]["template"], tmp_path, monkeypatch)
        assert found.database.url.get_secret_value() == URLS["database-url"]
        assert found.oidc == ()


def test_values_mean_what_they_say(
    renders: Mapping[str, Rendered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = renders["eks-irsa"]
    pod = rendered.of("Deployment")["spec"]["template"]
    found = load(rendered, pod, tmp_path, monkeypatch)
    (provider,) = found.oidc
    assert provider.title == 'Corp "single" sign-on \\ all of it'
    assert provider.client_secret is not None
    assert provider.client_secret.get_secret_value() == SECRET
    assert provider.scopes == ("openid", "profile", "email", "groups")
    assert [str(network) for network in found.server.trusted_proxies] == ["10.0.0.0/20"]
    assert (found.audit.wait_seconds, found.audit.queue_size) == (2.5, 8192)
    assert found.database.pool_size == 12
    assert found.bootstrap.admins[0].email == "ada@example.com"


def test_sqlite_is_on_its_volume(
    renders: Mapping[str, Rendered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = renders["sqlite"]
    pod = rendered.of("Deployment")["spec"]["template"]
    found = load(rendered, pod, tmp_path, monkeypatch)
    path = found.database.url.get_secret_value().removeprefix("sqlite+aiosqlite:///")
    mounts = {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
    assert str(Path(path).parent) in mounts


@pytest.mark.parametrize("name", VALUES)
def test_no_secret_is_in_any_object(renders: Mapping[str, Rendered], name: str) -> None:
    """What is made holds names of secrets, and no Secret."""
    assert not renders[name].all("Secret")
    texts = "".join(renders[name].manifests.values())
    assert "client_secret =" not in texts
    assert '\nurl = "postgresql' not in texts


def test_text_cannot_leave_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the schema lets through stays one string in TOML and in YAML."""
    values = values_of("minimal")
    nasty = 'a"b\\c\u2028{{ .Release.Name }} <&> \u00e9 = [x] # no \U0001f600'
    values["settings"]["oidc"][0]["title"] = nasty
    values["podAnnotations"] = {"example.com/x": f"{nasty}\n---\nkind: Secret\n"}
    values["env"] = {"OTEL_SERVICE_NAME": nasty}
    (rendered,) = render([Job(values)])
    pod = rendered.of("Deployment")["spec"]["template"]
    assert pod["metadata"]["annotations"]["example.com/x"] == f"{nasty}\n---\nkind: Secret\n"
    assert environment(pod["spec"]["containers"][0])["OTEL_SERVICE_NAME"] == nasty
    assert load(rendered, pod, tmp_path, monkeypatch).oidc[0].title == nasty
    assert not rendered.all("Secret")
