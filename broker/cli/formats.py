"""Credentials as text for a shell, a file or an SDK. The values come over the network: each
format quotes so that no value can end its own string, or refuses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from broker.cli.credentials import Credentials
from broker.cli.failure import WrongUsage

# Readers of .env files agree on no quoting; these characters need none in any of them.
_PLAIN = re.compile(r"[A-Za-z0-9+/=_.:,@%-]*")


def environment(credentials: Credentials) -> dict[str, str]:
    """The variables that SDKs read. The region only where the broker named one."""
    variables = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_CREDENTIAL_EXPIRATION": credentials.expiration,
    }
    if credentials.region is not None:
        variables["AWS_REGION"] = credentials.region
        variables["AWS_DEFAULT_REGION"] = credentials.region
    return variables


def as_json(credentials: Credentials) -> str:
    """The shape of AWS's credential_process, which other tools read too."""
    value: dict[str, object] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": credentials.expiration,
    }
    if credentials.account_id is not None:
        value["AccountId"] = credentials.account_id
    return json.dumps(value)


def as_env(credentials: Credentials) -> str:
    """For sh, bash and zsh: `eval "$(broker creds ROLE --format env)"`."""
    return _lines(credentials, lambda name, value: f"export {name}={sh_quote(value)}")


def as_fish(credentials: Credentials) -> str:
    """`broker creds ROLE --format fish | source`."""
    return _lines(credentials, lambda name, value: f"set -gx {name} {fish_quote(value)}")


def as_powershell(credentials: Credentials) -> str:
    """`broker creds ROLE --format powershell | Out-String | Invoke-Expression`."""
    return _lines(credentials, lambda name, value: f"$Env:{name} = {powershell_quote(value)}")


def as_dotenv(credentials: Credentials) -> str:
    """For env files, docker's included, which takes quotes for part of the value."""
    return _lines(credentials, lambda name, value: f"{name}={_plain(name, value)}")


FORMATS = {
    "json": as_json,
    "env": as_env,
    "fish": as_fish,
    "powershell": as_powershell,
    "dotenv": as_dotenv,
}


def sh_quote(value: str) -> str:
    """POSIX 2.2.2: within single quotes nothing is special but the quote itself."""
    return "'" + value.replace("'", "'\\''") + "'"


def fish_quote(value: str) -> str:
    r"""Within single quotes fish knows two escapes, `\'` and `\\`."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def powershell_quote(value: str) -> str:
    """A verbatim string; the quote is doubled, and so are the typographic ones, which PowerShell
    takes for it.
    """
    return "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", value) + "'"


def _plain(name: str, value: str) -> str:
    if not _PLAIN.fullmatch(value):
        raise WrongUsage(f"{name} holds characters that no .env file carries; use another format")
    return value


def _lines(credentials: Credentials, line: Callable[[str, str], str]) -> str:
    return "\n".join(line(name, value) for name, value in environment(credentials).items())
