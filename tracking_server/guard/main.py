"""The guard put together: one box, from its start to its end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from tracking_server import layout
from tracking_server.guard import child
from tracking_server.guard.access import Access
from tracking_server.guard.answers import Answers
from tracking_server.guard.http import accept_all
from tracking_server.guard.log import Log
from tracking_server.guard.logs import LogKeeper
from tracking_server.guard.loop import READ, Loop
from tracking_server.guard.mlflow import Launch, MlflowProcess
from tracking_server.guard.nginx_process import NginxError, NginxProcess
from tracking_server.guard.sign_in import SignIn
from tracking_server.guard.spawner_client import SpawnerStarter
from tracking_server.guard.starters import LocalStarter, Starter
from tracking_server.guard.watch import Watch
from tracking_server.nginx import nginx_text
from tracking_server.settings import Settings, SettingsError, parse

BACKLOG = 4096
FILES = 16384
PORT_SECONDS = 2.0
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_FIXED = ("server_id", "mlflow_version")


class CannotRunError(Exception):
    """The box cannot run; the text says why and what to do."""


class Guard:
    def __init__(self, box: layout.Box, spawner: str | None) -> None:
        self._box = box
        self.log = Log(box.log / "guard.log")
        self._loop = Loop()
        self._access = Access(self._loop, box, settings=lambda: self._settings, log=self.log)
        # before the first look at any of them: what is replaced meanwhile is another file afterwards
        self._watch = Watch(
            self._loop,
            {
                **self._access.files,
                box.settings: self._read_settings,
                box.s3_credentials: lambda: self._restart_mlflow("new object store keys"),
                box.keys: lambda: self._restart_mlflow("new keys"),
            },
            log=self.log,
        )
        self._settings = self._first_settings()
        self._next_listen = self._settings.listen
        self._check_version()
        self._empty_folders()
        self._exit_status = 0
        self._ending = 0
        self._watch.take_over(self._access.files)
        self._starter = _starter(self._loop, box, spawner)
        self._mlflow = self._mlflow_process()
        answers = Answers(
            settings=lambda: self._settings,
            config=self._config_taken_over,
            mlflow=self._mlflow,
            schemes=self._access.schemes,
            closed=self._access.closed,
            paths=SignIn(self._access.sessions, settings=lambda: self._settings, closed=self._access.closed, log=self.log).paths,
        )
        guard_socket = self._listen(layout.GUARD_SOCKET)
        self._loop.watch(guard_socket, READ, lambda: accept_all(self._loop, guard_socket, answers))
        self._nginx = NginxProcess(self._loop, self.log, box.log / "nginx-error.log", child.environment(str(box.run)))
        self._nginx.on_hopeless = self._hopeless

    def _mlflow_process(self) -> MlflowProcess:
        return MlflowProcess(
            loop=self._loop,
            listener=self._listen(layout.MLFLOW_SOCKET),
            log=self.log,
            output=self._mlflow_log,
            launch=self._launch,
            starter=self._starter,
        )

    def run(self) -> int:
        """Until a signal or the end of nginx; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._stop)
        try:
            self._nginx.install(self._settings, self._nginx_text())
            self._check_port()
            self._nginx.start()
        except NginxError as error:
            raise CannotRunError(str(error)) from None
        self._logs = LogKeeper(self._loop, self._box.log, reopen=self._nginx.reopen_logs, log=self.log)
        self._mlflow.sleep()
        if self._settings.genai_jobs:
            self._mlflow.wake()  # some may wait
        else:
            self._starter.look(lambda there: None if there else self._mlflow.wake())
        self.log(f"the guard runs, process {os.getpid()}")
        self._loop.run()
        return self._exit_status

    def _first_settings(self) -> Settings:
        try:
            return parse(self._box.settings.read_bytes())
        except (OSError, SettingsError) as error:
            raise CannotRunError(str(error)) from None

    def _check_version(self) -> None:
        note = Path(sys.prefix) / "version.json"
        try:
            installed = json.loads(note.read_bytes())["mlflow_version"]
        except (OSError, ValueError, KeyError):
            raise CannotRunError(f"{note} is missing: make the environment with tracking_server/install") from None
        if installed != self._settings.mlflow_version:
            wanted = self._settings.mlflow_version
            raise CannotRunError(f"the server wants MLflow {wanted} and this environment has {installed}: start it with that version's")

    def _empty_folders(self) -> None:
        """Of what a killed nginx left; and nobody is asked where the last one listened."""
        Path(layout.NGINX_CONF).unlink(missing_ok=True)
        for entry in self._box.run.glob("nginx-*"):
            shutil.rmtree(entry)

    def _listen(self, name: str) -> socket.socket:
        Path(name).unlink(missing_ok=True)  # a killed guard's; the lock says that nobody else is here
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(name)
        Path(name).chmod(0o600)
        limit = int(_SOMAXCONN.read_text()) if _SOMAXCONN.exists() else BACKLOG
        if limit < BACKLOG:
            self.log(f"only {limit} connections can wait on {name}, not {BACKLOG}: raise net.core.somaxconn")
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    def _check_port(self) -> None:
        """Before nginx does, which says it in its own way. A killed guard's nginx may need a moment to be gone."""
        address, _, port = self._settings.listen.rpartition(":")
        deadline = time.monotonic() + PORT_SECONDS
        while (error := _bind_error(address, int(port))) is not None:
            if error.errno != errno.EADDRINUSE:
                raise CannotRunError(f"cannot listen on {self._settings.listen}: {error.strerror}")
            if time.monotonic() > deadline:
                taken = f"port {port} of {address} is taken by another program: stop that one or give the server another port"
                raise CannotRunError(taken)
            time.sleep(0.05)

    def _nginx_text(self) -> str:
        user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else None
        return nginx_text(self._settings, user=user)

    def _launch(self) -> Launch:
        plan: dict[str, object] = {
            "box": str(self._box.home),
            "settings": self._settings._asdict(),
            "keys": json.loads(self._box.keys.read_bytes()),
            "s3_credentials": self._box.s3_credentials.read_text(),
        }
        return Launch(plan, self._settings.drain_seconds, goes_on=self._settings.genai_jobs)

    def _mlflow_log(self) -> int:
        return os.open(self._box.log / "mlflow.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _read_settings(self) -> str | None:
        before = self._settings
        try:
            self._settings = self._changed_settings()
            self._nginx.install(self._settings, self._nginx_text())
        except (OSError, SettingsError, NginxError) as error:
            self._settings = before
            return f"the settings stay as they were: {error}"
        if self._settings != before:
            self._restart_mlflow("new settings")
        return None

    def _changed_settings(self) -> Settings:
        settings = parse(self._box.settings.read_bytes())
        changed = [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]
        if changed:
            raise SettingsError(f"{changed[0]} cannot change while the box runs: stop it first")
        listen = self._settings.listen
        if settings.listen not in (listen, self._next_listen):
            self.log(f"listen: {settings.listen} counts from its next start; until then it stays {listen}")
        self._next_listen = settings.listen
        return settings._replace(listen=listen)

    def _config_taken_over(self) -> dict[str, int | None]:
        """Whoever asks has often just replaced a file, and waits for it."""
        self._watch.look()
        return {path.relative_to(self._box.config).as_posix(): when for path, when in self._watch.replaced_at().items()}

    def _restart_mlflow(self, why: str) -> None:
        """What the next MLflow reads when it starts counts as taken over: the one that runs is on its way out."""
        self.log(f"{why}: MLflow is drained and started again")
        self._mlflow.restart()

    def _hopeless(self, reason: str) -> None:
        self.log.last_words(reason)
        self._exit_status = 1
        self._stop()

    def _stop(self) -> None:
        """First nginx, so that what it has accepted can still be answered by MLflow."""
        self._ending += 1
        if self._ending == 1:
            self.log("the guard stops")
            self._loop.later(self._settings.drain_seconds + 5, self._nginx.kill)
            self._nginx.stop(lambda: self._mlflow.stop(self._loop.stop))
        elif self._ending == 3:
            self._nginx.kill()
            self._mlflow.kill()


def _starter(loop: Loop, box: layout.Box, spawner: str | None) -> Starter:
    return LocalStarter(loop, temporary=box.tmp, database=box.database) if spawner is None else SpawnerStarter(loop, spawner)


def main(directory: str, spawner: str | None = None) -> int:
    """Run the box in this directory; returns the exit status as docs/reference/box.md says. `spawner`: the socket of who starts MLflow."""
    box = layout.Box(Path(directory).absolute())
    if not box.settings.parent.is_dir() or not box.settings.exists():
        sys.stderr.write(f"{box.home} is not a box: it has no config/settings.json\n")
        return 2
    os.umask(0o077)
    for folder in (box.run, box.log):
        folder.mkdir(mode=0o700, exist_ok=True)
    os.chdir(box.run)
    if not _take_lock():
        sys.stderr.write(f"another guard runs in {box.home}: stop that one first\n")
        return 1
    _prepare_process()
    try:
        return Guard(box, spawner).run()
    except (CannotRunError, OSError) as error:
        Log(box.log / "guard.log").last_words(str(error))
        return 1


def _bind_error(address: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.strip("[]"), port))
        except OSError as error:
            return error
    return None


def _take_lock() -> bool:
    """Whether it is ours, until this process ends."""
    lock = os.open(layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    with suppress(OSError):  # on a full disk: that it is held says enough
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return True


def _prepare_process() -> None:
    """Standard input is nothing, and as many files as a crowd of connections takes."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
