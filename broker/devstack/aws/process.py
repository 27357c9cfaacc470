"""The seeded stand-in as a process of its own, for benchmarks and for tests that need one.

Owns the start, the hand-over of the address and hub credentials, and the stop.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Literal

from broker.devstack.aws.seed import seed_demo
from broker.devstack.aws.server import AwsStandIn


def main(
    port: int = 0, *, ready: Path | None = None, hub: Literal["role", "user"] = "role"
) -> None:
    """Serve the demo account until SIGTERM or SIGINT. Call it from the main thread.

    `ready` is written (mode 0600, atomically) once the port answers: JSON with
    `url`, `region`, `account_id`, `external_id` and `environment`, the AWS_*
    variables of the hub. Without it only the address is printed.
    """
    # Blocked before the first thread starts, and taken by sigwait below: a handler that
    # set an event could run while this thread holds that event's lock.
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    with AwsStandIn.start(port) as standin:
        demo = seed_demo(standin, hub=hub)
        if ready is None:
            print(standin.url, flush=True)
        else:
            _write(
                ready,
                {
                    "url": standin.url,
                    "region": standin.region,
                    "account_id": demo.account_id,
                    "external_id": demo.external_id,
                    "environment": demo.hub.environment(),
                },
            )
        signal.sigwait(ending)


def _write(path: Path, content: object) -> None:
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    partial.replace(path)
