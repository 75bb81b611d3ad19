"""What a request writes: the wish and an operation, in one transaction with the audit entry; then the reconciler is kicked.

Used by the API and by the admins' command alike. Nothing here waits for a tracking server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from mlwf.secret import Secret
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend import sizes, versions
from backend.domain import Caller, Desired, Group, OperationKind, Status, new_server_id, prefix_of
from backend.errors import ServiceError
from backend.networks import egress
from backend.ports import Directory
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Operation, Server
from backend.settings import Settings
from backend.wishes import audit, bounds, policy, portpool, tickets, uidpool
from backend.wishes.kick import Kick
from backend.wishes.lookup import Ask, done_already, find, permitted, taken
from backend.wishes.passwords import Hasher
from backend.wishes.trial_words import new_trial
from backend.wishes.values import CreateWish, StorageWish, new_box_keys

_NEED_PAYLOAD = frozenset({OperationKind.RESIZE, OperationKind.UPGRADE, OperationKind.ROLLBACK})
Change = Callable[[Server], str | None]
"""Changes the row; returns the operation's encrypted payload where it has one."""


class Requests:
    """The changes that can be asked for. Each returns the operation, or raises ``ServiceError`` and has written nothing."""

    def __init__(
        self, *, registry: Registry, directory: Directory, settings: Settings, keyring: Keyring, kick: Kick, hasher: Hasher
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._settings = settings
        self._keyring = keyring
        self._kick = kick
        self._hasher = hasher

    def create(self, caller: Caller, wish: CreateWish, *, request_id: str | None) -> Operation:
        """Errors: ``not_a_member``, ``group_not_offered``, ``not_allowed``, as ``taken``, ``too_many_servers``, ``too_many_kept``,
        ``endpoint_fixed``, ``endpoint_closed``, ``version_missing``, ``size_unknown``, ``ports_exhausted``, ``uids_exhausted``,
        ``host_short_of_disk``, ``directory_failed``.
        """
        group = policy.check_create(caller, wish.group, self._settings, self._directory)
        wish = replace(wish, endpoint_url=self._endpoint(wish.endpoint_url), size=sizes.chosen(self._settings, wish.size).name)
        egress.check_endpoint(self._settings, wish.endpoint_url)
        version, revision = versions.schema_revision(self._settings, wish.mlflow_version)
        server = self._new_server(caller, group, wish, version, revision)
        operation = Operation.asked(server, OperationKind.CREATE, by=caller.user, request_id=request_id)
        try:
            with self._registry.session() as session:
                namesake = find(session, group.name, wish.env_name)
                if namesake is not None:
                    raise policy.unseen(caller, namesake) or taken(namesake)
                bounds.check_create(session, self._settings, group)
                server.port = portpool.allocate(session, self._settings, server.id)
                server.uid = uidpool.allocate(session, self._settings)
                session.add(server)
                session.flush()
                session.add(operation)
                audit.record(session, caller=caller, action=OperationKind.CREATE, server=server, operation=operation)
        except IntegrityError as error:  # where two writers are possible at once, the index decides
            if "one_name_per_group" in str(error.orig) or "env_name" in str(error.orig):
                raise taken(server) from error
            raise
        self._kick.send()
        return operation

    def start(self, ask: Ask) -> Operation:
        """Errors: as ``policy.refusal``, ``no_such_server``, ``server_replaced``."""

        def change(server: Server) -> None:
            server.desired = Desired.RUNNING

        return self._change(ask, OperationKind.START, change)

    def stop(self, ask: Ask) -> Operation:
        """Errors: as ``start``."""

        def change(server: Server) -> None:
            server.desired = Desired.STOPPED

        return self._change(ask, OperationKind.STOP, change)

    def delete(self, ask: Ask, *, damaged: bool = False) -> Operation:
        """``damaged``: a database that cannot be copied is kept as it is; a delete under way that does not keep it so is another one
        (``server_busy``). Errors: as ``start``.
        """

        def change(server: Server) -> str:
            payload = self._encrypted({"before": server.desired, "damaged": damaged})  # what it is again where the delete fails
            server.desired, server.status = Desired.ABSENT, Status.DELETING
            return payload

        operation = self._change(ask, OperationKind.DELETE, change)
        if damaged and not self._decrypted(operation.payload)["damaged"]:
            raise ServiceError("server_busy", kind=OperationKind.DELETE)
        return operation

    def restore(self, ask: Ask) -> Operation:
        """Undo the delete of that server, or the latest of that name. Errors: as ``start``, ``nothing_to_restore``, as ``taken``,
        ``too_many_servers``, ``host_short_of_disk``.
        """

        def change(server: Server) -> str:
            return self._encrypted({"deleted_at": str(server.deleted_at)})  # what it is again where the restore fails

        return self._change(ask, OperationKind.RESTORE, change)

    def purge(self, ask: Ask) -> Operation:
        """Forget a deleted server before its time: that one, or the latest of that name. Admins only. Error too: ``nothing_to_restore``."""
        return self._change(ask, OperationKind.PURGE, lambda _server: None)

    def set_users(self, ask: Ask, users: Sequence[tuple[str, Secret]]) -> Operation:
        """The whole list of BASIC-auth users. Errors: as ``start``, ``too_many_requests``."""
        server = self._check(ask, OperationKind.USERS)  # before the hashes, which cost
        # whatever was pressed, and also before anybody left: NSS does not list everybody who is already noted
        still_known = self._hasher.keeps_one(users, server.users)
        hashed = [asdict(user) for user in self._hasher.hash(users)]
        payload = {"users": hashed, "by": ask.caller.user, "still_known": still_known}
        return self._change(ask, OperationKind.USERS, lambda _server: self._encrypted(payload))

    def set_storage(self, ask: Ask, wish: StorageWish) -> Operation:
        """Other keys or another endpoint for the same bucket. Errors: as ``start``, ``endpoint_fixed``, ``endpoint_closed``."""
        endpoint = self._endpoint(wish.endpoint_url)
        if endpoint is not None:
            egress.check_endpoint(self._settings, endpoint)

        def change(server: Server) -> str:
            return self._encrypted(
                {
                    "access_key_id": wish.key.access_key_id,
                    "secret_access_key": wish.key.secret_access_key.reveal(),
                    "endpoint_url": endpoint or server.endpoint_url,
                    "region": wish.region or server.region,
                }
            )

        return self._change(ask, OperationKind.STORAGE, change)

    def resize(self, ask: Ask, size: str) -> Operation:
        """Another size; a server that runs is restarted. Errors: as ``start``, ``size_unknown``."""
        name = sizes.chosen(self._settings, size).name

        def change(server: Server) -> str | None:
            so = sizes.in_force(self._settings, server.size).name == name
            return None if so else self._encrypted({"becomes": {"size": name}})

        return self._change(ask, OperationKind.RESIZE, change)

    def upgrade(self, ask: Ask, version: str) -> Operation:
        """A newer MLflow. Errors: as ``start``, ``version_missing``, ``version_older``, ``too_many_requests``."""
        version, revision = versions.schema_revision(self._settings, version)
        self._check(ask, OperationKind.UPGRADE)  # before the hash, which costs
        trial = new_trial(self._hasher)

        def change(server: Server) -> str | None:
            if versions.is_older(version, server.mlflow_version):
                raise ServiceError("version_older", version=version, current=server.mlflow_version)
            becomes = {"mlflow_version": version, "schema_revision": revision}
            return None if version == server.mlflow_version else self._encrypted({**trial, "becomes": becomes})

        return self._change(ask, OperationKind.UPGRADE, change)

    def rollback(self, ask: Ask, *, to: str | None = None) -> Operation:
        """The version and database from before the last upgrade; what was written since is kept. ``to``: that version alone. Errors too:
        ``nothing_to_roll_back``, ``rollback_differs``.
        """
        self._check(ask, OperationKind.ROLLBACK)  # before the hash, which costs
        trial = new_trial(self._hasher)

        def change(server: Server) -> str:
            if to not in {None, server.previous_version}:
                raise ServiceError("rollback_differs", env_name=ask.env, now=server.previous_version, asked=to)
            becomes = {"mlflow_version": server.previous_version, "schema_revision": server.previous_revision}
            return self._encrypted({**trial, "becomes": becomes})

        return self._change(ask, OperationKind.ROLLBACK, change)

    def _change(self, ask: Ask, kind: OperationKind, change: Change) -> Operation:
        group_now = policy.group_now(ask.caller, ask.group, self._directory)
        with self._registry.session() as session:
            server, under_way = self._permitted(session, ask, kind, group_now, lock=True)
            if under_way is not None:  # the same was asked already, perhaps by a client that did not hear our answer
                return under_way
            operation = Operation.asked(server, kind, by=ask.caller.user, request_id=ask.request_id)
            if _is_so_already(server, kind):
                return done_already(session, operation)
            operation.payload = change(server)
            if operation.payload is None and kind in _NEED_PAYLOAD:  # it has that size, or that version, already
                return done_already(session, operation)
            session.add(operation)
            audit.record(session, caller=ask.caller, action=kind, server=server, operation=operation)
        self._kick.send()
        return operation

    def _check(self, ask: Ask, kind: OperationKind) -> Server:
        group_now = policy.group_now(ask.caller, ask.group, self._directory)
        with self._registry.reading() as session:
            return self._permitted(session, ask, kind, group_now, lock=False)[0]

    def _permitted(
        self, session: Session, ask: Ask, kind: OperationKind, group_now: int | None, *, lock: bool
    ) -> tuple[Server, Operation | None]:
        server, under_way = permitted(session, ask, kind, group_now=group_now, settings=self._settings, lock=lock)
        if kind == OperationKind.RESTORE and under_way is None:
            namesake = find(session, ask.group, ask.env)
            if namesake is not None:
                raise taken(namesake)
            bounds.check_restore(session, self._settings, Group(name=server.group_name, gid=server.gid))
        return server, under_way

    def _new_server(self, caller: Caller, group: Group, wish: CreateWish, version: str, revision: str) -> Server:
        server_id, settings = new_server_id(), self._settings
        return Server(
            id=server_id,
            group_name=group.name,
            gid=group.gid,
            env_name=wish.env_name,
            created_by=caller.user,
            desired=Desired.RUNNING,
            status=Status.CREATING,
            host=settings.inside_host,
            mlflow_version=version,
            schema_revision=revision,
            idle_seconds=settings.idle_seconds if wish.idle_seconds is None else wish.idle_seconds,
            size=wish.size,
            bucket=wish.bucket,
            prefix=prefix_of(server_id, settings.prefix_root),
            endpoint_url=wish.endpoint_url or settings.endpoint_url,
            region=wish.region or settings.region,
            artifact_access=wish.artifact_access or settings.artifact_access,
            access_key_id=wish.key.access_key_id,
            secret_access_key=self._keyring.encrypt(wish.key.secret_access_key),
            box_keys=self._keyring.encrypt(new_box_keys()),
            ticket_keys=self._keyring.encrypt(tickets.new_keys()),
        )

    def _endpoint(self, asked: str | None) -> str | None:
        """The endpoint asked for, as the site writes it. Error: ``endpoint_fixed``."""
        fixed = self._settings.endpoint_url
        if asked is None or fixed is None:
            return asked
        if asked.rstrip("/") != fixed.rstrip("/"):
            raise ServiceError("endpoint_fixed", endpoint=fixed)
        return fixed

    def _encrypted(self, payload: dict[str, object]) -> str:
        return self._keyring.encrypt(Secret(json.dumps(payload)))

    def _decrypted(self, payload: str | None) -> dict[str, object]:
        found: dict[str, object] = json.loads(self._keyring.decrypt(payload or "").reveal())
        return found


def _is_so_already(server: Server, kind: OperationKind) -> bool:
    if kind == OperationKind.START:
        return server.desired == Desired.RUNNING and server.status in {Status.RUNNING, Status.SLEEPING}
    return kind == OperationKind.STOP and server.desired == Desired.STOPPED and server.status == Status.STOPPED
