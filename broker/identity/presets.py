"""What the CI platforms put into their OIDC tokens.

Owns, of each platform: the claims it sends and their types, which of them are
ids that never change hands, which events outsiders can cause, and how long a
token may live. Sources are the platforms' own documentation. Does not own: what
an access policy asks of a token (`trust`), and verifying one (`ci_token`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

HOUR = 3600
DAY = 86400


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` is how the access policy writes it, `path` where it stands in the token. `type` is
    str, int or bool: no platform sends what is compared here as anything else.
    """

    name: str
    path: tuple[str, ...]
    type: type[str] | type[int] | type[bool]

    @property
    def placeholder(self) -> str:
        """Its name in `{{principal.claims.NAME}}`, which holds letters, digits and _ alone."""
        return _placeholder(self.path)


@cache
def _placeholder(path: tuple[str, ...]) -> str:
    """Of the presets' own paths alone, so that few are kept."""
    last = path[-1] if len(path) == 1 else "_".join(path[1:])
    return re.sub(r"[^A-Za-z0-9_]", "_", last.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Preset:
    """One platform.

    `owners` and `projects` are immutable ids: an entry pins one of each. `owners` is empty where
    the issuer's address is the owner's alone. `names` are claims that name owner or project and
    can be taken over by somebody else. `outside_events` are the values of claim `event` that
    people without rights in the project can cause. `lifetime` in seconds. `job` are the claims
    that make a session name readable: project first, run next.
    """

    name: str
    title: str
    issuer: re.Pattern[str] | None
    claims: Mapping[str, Claim]
    owners: tuple[str, ...]
    projects: tuple[str, ...]
    names: frozenset[str]
    event: str | None
    outside_events: frozenset[str]
    lifetime: int
    default_audience: re.Pattern[str] | None
    job: tuple[str, ...]
    one_token_a_job: bool


def _claims(text: str = "", numbers: str = "", flags: str = "") -> Mapping[str, Claim]:
    kinds: tuple[tuple[str, type[str] | type[int] | type[bool]], ...] = (
        (text, str),
        (numbers, int),
        (flags, bool),
    )
    return {name: Claim(name, (name,), kind) for words, kind in kinds for name in words.split()}


def _below(top: str, paths: str) -> Mapping[str, Claim]:
    """String claims inside an object: `kubernetes.io/serviceaccount/uid`."""
    return {
        f"{top}/{path}": Claim(f"{top}/{path}", (top, *path.split("/")), str)
        for path in paths.split()
    }


# docs.github.com, "OpenID Connect reference".
GITHUB = Preset(
    name="github",
    title="GitHub Actions",
    issuer=re.compile(r"https://token\.actions\.githubusercontent\.com(/[A-Za-z0-9-]+)?"),
    claims=_claims(
        "sub actor actor_id base_ref check_run_id enterprise enterprise_id environment"
        " environment_node_id event_name head_ref job_workflow_ref job_workflow_sha ref"
        " ref_protected ref_type repository repository_id repository_owner repository_owner_id"
        " repository_visibility run_attempt run_id run_number runner_environment sha workflow"
        " workflow_ref workflow_sha"
    ),
    owners=("repository_owner_id",),
    projects=("repository_id",),
    names=frozenset({"repository", "repository_owner", "enterprise", "sub"}),
    event="event_name",
    outside_events=frozenset(
        {
            "discussion",
            "discussion_comment",
            "fork",
            "issue_comment",
            "issues",
            "pull_request",
            "pull_request_comment",
            "pull_request_review",
            "pull_request_review_comment",
            "pull_request_target",
            "watch",
            "workflow_run",
        }
    ),
    lifetime=HOUR,
    default_audience=re.compile(r"https://github\.com/[^/]+"),
    job=("repository", "run_id", "ref"),
    one_token_a_job=False,
)

# docs.gitlab.com, "OpenID Connect (OIDC) Authentication Using ID Tokens": the token lives as long
# as the job may.
GITLAB = Preset(
    name="gitlab",
    title="GitLab CI",
    issuer=re.compile(r"https://gitlab\.com"),
    claims=_claims(
        "sub ci_config_ref_uri ci_config_sha deployment_tier environment environment_action"
        " environment_protected job_id job_namespace_id job_namespace_path job_project_id"
        " job_project_path job_source namespace_id namespace_path pipeline_id pipeline_source"
        " project_id project_path project_visibility ref ref_path ref_protected ref_type"
        " runner_environment sha user_access_level user_email user_id user_login",
        "runner_id",
    ),
    owners=("namespace_id",),
    projects=("project_id",),
    names=frozenset({"namespace_path", "project_path", "job_project_path", "sub"}),
    event="pipeline_source",
    outside_events=frozenset({"external_pull_request_event", "merge_request_event"}),
    lifetime=DAY,
    default_audience=None,
    job=("project_path", "pipeline_id", "ref"),
    one_token_a_job=True,
)

# kubernetes.io, "Managing Service Accounts". Each cluster is an issuer of its own.
KUBERNETES = Preset(
    name="kubernetes",
    title="Kubernetes",
    issuer=None,
    claims={
        **_claims("sub"),
        **_below(
            "kubernetes.io",
            "namespace node/name node/uid pod/name pod/uid serviceaccount/name serviceaccount/uid",
        ),
    },
    owners=(),
    projects=("kubernetes.io/serviceaccount/uid",),
    names=frozenset({"kubernetes.io/namespace", "kubernetes.io/serviceaccount/name", "sub"}),
    event=None,
    outside_events=frozenset(),
    lifetime=HOUR,
    default_audience=re.compile(
        r"(https://)?kubernetes\.default(\.svc(\.cluster\.local)?)?|api|kubernetes"
    ),
    job=("kubernetes.io/namespace", "kubernetes.io/pod/name", "kubernetes.io/serviceaccount/name"),
    one_token_a_job=True,
)

# buildkite.com/docs/agent/v3/cli-oidc. organization_id and pipeline_id come with `--claim`.
BUILDKITE = Preset(
    name="buildkite",
    title="Buildkite",
    issuer=re.compile(r"https://agent\.buildkite\.com"),
    claims=_claims(
        "sub agent_id build_branch build_commit build_id build_source build_tag cluster_id"
        " cluster_name job_id organization_id organization_slug pipeline_id pipeline_slug queue_id"
        " queue_key runner_environment step_key",
        "build_number",
    ),
    owners=("organization_id",),
    projects=("pipeline_id",),
    names=frozenset({"organization_slug", "pipeline_slug", "cluster_name", "sub"}),
    event=None,
    outside_events=frozenset(),
    lifetime=HOUR,
    default_audience=re.compile(r"https://buildkite\.com/[^/]+"),
    job=("pipeline_slug", "build_number", "build_branch"),
    one_token_a_job=False,
)

# circleci.com/docs/openid-connect-tokens. The issuer holds the organization's id.
_CIRCLE = "oidc.circleci.com/"
CIRCLECI = Preset(
    name="circleci",
    title="CircleCI",
    issuer=re.compile(r"https://oidc\.circleci\.com/org/[0-9a-f-]{36}"),
    claims=_claims(
        "sub oidc.circleci.com/job-id oidc.circleci.com/org-id"
        " oidc.circleci.com/pipeline-definition-id oidc.circleci.com/pipeline-id"
        " oidc.circleci.com/project-id oidc.circleci.com/vcs-origin oidc.circleci.com/vcs-ref"
        " oidc.circleci.com/workflow-id",
        flags=_CIRCLE + "ssh-rerun",
    ),
    owners=(),
    projects=(_CIRCLE + "project-id",),
    names=frozenset({_CIRCLE + "vcs-origin", "sub"}),
    event=None,
    outside_events=frozenset(),
    lifetime=HOUR,
    default_audience=None,
    job=(_CIRCLE + "vcs-origin", _CIRCLE + "job-id", _CIRCLE + "vcs-ref"),
    one_token_a_job=True,
)

# support.atlassian.com, "Integrate Pipelines with resource servers using OIDC".
BITBUCKET = Preset(
    name="bitbucket",
    title="Bitbucket Pipelines",
    issuer=re.compile(
        r"https://api\.bitbucket\.org/2\.0/workspaces/[^/]+/pipelines-config/identity/oidc"
    ),
    claims=_claims(
        "sub accountUuid branchName deploymentEnvironmentUuid pipelineRunUuid pipelineUuid"
        " repositoryUuid stepUuid workspaceUuid"
    ),
    owners=("workspaceUuid",),
    projects=("repositoryUuid",),
    names=frozenset({"sub"}),
    event=None,
    outside_events=frozenset(),
    lifetime=HOUR,
    default_audience=None,
    job=("repositoryUuid", "pipelineUuid", "branchName"),
    one_token_a_job=True,
)

# developer.hashicorp.com, "Workload identity tokens": the token lives as long as the run may.
TERRAFORM_CLOUD = Preset(
    name="terraform-cloud",
    title="HCP Terraform",
    issuer=re.compile(r"https://app(\.eu)?\.terraform\.io"),
    claims=_claims(
        "sub terraform_full_workspace terraform_organization_id terraform_organization_name"
        " terraform_project_id terraform_project_name terraform_run_id terraform_run_phase"
        " terraform_workspace_id terraform_workspace_name"
    ),
    owners=("terraform_organization_id",),
    projects=("terraform_workspace_id", "terraform_project_id"),
    names=frozenset(
        {
            "terraform_full_workspace",
            "terraform_organization_name",
            "terraform_project_name",
            "terraform_workspace_name",
            "sub",
        }
    ),
    event=None,
    outside_events=frozenset(),
    lifetime=DAY,
    default_audience=None,
    job=("terraform_workspace_name", "terraform_run_id", "terraform_run_phase"),
    one_token_a_job=True,
)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        GITHUB,
        GITLAB,
        KUBERNETES,
        BUILDKITE,
        CIRCLECI,
        BITBUCKET,
        TERRAFORM_CLOUD,
    )
}
# What an issuer without a preset may have its tokens live.
OTHER_LIFETIME = HOUR


def preset_of(issuer: str) -> Preset | None:
    """The platform whose own address this is."""
    for preset in PRESETS.values():
        if preset.issuer is not None and preset.issuer.fullmatch(issuer):
            return preset
    return None
