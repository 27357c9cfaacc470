"""A container's view of this machine: a root of its own, by mount namespace and chroot.

The root has this machine's /usr, /etc and the like, read-only, and the interpreter that runs the
tests at /usr/local, where Python's official images have theirs. Everything else is the sandbox's
own folder. Mounts end with the process. It takes root, as CI has it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.missing import missing

UID = 10001
_SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
PREFIX = Path(sys.base_prefix)
SITE = Path(sysconfig.get_path("purelib"))


def require() -> None:
    """Skip, or fail under CI=true, where this machine can't make one."""
    if os.geteuid() != 0:
        missing("replaying the image takes root")
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "true"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        missing(f"no mount namespaces here: {probe.stderr.decode().strip()}")
    if Path("/usr") == PREFIX:
        missing("the system's own Python can't stand at /usr/local; use another one")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`folder` is the root. Paths inside are given as absolute paths."""

    folder: Path

    def inside(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def build(self, command: str, environment: Mapping[str, str], *, network: bool) -> None:
        """Run a shell command as root, the folder writable. AssertionError where it fails."""
        kinds = ["--mount"] if network else ["--mount", "--net"]
        inner = f"exec {self._env(environment)} sh -ec {shlex.quote(command)}"
        done = subprocess.run(
            ["unshare", *kinds, "sh", "-ec", f"{self._mounts(writable=True)}\n{inner}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def command(
        self, words: Sequence[str], environment: Mapping[str, str], *, folder: str, state: Path
    ) -> list[str]:
        """The command line that runs `words` in `folder` as uid 10001, without any privilege, on a
        read-only root where `folder` alone is writable: it is the folder `state`.
        """
        inner = f"cd {folder} && exec setpriv --reuid {UID} --regid {UID} --clear-groups"
        inner += f" --no-new-privs --bounding-set -all --inh-caps -all {shlex.join(words)}"
        script = (
            f"{self._mounts(writable=False)}\n"
            f"mount --bind {state} {self.inside(folder)}\n"
            f"exec {self._env(environment)} sh -ec {shlex.quote(inner)}"
        )
        return ["unshare", "--mount", "sh", "-ec", script]

    def _env(self, environment: Mapping[str, str]) -> str:
        return shlex.join(
            ["chroot", str(self.folder), "env", "-i", *(f"{k}={v}" for k, v in environment.items())]
        )

    def _mounts(self, *, writable: bool) -> str:
        """Shell commands, to run in a mount namespace of their own."""
        lines = [f"mount --bind {self.folder} {self.folder}"]
        binds = {f"/{name}": Path("/", name) for name in _SYSTEM}
        # Its libraries and scripts know it by its path here as well.
        binds |= {"/usr/local": PREFIX, str(PREFIX): PREFIX, str(SITE): SITE}
        for inside, outside in binds.items():
            target = self.inside(inside)
            if outside.is_symlink() and outside.parent == Path("/"):
                if not target.is_symlink():
                    target.symlink_to(outside.readlink())
                continue
            if not outside.is_dir():
                continue
            if inside != "/usr/local":
                target.mkdir(parents=True, exist_ok=True)
            lines += [
                f"mount --bind {outside} {target}",
                f"mount -o remount,bind,ro {target}",
            ]
        for name in ("dev", "proc"):
            self.inside(name).mkdir(exist_ok=True)
            lines.append(f"mount --rbind /{name} {self.inside(name)}")
        if not writable:
            lines.append(f"mount -o remount,bind,ro {self.folder}")
        return "\n".join(lines)

    def copy(self, other: Sandbox, path: str) -> None:
        """Copy `path` of another sandbox to the same place here."""
        self.inside(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(other.inside(path), self.inside(path), symlinks=True)
