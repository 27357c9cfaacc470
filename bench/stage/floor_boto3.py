"""Floor B: boto3's assume_role in plain threads, with no web server and no database.

A worker process (`processes.Worker`). A task is {port, callers, seconds, policy}; the
answer has the rate, the latencies and the CPU seconds of this process a call. One
client serves all threads, with a connection for each, as boto3's documentation says.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import boto3
from botocore.config import Config


def _client(port: int, callers: int) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
    return boto3.client(
        "sts",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="AKIAEXAMPLEEXAMPLE00",
        aws_secret_access_key="example",
        config=Config(max_pool_connections=callers, retries={"mode": "standard"}),
    )


def _call(client: Any, task: dict[str, Any]) -> None:  # noqa: ANN401 - as above
    client.assume_role(
        RoleArn="arn:aws:iam::111122223333:role/DataReader",
        RoleSessionName="person@example.com-iss-abcdefghijklmnopqrstuvwxyz",
        SourceIdentity="p-abcdefghijklmnop",
        DurationSeconds=3600,
        Policy=task["policy"],
        Tags=[{"Key": "team", "Value": "analysts"}, {"Key": "broker:issuance", "Value": "iss-a"}],
        TransitiveTagKeys=["team"],
    )


def _perform(task: dict[str, Any]) -> dict[str, Any]:
    client = _client(task["port"], task["callers"])
    _call(client, task)  # its first call reads data files
    latencies: list[float] = []
    ends = time.perf_counter() + task["seconds"]

    def run() -> None:
        while (asked := time.perf_counter()) < ends:
            _call(client, task)
            latencies.append(time.perf_counter() - asked)

    threads = [threading.Thread(target=run) for _ in range(task["callers"])]
    cpu, started = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    ordered = sorted(latencies)
    return {
        "count": len(ordered),
        "rate": len(ordered) / elapsed,
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[int(len(ordered) * 0.99)],
        "max": ordered[-1],
        "cpu": used / len(ordered),
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(_perform(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
