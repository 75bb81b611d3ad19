"""The client of the service's API (docs/reference/api.md): used by the command line, the console and job scripts alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import requests
from requests.auth import AuthBase

from mlwf.answers import Answer, Health, Json, Lease, Me, Operation, Server, Ticket, Token
from mlwf.i18n import current_language, use_language
from mlwf.secret import Secret
from mlwf.settings import environment
from mlwf.user import User
from mlwf.wire.connection import DEFAULT_ADDRESS, Connection, connection
from mlwf.wire.routes import lease_path, server_path
from mlwf.wire.service_errors import (
    OperationFailedError,
    ServiceError,
    ServiceUnavailable,
    StillRunningError,
    Understanding,
    answer_of,
    broke_off,
    passes,
    unavailable,
)
from mlwf.wire.transport import open_session, seconds_for
from mlwf.wire.trust import trusted

__all__ = ["Client", "OperationFailedError", "ServiceError", "ServiceUnavailable", "StillRunningError", "User"]
T = TypeVar("T", bound=Answer)


class Client:
    """One caller's connection to the service.

    `address`: `unix:///path/service.sock` or `https://host`. `auth` proves the caller where the listener's scheme needs it; it is asked
    anew for every attempt. `ca_file`: who vouches for the service's certificate (default: `wire.trust`). `language`: of the service's
    texts and of our own (default by LC_ALL, LANG). `timeout`: seconds per request (default: longer for a change). `request_id`, while it
    is set, goes with each request, into the service's log, operations and audit; else the service makes one.

    Every method raises ServiceUnavailable or ServiceError. What changes a server answers with the operation, before that is done: `wait`
    for its end. `server_id`: of the server that is meant, which another one of that name is not.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        language: str | None = None,
        timeout: float | None = None,
        auth: AuthBase | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.address = address
        self.language = language or current_language()
        self.timeout = timeout
        self.request_id: str | None = None
        self._session, self._base = open_session(address)
        self._auth, self._verify = auth, trusted(ca_file)
        self._session.headers.update({"Accept": "application/json", "Accept-Language": self.language, "User-Agent": "mlwf"})

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, *, language: str | None = None, timeout: float | None = None
    ) -> Self:
        """The service of the environment and the settings files, else the one on this host. Raises MlwfError for wrong settings."""
        with use_language(language):
            found = connection(environment() if environ is None else environ)
        return cls.to(found, language=language, timeout=timeout)

    @classmethod
    def to(cls, found: Connection, *, language: str | None = None, timeout: float | None = None) -> Self:
        """The service at the end of a connection."""
        return cls(found.address, language=language, timeout=timeout, auth=found.auth, ca_file=found.ca_file)

    def close(self) -> None:
        """Ends the connection; the client is of no use afterwards."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def health(self) -> Health:
        """How the service is; it asks nobody who they are."""
        return self._get(Health, "/health")

    def me(self) -> Me:
        """Who the caller is to the service, in which groups servers may be created, and what is on offer."""
        return self._get(Me, "/me")

    def servers(self, *, all: bool = False, deleted: bool = False) -> list[Server]:  # noqa: A002  # the API's own word
        """The caller's groups' servers; `all`: every group's (admins); `deleted`: with those that can be restored."""
        query = {name: "true" for name, wanted in (("all", all), ("deleted", deleted)) if wanted}
        return self._all(Server, "servers", self._request("GET", "/servers", query=query))

    def server(self, group: str, env: str) -> Server:
        """One server of the caller's groups (admins: of any group)."""
        return self._get(Server, server_path(group, env))

    def create(
        self,
        *,
        group: str,
        env_name: str,
        bucket: str,
        access_key_id: str,
        secret_access_key: Secret,
        endpoint_url: str | None = None,
        region: str | None = None,
        artifact_access: str | None = None,
        mlflow_version: str | None = None,
        size: str | None = None,
        idle_seconds: int | None = None,
    ) -> Operation:
        """Makes a server; the bucket and the key are tried first. None: the site's default."""
        body: Json = {
            "group": group,
            "env_name": env_name,
            "bucket": bucket,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key.reveal(),
            "endpoint_url": endpoint_url,
            "region": region,
            "artifact_access": artifact_access,
            "mlflow_version": mlflow_version,
            "size": size,
            "idle_seconds": idle_seconds,
        }
        return self._change("POST", "/servers", {name: value for name, value in body.items() if value is not None})

    def delete(self, group: str, env: str, *, server_id: str | None = None) -> Operation:
        """Deletes the server; until `Server.deletion.restorable_until` it can be restored, and its bucket is never touched."""
        return self._change("DELETE", server_path(group, env), only=server_id)

    def start(self, group: str, env: str, *, server_id: str | None = None) -> Operation:
        """Starts a stopped or failed server."""
        return self._change("POST", f"{server_path(group, env)}/start", only=server_id)

    def stop(self, group: str, env: str, *, server_id: str | None = None) -> Operation:
        """Stops the server until it is started again; its requests under way are waited for."""
        return self._change("POST", f"{server_path(group, env)}/stop", only=server_id)

    def restore(self, group: str, env: str, server_id: str | None = None) -> Operation:
        """Undoes the delete of the server with that id; without one, the latest delete of that name."""
        return self._change("POST", f"{server_path(group, env)}/restore", only=server_id)

    def upgrade(self, group: str, env: str, mlflow_version: str, *, server_id: str | None = None) -> Operation:
        """Gives the server a newer MLflow, one of `Server.upgrades`, after a trial on a copy of its database."""
        return self._change("POST", f"{server_path(group, env)}/upgrade", {"mlflow_version": mlflow_version}, only=server_id)

    def rollback(self, group: str, env: str, *, to: str | None = None, server_id: str | None = None) -> Operation:
        """Goes back to `Server.previous`: MLflow and the database from before the last upgrade; `to`: only where it is that version."""
        return self._change("POST", f"{server_path(group, env)}/rollback", only=server_id, mlflow_version=to)

    def resize(self, group: str, env: str, size: str, *, server_id: str | None = None) -> Operation:
        """Gives the server another of `Me.sizes`; one that runs is restarted."""
        return self._change("PUT", f"{server_path(group, env)}/size", {"size": size}, only=server_id)

    def set_users(self, group: str, env: str, users: Sequence[User], *, server_id: str | None = None) -> Operation:
        """Registers the whole list of users; an empty one means that nobody gets in."""
        listed = [{"user_name": each.user_name, "pass": each.password.reveal()} for each in users]
        return self._change("PUT", f"{server_path(group, env)}/users", {"users": listed}, only=server_id)

    def set_storage(
        self,
        group: str,
        env: str,
        *,
        access_key_id: str,
        secret_access_key: Secret,
        endpoint_url: str | None = None,
        region: str | None = None,
        server_id: str | None = None,
    ) -> Operation:
        """Changes the key, or the endpoint, of the server's bucket. The old ones stay in force until the new are proven."""
        secret = secret_access_key.reveal()
        body = {"access_key_id": access_key_id, "secret_access_key": secret, "endpoint_url": endpoint_url, "region": region}
        said = {name: value for name, value in body.items() if value is not None}
        return self._change("PUT", f"{server_path(group, env)}/storage", said, only=server_id)

    def hold_lease(
        self, group: str, env: str, lease_id: str, *, seconds: int, at_end: str = "keep", note: str = "", server_id: str | None = None
    ) -> Lease:
        """Vouches for the server for `seconds` from now, or renews that; `at_end`: `keep` or `stop` it when its last lease is over."""
        body: Json = {"seconds": seconds, "at_end": at_end, "note": note}
        return self._as(Lease, self._request("PUT", lease_path(group, env, lease_id), body=body, query={"server_id": server_id}))

    def end_lease(self, group: str, env: str, lease_id: str) -> list[Lease]:
        """Vouches no longer, and answers the leases that are left. One that is not there has ended."""
        return self._all(Lease, "leases", self._request("DELETE", lease_path(group, env, lease_id)))

    def ticket(self, group: str, env: str) -> Ticket:
        """A sign-in ticket for the caller: good once, for seconds."""
        answer = self._request("POST", f"{server_path(group, env)}/tickets")
        with self._understanding():
            return Ticket(ticket=Secret(answer["ticket"]), user=answer["user"], sign_in_url=answer["sign_in_url"])

    def tokens(self, group: str, env: str) -> list[Token]:
        """All members' bearer tokens of the server, the newest first."""
        return self._all(Token, "tokens", self._request("GET", f"{server_path(group, env)}/tokens"))

    def create_token(self, group: str, env: str, *, seconds: int, name: str = "") -> tuple[Token, Secret]:
        """A bearer token for the caller and this server, and its text, which is shown this once."""
        answer = self._request("POST", f"{server_path(group, env)}/tokens", body={"seconds": seconds, "name": name})
        with self._understanding():
            return Token.from_json(answer["token"]), Secret(answer["secret"])

    def revoke_token(self, group: str, env: str, token_id: str) -> Token:
        """Ends a bearer token: the caller's own, or anybody's for who may set the server's users."""
        return self._as(Token, self._request("DELETE", f"{server_path(group, env)}/tokens/{quote(token_id, safe='')}"))

    def operation(self, id: str) -> Operation:  # noqa: A002  # the API's own word
        """How far the operation is now."""
        return self._get(Operation, f"/operations/{quote(id, safe='')}")

    def wait(
        self,
        operation: Operation,
        on_change: Callable[[Operation], None] | None = None,
        timeout: float = 600.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Operation:
        """Polls until the operation succeeded, and answers it; `on_change` sees it at first and at every change.

        A service that is restarted meanwhile, or cannot answer now, is waited for. Raises OperationFailedError, or StillRunningError
        after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        if on_change:
            on_change(operation)
        quiet = 0.0  # for how long nothing has changed
        while not operation.finished:
            if time.monotonic() >= deadline:
                raise StillRunningError(operation)
            pause = min(max(0.1, quiet / 8), 2.0)  # an end is seen soon, as time goes by in which one waits
            sleep(pause)
            latest = self._look(operation, deadline)
            quiet = 0.0 if latest.raw != operation.raw else quiet + pause
            if on_change and latest.raw != operation.raw:
                on_change(latest)
            operation = latest
        if operation.failed:
            raise OperationFailedError(operation)
        return operation

    def _look(self, operation: Operation, deadline: float) -> Operation:
        try:
            return self.operation(operation.id)
        except (ServiceUnavailable, ServiceError) as error:
            if not passes(error) or time.monotonic() >= deadline:
                raise
            return operation

    def _get(self, kind: type[T], path: str) -> T:
        return self._as(kind, self._request("GET", path))

    def _change(self, method: str, path: str, body: Json | None = None, *, only: str | None = None, **query: str | None) -> Operation:
        return self._as(Operation, self._request(method, path, body=body, query={"server_id": only, **query}))

    def _as(self, kind: type[T], answer: Json) -> T:
        with self._understanding():
            return kind.from_json(answer)

    def _all(self, kind: type[T], name: str, answer: Json) -> list[T]:
        with self._understanding():
            return [kind.from_json(each) for each in answer[name]]

    def _request(self, method: str, path: str, *, body: Json | None = None, query: Mapping[str, str | None] | None = None) -> Json:
        with use_language(self.language):
            try:
                response = self._attempt(method, path, body, query)
            except requests.RequestException as error:
                raise unavailable(error, address=self.address, method=method, timeout=self.timeout) from error
            return answer_of(response, address=self.address)

    def _attempt(self, method: str, path: str, body: Json | None, query: Mapping[str, str | None] | None) -> requests.Response:
        """One request, signed for itself alone. A kept connection may be closed by the other side in the moment in which it is used: what
        changes nothing is asked once more.
        """
        url = f"{self._base}/api/v1{path}"
        headers = {"X-Request-Id": self.request_id} if self.request_id else None
        options: dict[str, Any] = {"json": body, "params": query, "headers": headers, "auth": self._auth, "verify": self._verify}
        options |= {"timeout": seconds_for(method, self.timeout), "allow_redirects": False}
        try:
            return self._session.request(method, url, **options)
        except requests.RequestException as error:
            if method != "GET" or not broke_off(error):
                raise
            return self._session.request(method, url, **options)

    def _understanding(self) -> Understanding:
        return Understanding(self.language)
