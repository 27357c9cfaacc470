"""What the settings and the files on this host say: no network."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from broker.adapters.loopback import is_loopback
from broker.adapters.sealing import FileKeyRing
from broker.adapters.secret_mode import others_may_read
from broker.adapters.signing import SigningKeys
from broker.errors import StartupError
from broker.identity.totp import Enrolment
from broker.server_cli.checks.check import Check, fail, ok, warn
from broker.settings import Settings


def host_checks(settings: Settings) -> Iterator[Check]:
    yield _address(settings)
    yield _proxies(settings)
    # Keys in KMS are looked at with the database, which has the other half of them.
    if settings.keys.sealing.startswith("file:"):
        yield _keys("sealing keys", settings.keys.sealing_path, FileKeyRing.load)
    if settings.keys.signing.startswith("file:"):
        yield _keys("signing keys", settings.keys.signing_path, SigningKeys.load)
    yield _enrolment(settings)
    if not settings.oidc:
        yield fail(
            "providers",
            "no OpenID provider is set, so nobody can sign in",
            "add an [[oidc]] section with name, issuer, client_id and client_secret_file",
        )


def _address(settings: Settings) -> Check:
    url = settings.server.public_url
    if is_loopback(urlsplit(url).hostname):
        return warn(
            "public url",
            f"{url} reaches this machine alone",
            'set [server] public_url = "https://..." to what people\'s browsers open',
        )
    return ok("public url", url)


def _proxies(settings: Settings) -> Check:
    """The broker speaks http: behind an https address something else ends TLS."""
    server = settings.server
    if server.public_url.startswith("https://") and not server.trusted_proxies:
        return warn(
            "trusted proxies",
            "none is set: every request will seem to come from the proxy that ends TLS, for "
            "networks conditions, limits and the record",
            "set [server] trusted_proxies to the proxy's addresses",
        )
    networks = ", ".join(str(network) for network in server.trusted_proxies) or "none"
    return ok("trusted proxies", networks)


def _keys(name: str, path: Path, load: Callable[[Path], object]) -> Check:
    try:
        status = path.stat()
        open_folder = _others_may_write(path.parent)
    except OSError as fault:
        return fail(
            name,
            f"{path}: {fault.strerror}",
            "restore it from your backup; on a new installation `broker migrate` makes it",
        )
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    if stat.S_ISREG(status.st_mode) and others_may_read(status):
        found = f"{path} has mode {mode}: others can read it"
        return fail(name, found, f"chmod 600 {path}")
    try:
        load(path)
    except StartupError as fault:
        cure = "restore it from your backup, readable for the user that runs the broker alone"
        return fail(name, str(fault), cure)
    if open_folder:
        found = f"{path.parent} can be written by others, who could put another file there"
        return warn(name, found, f"chmod go-w {path.parent}")
    return ok(name, f"{path}, mode {mode}")


def _others_may_write(folder: Path) -> bool:
    """What Kubernetes mounts has mode 1777, on a file system that nobody here can write to."""
    return bool(folder.stat().st_mode & 0o022) and not os.statvfs(folder).f_flag & os.ST_RDONLY


def _enrolment(settings: Settings) -> Check:
    if settings.mfa.enrolment is Enrolment.OPEN:
        return warn(
            "enrolment",
            "open: whoever has a person's first factor alone can enrol their second, until they do",
            'set [mfa] enrolment = "invited", and give out codes with `broker enrol-code`',
        )
    return ok("enrolment", "invited: a first second factor takes a code from an admin")
