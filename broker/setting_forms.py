"""What settings are made of: sections, safe URLs, secrets from files.

Owns the forms alone. Does not own any setting (`settings`, `sink_settings`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from broker.adapters.loopback import is_loopback
from broker.adapters.secret_mode import others_may_read

_SECRET_FILE_LIMIT = 64 * 1024
# A name, with the underscores that some networks have, or an address of either kind.
_HOST = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


def safe_parts(url: str, what: str) -> SplitResult:
    """Of an http(s) URL of a host and port that can be, without secrets in it. Raises ValueError;
    `what` says what to write.
    """
    parts = urlsplit(url)
    # urlsplit passes over line breaks, and a password is one without a user name too.
    if parts.scheme not in ("https", "http") or not parts.hostname or not url.isprintable():
        raise ValueError(what)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("leave user names, queries and fragments out of this URL")
    try:
        host, _ = parts.hostname.encode("idna"), parts.port
    except ValueError:
        host = b""
    if not _HOST.fullmatch(host):
        raise ValueError(f"{what}: nothing can have this host or port")
    return parts


def _https_or_loopback(url: str) -> str:
    parts = safe_parts(url, "write a full URL, such as https://broker.example.com")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http is for loopback addresses alone; write https://")
    return url


def _origin(url: str) -> str:
    url = _https_or_loopback(url).rstrip("/")
    if urlsplit(url).path:
        raise ValueError("the broker is served at the root of its host; leave the path out")
    return url


SafeUrl = Annotated[str, AfterValidator(_https_or_loopback)]
Origin = Annotated[str, AfterValidator(_origin)]


def _read_secret(path: Path) -> str:
    try:
        if others_may_read(path.stat()):
            raise ValueError(f"{path} can be read by others; run: chmod 600 {path}")
        text = path.read_text("utf-8")
    except OSError as fault:
        raise ValueError(f"{path} can't be read: {fault.strerror}") from fault
    if not text.strip() or len(text) > _SECRET_FILE_LIMIT:
        raise ValueError(f"{path} holds no secret")
    return text.strip()


def as_sequence(value: object) -> object:
    """A single table is the common mistake for a list of one."""
    return [value] if isinstance(value, Mapping) else value


class Section(BaseModel):
    """A table of the settings: an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: object) -> object:
        """`NAME_file = path` stands for the SecretStr field NAME."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name in cls.model_fields:
            path = (
                filled.pop(f"{name}_file", None) if f"{name}_file" not in cls.model_fields else None
            )
            if path is None:
                continue
            if name in filled:
                raise ValueError(f"give {name} or {name}_file, not both")
            filled[name] = _read_secret(Path(str(path)))
        return filled
