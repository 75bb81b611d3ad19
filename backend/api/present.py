"""Rows of the registry as the API answers them, for one caller in one language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from backend import sizes, versions
from backend.api.answers import (
    Choices,
    Defaults,
    Deletion,
    FailureReason,
    GroupView,
    LeaseView,
    Me,
    OperationProblem,
    OperationView,
    Previous,
    Reason,
    RuntimeView,
    ServerView,
    SizeView,
    StepView,
    StorageView,
    TicketView,
    TokenView,
    UsersView,
)
from backend.api.problems import standard_members
from backend.api.service import Service
from backend.domain import ArtifactAccess, Caller, Desired, OperationKind, OperationState, Status
from backend.i18n import fill, translate
from backend.messages import describe, describe_stored, operation_message
from backend.plans.labels import LABELS
from backend.registry.models import Lease, Operation, Server, Token, now
from backend.settings import Settings
from backend.wishes import policy
from backend.wishes.access import Ticket, is_in_force
from backend.wishes.leases import AtEnd


@dataclass(frozen=True, kw_only=True)
class Presenter:
    """``groups_now``: the gid that each group name has now; ``under_way``, ``leases``: by server id."""

    settings: Settings
    caller: Caller
    language: str
    groups_now: Mapping[str, int | None]
    under_way: Mapping[str, Operation]
    leases: Mapping[str, Sequence[Lease]]

    def server(self, row: Server) -> ServerView:
        """One server, as this caller may see it."""
        situation = policy.Situation(group_now=self.groups_now.get(row.group_name), under_way=self.under_way.get(row.id))
        allowed = policy.allowed(self.caller, row, settings=self.settings, situation=situation)
        may_see_all = self.caller.admin or situation.group_now == row.gid
        address = f"{row.host}:{row.port}"
        portal = (self.settings.portal_url or "").rstrip("/")
        return ServerView(
            id=row.id,
            group=row.group_name,
            gid=row.gid,
            env_name=row.env_name,
            status=Status.DELETED if row.deleted_at else Status(row.status),
            status_since=row.deleted_at or row.status_since,
            desired=Desired(row.desired),
            reason=self._reason(row),
            inside_url=f"http://{address}/mlflow/",
            outside_url=f"{portal}/rnode/{row.host}/{row.port}/mlflow/" if portal else None,
            host=row.host,
            port=row.port,
            mlflow_version=row.mlflow_version,
            schema_revision=row.schema_revision,
            idle_seconds=row.idle_seconds,
            size=sizes.in_force(self.settings, row.size).name,
            storage=_storage(row, shorten=not self._may_change_key(row)),
            users=UsersView(names=[user["name"] for user in row.users] if may_see_all else [], updated_at=row.users_updated_at),
            auth_file=self._auth_file(row),
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
            upgrades=[version for version in self._offered if versions.is_older(row.mlflow_version, version)],
            previous=_previous(row),
            deletion=_deletion(row),
            operation=situation.under_way.id if situation.under_way else None,
            leases=[lease_view(lease) for lease in self.leases.get(row.id, ())],
            warnings=self._warnings(row, situation),
            allowed=allowed,
        )

    @cached_property
    def _offered(self) -> list[str]:
        return versions.offered(self.settings)

    def _may_change_key(self, row: Server) -> bool:
        """Whether the policy lets the caller change the key, whatever is under way at this moment."""
        now = policy.Situation(group_now=self.groups_now.get(row.group_name))
        return policy.refusal(self.caller, row, OperationKind.STORAGE, settings=self.settings, situation=now) is None

    def _auth_file(self, row: Server) -> str:
        return str(self.settings.group_area / row.group_name / "aihub" / row.env_name / "yml" / "basic_auth.yml")

    def _reason(self, row: Server) -> FailureReason | None:
        found = describe_stored(row.reason, self.language)
        return None if found is None else FailureReason(**found)

    def _warnings(self, row: Server, situation: policy.Situation) -> list[Reason]:
        found: list[tuple[str, dict[str, object]]] = []
        if situation.group_now != row.gid:
            now = "none" if situation.group_now is None else situation.group_now
            found.append(("group_changed", {"group": row.group_name, "now": now, "then": row.gid}))
        if row.former_members:
            names = ", ".join(str(name) for name in row.former_members)
            found.append(("former_member", {"names": names, "auth_file": self._auth_file(row)}))
        if not row.users and row.deleted_at is None:
            found.append(("no_users", {"auth_file": self._auth_file(row)}))
        if row.other_buckets:
            found.append(("key_opens_more", {"count": row.other_buckets, "bucket": row.bucket}))
        return [Reason(**describe(code, params, self.language)) for code, params in found]


def lease_view(row: Lease) -> LeaseView:
    """A lease."""
    return LeaseView(id=row.lease_id, user=row.user, until=row.until, at_end=AtEnd(row.at_end), note=row.note, created_at=row.created_at)


def ticket_view(ticket: Ticket) -> TicketView:
    """A ticket, its text included."""
    return TicketView(ticket=ticket.text.reveal(), user=ticket.user, expires_at=ticket.expires_at, sign_in_url=ticket.sign_in_url)


def token_view(row: Token) -> TokenView:
    """A token."""
    state: Literal["pending", "active", "expired", "revoked"] = "active" if row.told else "pending"
    if not is_in_force(row):
        state = "revoked" if row.revoked_at else "expired"
    return TokenView(
        id=row.id,
        name=row.name,
        user=row.user,
        state=state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def operation_view(row: Operation, language: str) -> OperationView:
    """An operation with its texts in that language."""
    return OperationView(
        id=row.id,
        kind=OperationKind(row.kind),
        group=row.group_name,
        env_name=row.env_name,
        server_id=row.server_id,
        state=OperationState(row.state),
        requested_by=row.requested_by,
        request_id=row.request_id,
        created_at=row.created_at,
        finished_at=row.finished_at,
        message=operation_message(row.kind, row.state, language),
        steps=[_step(step, language) for step in row.steps],
        error=_operation_problem(row.error, language),
    )


def me_view(service: Service, caller: Caller) -> Me:
    """The caller and what forms need."""
    settings = service.settings
    on_offer = versions.offered(settings)
    return Me(
        user=caller.user,
        uid=caller.uid,
        admin=caller.admin,
        groups=[
            GroupView(name=group.name, gid=group.gid, may_create=policy.may_create(caller, settings))
            for group in policy.offered_groups(caller, settings)
        ],
        defaults=Defaults(
            endpoint_url=settings.endpoint_url,
            region=settings.region,
            artifact_access=ArtifactAccess(settings.artifact_access),
            mlflow_version=next(iter(on_offer), None),
            size=settings.default_size,
            idle_seconds=settings.idle_seconds,
        ),
        choices=Choices(mlflow_version=on_offer, size=sizes.names(settings.sizes), artifact_access=list(ArtifactAccess)),
        sizes=[SizeView(**asdict(size)) for size in settings.sizes],
        endpoint_url_fixed=settings.endpoint_url_fixed,
        group_area=str(settings.group_area),
        restore_days=settings.restore_days,
        previous_days=settings.previous_days,
        runtime=RuntimeView(name=service.runtime_name, isolates=service.runtime_isolates),
    )


def _storage(row: Server, *, shorten: bool) -> StorageView:
    key_id = row.access_key_id
    return StorageView(
        bucket=row.bucket,
        prefix=row.prefix,
        endpoint_url=row.endpoint_url,
        region=row.region,
        artifact_access=ArtifactAccess(row.artifact_access),
        access_key_id=f"{key_id[:4]}…{key_id[-4:]}" if shorten and len(key_id) > 8 else "…" if shorten else key_id,
        other_buckets=row.other_buckets,
    )


def _deletion(row: Server) -> Deletion | None:
    if row.deleted_at is None or row.restorable_until is None:
        return None
    return Deletion(deleted_at=row.deleted_at, restorable_until=row.restorable_until, kept=["database", "settings", "port"])


def _previous(row: Server) -> Previous | None:
    if row.previous_version is None or row.previous_until is None or row.previous_until <= now():
        return None
    return Previous(mlflow_version=row.previous_version, until=row.previous_until)


def _step(step: Mapping[str, Any], language: str) -> StepView:
    detail = step.get("detail")
    return StepView(
        name=step["name"],
        label=translate(LABELS.get(step["name"], step["name"]), language),
        state=step["state"],
        started_at=step.get("started_at"),
        finished_at=step.get("finished_at"),
        detail=fill("{what}", language, {"what": detail}) if detail else None,
    )


def _operation_problem(stored: Mapping[str, Any] | None, language: str) -> OperationProblem | None:
    found = describe_stored(stored, language)
    return None if found is None else OperationProblem(**found, **standard_members(found["code"], language))
