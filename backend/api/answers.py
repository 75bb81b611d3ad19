"""What the service answers (docs/reference/api.md). These models are what the OpenAPI document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from backend.domain import ArtifactAccess, Desired, OperationKind, OperationState, Status, StepState
from backend.wishes.leases import AtEnd
from backend.wishes.policy import Offered

Time = Annotated[
    datetime,
    PlainSerializer(lambda at: at.isoformat(timespec="milliseconds"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""ISO 8601 in UTC, the offset written as ``+00:00``."""


class Answer(BaseModel):
    """Common to all."""

    model_config = ConfigDict(extra="forbid")


class Reason(Answer):
    """Why something is wrong, and what helps."""

    code: str
    detail: str
    cure: str


class FailureReason(Reason):
    """With the server's last log lines, where it failed to run."""

    log: str | None = None


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str = Field(description="urn:aihub:problem:CODE")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; texts follow Accept-Language.")
    cure: str
    fields: dict[str, str] | None = Field(default=None, description="Messages by field, where fields are to blame.")
    request_id: str | None = None


class OperationProblem(FailureReason):
    """Why an operation failed."""

    type: str
    title: str
    status: int


class StorageView(Answer):
    """Where a server's artifacts live."""

    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str
    artifact_access: ArtifactAccess
    access_key_id: str = Field(description="Shortened for those who may not change it.")
    other_buckets: int | None = Field(description="How many other buckets the key opens; null: it may not say.")


class UsersView(Answer):
    """Who can log in."""

    names: list[str]
    updated_at: Time | None


class Deletion(Answer):
    """What is kept of a deleted server, until when."""

    deleted_at: Time
    restorable_until: Time
    kept: list[Literal["database", "settings", "port"]]


class LeaseView(Answer):
    """Somebody vouches for a server until a time."""

    id: str
    user: str
    until: Time
    at_end: AtEnd = Field(description="What becomes of the server if this is its last lease.")
    note: str
    created_at: Time


class LeaseList(Answer):
    """The leases of a server that are in force."""

    leases: list[LeaseView]


class TicketView(Answer):
    """A sign-in ticket. The browser posts it as the form field ``ticket`` to ``sign_in_url``; it is good once, for seconds."""

    ticket: str = Field(description="A secret: in a POST's body, never in an address.")
    user: str
    expires_at: Time
    sign_in_url: str


class TokenView(Answer):
    """A bearer token of a server; its text was shown once."""

    id: str
    name: str
    user: str
    state: Literal["pending", "active", "expired", "revoked"] = Field(description="pending: the server was not told yet, seconds at most.")
    created_at: Time
    expires_at: Time
    revoked_at: Time | None


class TokenList(Answer):
    """The tokens of a server, the newest first."""

    tokens: list[TokenView]


class TokenMade(Answer):
    """A new token."""

    token: TokenView
    secret: str = Field(description="The token itself, shown this once.")


class Previous(Answer):
    """What a server had before its last upgrade, and until when that can be rolled back."""

    mlflow_version: str
    until: Time


class ServerView(Answer):
    """A tracking server."""

    model_config = ConfigDict(extra="forbid", title="Server")

    id: str
    group: str
    gid: int
    env_name: str
    status: Status
    status_since: Time | None
    desired: Desired
    reason: FailureReason | None
    inside_url: str
    outside_url: str | None
    host: str
    port: int
    mlflow_version: str
    schema_revision: str
    idle_seconds: int
    size: str
    storage: StorageView
    users: UsersView
    auth_file: str
    created_by: str
    created_at: Time
    updated_at: Time
    upgrades: list[str] = Field(description="Newer MLflow versions on offer.")
    previous: Previous | None = Field(description="What the last upgrade can be rolled back to.")
    deletion: Deletion | None
    operation: str | None
    leases: list[LeaseView]
    warnings: list[Reason]
    allowed: list[Offered]


class ServerList(Answer):
    """The servers that the caller sees."""

    servers: list[ServerView]


class StepView(Answer):
    """A step of an operation."""

    name: str
    label: str
    state: StepState
    started_at: Time | None
    finished_at: Time | None
    detail: str | None


class OperationView(Answer):
    """A request that changes something, and what became of it."""

    model_config = ConfigDict(extra="forbid", title="Operation")

    id: str
    kind: OperationKind
    group: str
    env_name: str
    server_id: str | None
    state: OperationState
    requested_by: str
    request_id: str | None = Field(description="Of the request that asked for it; null: asked for by nobody's request.")
    created_at: Time
    finished_at: Time | None
    message: str
    steps: list[StepView]
    error: OperationProblem | None


class GroupView(Answer):
    """A group of the caller."""

    name: str
    gid: int
    may_create: bool


class Defaults(Answer):
    """What a form starts with."""

    endpoint_url: str | None
    region: str
    artifact_access: ArtifactAccess
    mlflow_version: str | None = Field(description="null: no MLflow is installed, so nothing can be created.")
    size: str
    idle_seconds: int


class Choices(Answer):
    """What a form offers."""

    mlflow_version: list[str]
    size: list[str]
    artifact_access: list[ArtifactAccess]


class SizeView(Answer):
    """How much of the host a server of that size may take."""

    name: str
    memory: int = Field(description="Bytes.")
    cpus: float
    pids: int
    workers: int = Field(description="MLflow's worker processes.")
    log: int = Field(description="Bytes that the daemon keeps of the words of MLflow's container.")
    genai_jobs: bool = Field(description="Whether MLflow's server-side GenAI jobs may run.")
    gateway: bool = Field(description="Whether MLflow's AI gateway is open.")
    gateway_private: bool = Field(description="Whether its models may be at private addresses and without TLS.")


class RuntimeView(Answer):
    """What runs the servers, and whether it keeps groups apart."""

    name: str
    isolates: bool


class Me(Answer):
    """The caller, and what forms need to know."""

    user: str
    uid: int
    admin: bool
    groups: list[GroupView]
    defaults: Defaults
    choices: Choices
    sizes: list[SizeView]
    endpoint_url_fixed: bool
    group_area: str
    restore_days: int
    previous_days: int = Field(description="Days for which an upgrade can be rolled back.")
    runtime: RuntimeView


class ReconcilerView(Answer):
    """When the reconciler last said that it is alive."""

    seen_at: Time | None
    ok: bool


class Health(Answer):
    """Whether the service works."""

    status: Literal["ok", "degraded"]
    version: str
    reconciler: ReconcilerView
