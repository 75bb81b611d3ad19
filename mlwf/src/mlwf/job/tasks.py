"""The tasks of `mlwf job`: a server session, an export, an image."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlwf import auth_file
from mlwf.answers import Operation, Server
from mlwf.aws_profiles import key_pair
from mlwf.client import Client
from mlwf.ending import Held, Terminated
from mlwf.errors import MlwfError, WrongUseError, with_cure
from mlwf.export.registry import ModelVersion
from mlwf.export.run import Wanted, export
from mlwf.i18n import _
from mlwf.job.follow import follow
from mlwf.job.progress import Progress
from mlwf.job.request import JobRequest
from mlwf.lease import LEAST_SECONDS, MOST_SECONDS, SECONDS, HeldLease, ensure_up
from mlwf.new_token import make_token
from mlwf.wire.service_errors import ServiceError

TOKEN_SECONDS = 86400
"""Of an export where no user is registered; it is revoked at the end."""
LAST_SECONDS = 60
"""A session ends so long before the scheduler would kill it, so that its lease is ended and not left to run out."""
LOGIN = frozenset({"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"})
Open = Callable[[], Client]


def run(request: JobRequest, *, environ: Mapping[str, str], open_client: Open, progress: Progress, warn: Callable[[str], None]) -> None:
    """Does what was asked for. Raises MlwfError."""
    if request.task == "image" and not request.from_registry:
        more: dict[str, str] = {}
        if request.group_name and request.env_name and request.model_package.startswith("s3://"):
            with open_client() as client:
                more = _store_of(client.server(request.group_name, request.env_name))
        _image(request, {**environ, **more}, progress)
        return
    with open_client() as client:
        server = _find(client, request, progress)
    held = HeldLease(
        open_client,
        server.group,
        server.env_name,
        seconds=_lease_seconds(environ),
        at_end=request.at_end or "keep",
        note=request.note,
        server_id=server.id,
        warn=warn,
    )
    with held:
        with progress.step("start", _("Start the server")), open_client() as client:
            server = ensure_up(client, server.group, server.env_name, on_change=lambda operation: _say(progress, operation))
            progress.tell(server=card(server))
        if request.task == "export":
            with progress.step("export", _("Export the model")), _login(server, environ, open_client, warn) as more:
                _export(request, server, more, progress)
        elif request.task == "image":
            with _login(server, environ, open_client, warn) as more:
                _image(request, {**more, "MLFLOW_TRACKING_URI": server.inside_url or ""}, progress)
        else:
            _session(request, progress)


def _lease_seconds(environ: Mapping[str, str]) -> int:
    text = environ.get("MLWF_LEASE_SECONDS") or str(SECONDS)
    if not text.isdecimal() or not LEAST_SECONDS <= int(text) <= MOST_SECONDS:
        cure = _("Set it to a number of seconds from {least} to {most}.").format(least=LEAST_SECONDS, most=MOST_SECONDS)
        raise WrongUseError(_("{name} cannot be used").format(name="MLWF_LEASE_SECONDS"), cure=cure)
    return int(text)


def card(server: Server) -> dict[str, Any]:
    """What people need of a server: never a secret."""
    names = ("group", "env_name", "status", "inside_url", "outside_url", "auth_file")
    facts: dict[str, Any] = {name: getattr(server, name) for name in names}
    return {**facts, "users": server.users.names, "warnings": [with_cure(each.detail, each.cure) for each in server.warnings]}


def _find(client: Client, request: JobRequest, progress: Progress) -> Server:
    """The server; made where there is none and a bucket was chosen."""
    with progress.step("find", _("Find the server")):
        try:
            return client.server(request.group_name, request.env_name)
        except ServiceError as error:
            if error.code != "no_such_server" or request.task != "server":
                raise
        if not request.cloud_storage_bucket_name or not request.profile:
            what = _("There is no server {name} yet").format(name=f"{request.group_name}/{request.env_name}")
            raise WrongUseError(what, cure=_("Choose a bucket and a profile too, and it is created."))
    with progress.step("create", _("Create the server")):
        pair = key_pair(request.profile)
        operation = client.create(
            group=request.group_name,
            env_name=request.env_name,
            bucket=request.cloud_storage_bucket_name,
            access_key_id=pair.access_key_id,
            secret_access_key=pair.secret_access_key,
        )
        client.wait(operation, lambda latest: _say(progress, latest))
        server = client.server(request.group_name, request.env_name)
    try:
        users = auth_file.read_auth_file(Path(server.auth_file))
    except auth_file.AuthFileError as error:
        if not error.missing:
            raise
        return server
    with progress.step("users", _("Register the users of basic_auth.yml")):
        client.wait(client.set_users(server.group, server.env_name, users))
    return server


def _say(progress: Progress, operation: Operation) -> None:
    running = [step.words for step in operation.steps if step.state == "running"]
    progress.detail(running[-1] if running else operation.message)


def _session(request: JobRequest, progress: Progress) -> None:
    """Vouch for the server until the hours are over, or somebody ends the session: both are good ends."""
    # Held: whoever reads that it holds may end it before the next line here.
    with Held() as held, progress.step("hold", _("The server is held")):
        try:
            with held.lifted():
                threading.Event().wait(max(int(request.hours) * 3600 - LAST_SECONDS, 1))
        except (Terminated, KeyboardInterrupt):
            progress.detail(_("The session was ended."))


class _Reporter:
    """Tells an export's way to the progress file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def found(self, version: ModelVersion) -> None:
        self._progress.detail(_("Found {name}, version {number}").format(name=version.name, number=version.number))

    def begins(self, files: int, size: int | None, through: str) -> None:
        words = {"store": _("{files} files, from the object store"), "server": _("{files} files, through the server")}[through]
        self._progress.tell(bytes=0, total=size)
        self._progress.detail(words.format(files=files))

    def arrived(self, count: int) -> None:
        self._progress.arrived(count)


def _export(request: JobRequest, server: Server, environ: Mapping[str, str], progress: Progress) -> None:
    wanted = Wanted(server.inside_url or "", request.model_name, request.model_version, None, _output(request))
    done = export(wanted, environ, _Reporter(progress))
    progress.tell(result=str(done.folder.resolve()))


def _store_of(server: Server) -> dict[str, str]:
    """Where the server's artifacts lie: what a site exports for all of its jobs is the address of its own store, which another may have."""
    endpoint = server.storage.endpoint_url
    return {"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}


@contextlib.contextmanager
def _login(server: Server, environ: Mapping[str, str], open_client: Open, warn: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """The variables with the server's store and a login of its own, and no other that the environment has too.

    User and password from the server's auth file, read as the caller; where there is none, a token that ends with the block, or by
    itself where the service does not hear that: what was made meanwhile is made.
    """
    others = {name: value for name, value in environ.items() if name not in LOGIN} | _store_of(server)
    try:
        user = auth_file.read_auth_file(Path(server.auth_file))[0]
    except auth_file.AuthFileError as error:
        if not error.missing:
            raise
    else:
        yield others | {"MLFLOW_TRACKING_USERNAME": user.user_name, "MLFLOW_TRACKING_PASSWORD": user.password.reveal()}
        return
    with open_client() as client:
        token, secret = make_token(client, server.group, server.env_name, seconds=TOKEN_SECONDS, name="mlwf job", wait=True)
    try:
        yield others | {"MLFLOW_TRACKING_TOKEN": secret.reveal()}
    finally:
        try:
            with open_client() as client:
                client.revoke_token(server.group, server.env_name, token.id)
        except MlwfError as error:
            warn(_("The token {id} could not be revoked ({error}); it ends within a day.").format(id=token.id, error=error))


def _output(request: JobRequest) -> Path:
    folder = Path(request.output_dir or ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlwfError(
            _("{where} cannot be made").format(where=folder), error.strerror or "", _("Choose another folder for the result.")
        ) from error
    return folder


def _image(request: JobRequest, environ: Mapping[str, str], progress: Progress) -> None:
    """`mlwf_create_image` as a program: it is long, and may be killed, without this one's progress being lost."""
    with progress.step("image", _("Create the image")):
        argv = [sys.executable, "-c", "from mlwf.cli.program import create_image; create_image()", "--json"]
        argv += ["--model-pkg-url", request.model_package, "--base-container-url", request.base_container_url]
        argv += ["--output-dir", str(_output(request))]
        progress.tell(result=follow(argv, environ, progress)["folder"])
