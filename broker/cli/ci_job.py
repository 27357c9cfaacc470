"""A CI job that the broker let in: its job token, kept privately, and credentials with it.

Owns: exchanging the platform's token once a job (RFC 8693), the file of the job
token, and one new exchange where the old one has ended. The file's name is made
of a secret of this job, so that no other job on the machine finds it.
"""

from __future__ import annotations

import json
import re
import time
from typing import NamedTuple
from urllib.parse import urlencode

from broker.cli import answers, credentials, lock, paths
from broker.cli.cached import Wanted
from broker.cli.ci_token import Source
from broker.cli.credentials import Credentials
from broker.cli.failure import Failure, Refused
from broker.cli.server import Server
from broker.cli.terminal import clean
from broker.cli.transport import Answer, Transport

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_JOB_TOKEN = re.compile(r"bkj_[A-Za-z0-9_-]{43}", re.ASCII)
_CODE = re.compile(r"[a-z_]{1,64}", re.ASCII)
# Less than this left, a job token is exchanged anew: nothing shorter is issued (900 s and more).
_LEAST_SECONDS = 960
_LONGEST = 6 * 3600


class JobToken(NamedTuple):
    text: str
    expires_at: float  # epoch seconds of this machine's clock

    def __repr__(self) -> str:
        return "JobToken(…)"


class Job:
    """This job at one broker."""

    def __init__(self, server: Server, source: Source, role: str, *, debug: bool = False) -> None:
        self.server = server
        self._source = source
        self._role = role
        self._transport = Transport(server, debug=debug)
        self._directory = f"{paths.login_directory(server.origin)}/jobs"
        self._path = f"{self._directory}/{source.key}.json"

    def issue(self, wanted: Wanted, restrict: list[object] | None = None) -> Credentials:
        """Fresh credentials. Raises what the broker refuses with."""
        return credentials.issue(self, wanted, client="ci", restrict=restrict)

    def post(self, target: str, value: dict[str, object]) -> dict[str, object]:
        """With the job token; where that has ended meanwhile, with a new one."""
        body = json.dumps(value).encode("ascii")
        answer = self._send(target, body, self._token())
        if answer.status == 401:
            paths.remove(self._path)
            answer = self._send(target, body, self._token())
        if answer.status == 401:
            raise Refused("unauthenticated", "the broker does not take this job's token")
        return answers.members(answer)

    def end(self) -> None:
        """Give the job token back; nothing where there is none."""
        token = self._kept()
        if token is None:
            return
        body = urlencode({"token": token.text}).encode("ascii")
        answer = self._transport.request("POST", "/oauth/revoke", body=body, headers=_FORM)
        paths.remove(self._path)
        if answer.status != 200:
            raise answers.failure_of(answer)

    def _send(self, target: str, body: bytes, token: JobToken) -> Answer:
        headers = {"Authorization": f"Bearer {token.text}", "Content-Type": "application/json"}
        return self._transport.request("POST", target, body=body, headers=headers)

    def _token(self) -> JobToken:
        """Parallel steps exchange once: many platforms' tokens are good for one exchange alone."""
        kept = self._kept()
        if kept is not None:
            return kept
        with lock.locked(self._directory, self._source.key):
            kept = self._kept()
            if kept is not None:
                return kept
            token = self._exchange()
            text = json.dumps({"token": token.text, "expires_at": token.expires_at})
            paths.write_private(self._path, text.encode("ascii"))
            return token

    def _kept(self) -> JobToken | None:
        content = paths.read_private(self._path, 4096)
        try:
            value = json.loads(content) if content else None
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        text, expires_at = value.get("token"), value.get("expires_at")
        if not isinstance(text, str) or not _JOB_TOKEN.fullmatch(text):
            return None
        if not isinstance(expires_at, int | float) or expires_at - time.time() < _LEAST_SECONDS:
            return None
        return JobToken(text, expires_at)

    def _exchange(self) -> JobToken:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": self._source.fetch(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "scope": f"role:{self._role}",
        }
        asked_at = time.time()
        body = urlencode(form).encode("ascii")
        answer = self._transport.request("POST", "/oauth/token", body=body, headers=_FORM)
        if answer.status != 200:
            raise _refusal(answer, self._source)
        value = answers.members(answer)
        text, lifetime = answers.text(value, "access_token"), value.get("expires_in")
        if not _JOB_TOKEN.fullmatch(text) or type(lifetime) is not int:
            raise answers.not_a_broker("its job token is none")
        if not 0 < lifetime <= _LONGEST:
            raise answers.not_a_broker("its job token has no lifetime")
        return JobToken(text, asked_at + lifetime)


def _refusal(answer: Answer, source: Source) -> Failure:
    """RFC 8693's error, with the broker's own code beside it."""
    try:
        value = answer.json() if answer.content_type == "application/json" else None
    except ValueError:
        value = None
    code = value.get("code", value.get("error")) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(code, str) or not _CODE.fullmatch(code):
        return answers.failure_of(answer)
    detail = clean(value.get("error_description") or "no reason given", 500)
    if code == "ci_token_replayed":
        detail += (
            f" {source.platform} gives a job one token: say `reuse: true` in its workload entry,"
            " or keep BROKER_HOME between the job's steps."
        )
    return Refused(code, detail)
