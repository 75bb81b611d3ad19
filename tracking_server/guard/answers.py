"""What the guard itself answers, on `guard.sock`: nobody is woken by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tracking_server.guard.http import Handler, Request, Respond, Response
from tracking_server.guard.identity import Outcome, Principal, Scheme, identify
from tracking_server.guard.mlflow import MlflowProcess, State
from tracking_server.settings import Settings

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
_NOT_STORED = (("Cache-Control", "no-store"),)


class Answers:
    """A handler for requests that nginx sends. `settings` gives those in force now, `config` the files that were taken over; `paths`: what
    others answer; `closed`: whether nobody gets in now.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        config: Callable[[], dict[str, int | None]],
        mlflow: MlflowProcess,
        schemes: Sequence[Scheme],
        closed: Callable[[], bool],
        paths: Mapping[str, Handler],
    ) -> None:
        self._settings = settings
        self._config = config
        self._mlflow = mlflow
        self._schemes = schemes
        self._closed = closed
        self._paths: dict[str, Handler] = {
            **paths,
            "/auth": self._auth,
            "/health": lambda _request, respond: respond(Response(200, b"OK", _TEXT)),
            "/version": lambda _request, respond: respond(Response(200, self._settings().mlflow_version.encode(), _TEXT)),
            "/-/health": self._health,
            "/-/info": self._info,
        }

    def __call__(self, request: Request, respond: Respond) -> None:
        answer = self._paths.get(request.path)
        if answer is None:
            respond(Response(404))
        else:
            answer(request, respond)

    def _auth(self, request: Request, respond: Respond) -> None:
        server = ("X-Aihub-Server", self._settings().server_id)

        def tell(outcome: Outcome) -> None:
            if isinstance(outcome, Principal):
                respond(Response(200, b"", (("X-Aihub-Principal", outcome.as_header()), server)))
            elif outcome.foreign:
                respond(Response(403, b"", (("X-Aihub-Foreign", "1"),)))
            elif outcome.why:
                respond(Response(401, b"", (("X-Aihub-Why", outcome.why),)))
            elif outcome.retry_after is None:
                respond(Response(401))
            else:
                # auth_request makes a 500 of any other status, so "too many" is said by a header.
                respond(Response(401, b"", (("X-Aihub-Retry-After", str(outcome.retry_after)),)))

        identify(self._schemes, request, tell, closed=self._closed(), pages=self._settings().pages)

    def _health(self, _request: Request, respond: Respond) -> None:
        config = self._config()  # first: a new file may change all else
        settings, state = self._settings(), self._mlflow.state
        document = {
            "server_id": settings.server_id,
            "state": state.value,
            "mlflow_version": settings.mlflow_version,
            "reason": self._mlflow.reason if state is State.FAILED else None,
            "config": config,
        }
        respond(Response.of_json(document, 503 if state is State.FAILED else 200, _NOT_STORED))

    def _info(self, request: Request, respond: Respond) -> None:
        settings = self._settings()
        names = ("server_id", "mlflow_version", "bucket", "prefix", "endpoint_url", "region", "artifact_access")
        document: dict[str, object] = {name: getattr(settings, name) for name in names}
        document["principal"] = request.headers.get("x-aihub-principal")
        respond(Response.of_json(document, 200, _NOT_STORED))
