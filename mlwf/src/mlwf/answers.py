"""What the service answers, typed. Unknown new fields are ignored, so that an older tool works with a newer service.

Each class keeps what was received in `raw`. Times are the API's texts: ISO 8601 in UTC with offset. The meaning of the fields is in
docs/reference/api.md.
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from mlwf.secret import Secret

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Base of all answers: `from_json` takes the fields that the class knows and builds the nested ones."""

    raw: Json = field(default_factory=dict, repr=False, compare=False)
    nested: ClassVar[dict[str, type["Answer"]]] = {}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Raises TypeError or ValueError when a required field is missing or the answer is no object."""
        if not isinstance(data, dict):
            raise TypeError(f"{cls.__name__}: an object was expected")
        known = {each.name for each in fields(cls)} - {"raw"}
        values = {name: cls._convert(name, value) for name, value in data.items() if name in known}
        return cls(raw=data, **values)

    @classmethod
    def _convert(cls, name: str, value: Any) -> Any:
        kind = cls.nested.get(name)
        if kind is None or value is None:
            return value
        return [kind.from_json(each) for each in value] if isinstance(value, list) else kind.from_json(value)


@dataclass(frozen=True, kw_only=True)
class Problem(Answer):
    """Why something failed: a reason, a warning, or an operation's error."""

    code: str = ""
    detail: str = ""
    cure: str = ""
    title: str = ""
    log: list[str] | str | None = None


@dataclass(frozen=True, kw_only=True)
class Step(Answer):
    """One step of an operation. `state`: `pending`, `running`, `succeeded`, `failed`, `undone`; `label`: for people."""

    name: str
    state: str
    label: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    detail: str | None = None

    @property
    def words(self) -> str:
        """What people read of it: what it is, and what it waits for."""
        return (self.label or self.name) + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class Operation(Answer):
    """One change under way. `state`: `pending`, `running`, `succeeded`, `failed`."""

    id: str
    kind: str
    state: str
    group: str = ""
    env_name: str = ""
    server_id: str | None = None
    requested_by: str = ""
    request_id: str | None = None
    created_at: str | None = None
    finished_at: str | None = None
    message: str = ""
    steps: list[Step] = field(default_factory=list)
    error: Problem | None = None
    nested: ClassVar[dict[str, type[Answer]]] = {"steps": Step, "error": Problem}

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in {"succeeded", "failed"}

    @property
    def failed(self) -> bool:
        """Whether it has ended, and not well."""
        return self.state == "failed"


@dataclass(frozen=True, kw_only=True)
class Storage(Answer):
    """Where a server's artifacts lie, and with which key; `other_buckets`: how many others the key opens (None: not known)."""

    bucket: str = ""
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    artifact_access: str = "proxied"
    access_key_id: str | None = None
    other_buckets: int | None = None


@dataclass(frozen=True, kw_only=True)
class Users(Answer):
    """Whose names and passwords a server accepts."""

    names: list[str] = field(default_factory=list)
    updated_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deletion(Answer):
    """What is kept of a deleted server, and until when it can be restored."""

    deleted_at: str | None = None
    restorable_until: str | None = None
    kept: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Lease(Answer):
    """Somebody vouches for a server until a time; `at_end`: `keep` or `stop`, what becomes of it if this is its last one."""

    id: str
    user: str = ""
    until: str | None = None
    at_end: str = "keep"
    note: str = ""
    created_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Token(Answer):
    """A bearer token of a server. `state`: `pending` (the server was not told yet), `active`, `expired`, `revoked`."""

    id: str
    name: str = ""
    user: str = ""
    state: str = ""
    created_at: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A sign-in ticket: a browser posts it as the form field `ticket` to `sign_in_url`, once, within seconds."""

    ticket: Secret
    user: str
    sign_in_url: str


@dataclass(frozen=True, kw_only=True)
class Previous(Answer):
    """What a server had before its last upgrade, and until when that can be rolled back."""

    mlflow_version: str = ""
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class Server(Answer):
    """One tracking server. `status`: `creating`, `running`, `sleeping`, `stopped`, `failed`, `deleting`, `deleted`."""

    id: str
    group: str
    env_name: str
    status: str
    gid: int | None = None
    desired: str = ""
    reason: Problem | None = None
    inside_url: str | None = None
    outside_url: str | None = None
    host: str | None = None
    port: int | None = None
    mlflow_version: str = ""
    schema_revision: str | None = None
    size: str = ""
    upgrades: list[str] = field(default_factory=list)
    previous: Previous | None = None
    storage: Storage = field(default_factory=Storage)
    users: Users = field(default_factory=Users)
    auth_file: str = ""
    created_by: str = ""
    created_at: str | None = None
    updated_at: str | None = None
    status_since: str | None = None
    deletion: Deletion | None = None
    operation: str | None = None
    leases: list[Lease] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    nested: ClassVar[dict[str, type[Answer]]] = {
        "reason": Problem,
        "storage": Storage,
        "users": Users,
        "deletion": Deletion,
        "previous": Previous,
        "leases": Lease,
        "warnings": Problem,
    }


@dataclass(frozen=True, kw_only=True)
class Group(Answer):
    """A group of the caller that may have servers; `may_create`: by this caller."""

    name: str
    gid: int | None = None
    may_create: bool = False


@dataclass(frozen=True, kw_only=True)
class Me(Answer):
    """The caller, and what forms offer."""

    user: str
    uid: int
    admin: bool = False
    groups: list[Group] = field(default_factory=list)
    defaults: Json = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    sizes: list[Json] = field(default_factory=list)
    endpoint_url_fixed: bool = False
    group_area: str = ""
    restore_days: int | None = None
    previous_days: int | None = None
    runtime: Json = field(default_factory=dict)
    nested: ClassVar[dict[str, type[Answer]]] = {"groups": Group}


@dataclass(frozen=True, kw_only=True)
class Health(Answer):
    """The service's own state."""

    status: str
    version: str = ""
    reconciler: Json = field(default_factory=dict)
