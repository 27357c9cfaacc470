"""A CI job's shell: `broker` and scripts as subprocesses, against a broker that listens."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from broker.devstack.threads import listen


@asynccontextmanager
async def listening(app: FastAPI, certificate: Path | None = None) -> AsyncIterator[str]:
    """Serve a started application on loopback, over TLS with a certificate; its origin."""
    bound = listen()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ssl_certfile=certificate
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        bound.close()


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass
class Job:
    """One job on one machine. `variables` are what its platform sets."""

    home: Path
    server: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        tools = self.home / "bin"
        tools.mkdir(parents=True, exist_ok=True)
        wrapper = tools / "broker"
        if not wrapper.exists():
            wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker.entry "$@"\n')
            wrapper.chmod(0o755)
        return {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "BROKER_HOME": str(self.home / "broker"),
            "BROKER_SERVER": self.server,
            "PYTHONWARNINGS": "error",
            **self.variables,
        }

    def tool(self, name: str, script: str) -> None:
        """A program of the platform's, on the job's PATH."""
        _ = self.environment
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    async def run(self, *words: str) -> Done:
        child = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        out, err = await asyncio.wait_for(child.communicate(), 60)
        assert b"Traceback" not in err, err.decode()
        assert child.returncode is not None
        return Done(child.returncode, out.decode(), err.decode())

    async def broker(self, *words: str) -> Done:
        return await self.run(sys.executable, "-m", "broker.entry", *words)
