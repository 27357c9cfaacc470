"""What the chart's containers are told to run leads to a broker that is ready."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import make_url

from broker.adapters.sealing import FileKeyRing
from broker.adapters.signing import SigningKeys
from tests.conftest import PostgresCluster
from tests.e2e.processes import Process, answers, free_port, until
from tests.helm.conftest import values_of
from tests.helm.rendering import Document, Job, Rendered, render
from tests.helm.test_objects import environment, secret_files

# Both in one process: starting it is most of the cost. What a container's environment, arguments
# and mounts are comes as JSON, in the order in which Helm and Kubernetes run them.
SCRIPT = """
import json, os, sys
from broker.entry import main
for one in json.loads(sys.argv[1]):
    os.environ.update(one["environment"])
    if code := main(one["words"]):
        sys.exit(code)
"""


def mounted(rendered: Rendered, pod: Document, folder: Path, secrets: Mapping[str, str]) -> Path:
    """The pod's broker.toml, and the secrets that are mounted into it and no others."""
    folder.mkdir()
    for name in secret_files(pod):
        (folder / name).write_text(secrets[name])
        (folder / name).chmod(0o400)
    config = next(one for one in pod["spec"]["volumes"] if one["name"] == "config")
    text = rendered.of("ConfigMap", config["configMap"]["name"])["data"]["broker.toml"]
    file = folder / "broker.toml"
    file.write_text(text.replace("/etc/broker/secrets/", f"{folder}/"))
    return file


def up(process: Process, address: str) -> bool:
    assert process.child.poll() is None, process.output()
    return answers(address)


def test_migration_and_server_run_as_the_chart_says(
    postgresql: PostgresCluster, tmp_path: Path
) -> None:
    database = f"chart_{uuid.uuid4().hex}"
    # Roles are the cluster's, which other tests use too.
    role = f"app_{database}"
    (rendered,) = render([Job(values_of("minimal") | {"migration": {"appRole": role}})])
    job, server = rendered.of("Job")["spec"]["template"], rendered.of("Deployment")
    server_pod = server["spec"]["template"]
    FileKeyRing.create(tmp_path / "sealing")
    SigningKeys.create(tmp_path / "signing", "broker.example.com")
    keys = {name: (tmp_path / name).read_text() for name in ("sealing", "signing")}
    postgresql.execute(f"CREATE ROLE {role} LOGIN", f"CREATE DATABASE {database}")
    url = make_url(postgresql.url(database))
    owner, application = (
        one.render_as_string(hide_password=False) for one in (url, url.set(username=role))
    )
    (migrate,), (serve,) = job["spec"]["containers"], server_pod["spec"]["containers"]
    port, metrics = free_port(), free_port()
    steps = [
        {
            "words": migrate["args"],
            "environment": environment(migrate)
            | {
                "BROKER_CONFIG": str(
                    mounted(rendered, job, tmp_path / "m", {"database-url": owner})
                )
            },
        },
        {
            "words": serve["args"],
            "environment": environment(serve)
            | {
                "BROKER_CONFIG": str(
                    mounted(
                        rendered, server_pod, tmp_path / "s", keys | {"database-url": application}
                    )
                ),
                # Ports that are free here, and a PostgreSQL that syncs nothing.
                "BROKER_SERVER__PORT": str(port),
                "BROKER_SERVER__METRICS_PORT": str(metrics),
                "BROKER_AUDIT__ALLOW_UNSAFE_DURABILITY": "true",
                # No credentials of this machine's.
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            },
        },
    ]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BROKER_", "AWS_"))}
    (tmp_path / "work").mkdir()
    process = Process(
        [sys.executable, "-c", SCRIPT, json.dumps(steps)],
        tmp_path / "log",
        kept,
        tmp_path / "work",
    )
    try:
        ports = {"http": port, "metrics": metrics}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = serve[probe]["httpGet"]
            address = f"http://127.0.0.1:{ports[get['port']]}{get['path']}"
            until(partial(up, process, address), address, seconds=120)
            assert httpx.get(address, trust_env=False).status_code == 200, process.output()
        text = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False)
        assert text.status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 404
        assert "may change or delete" not in process.output(), "the server owns the log's tables"
        assert process.stop() == 0
        # On a read-only file system, nothing can have been written beside the database.
        assert list((tmp_path / "work").iterdir()) == []
    finally:
        if process.child.poll() is None:
            process.child.kill()
            process.child.wait()
        postgresql.execute(f"DROP DATABASE {database} WITH (FORCE)", f"DROP ROLE {role}")
