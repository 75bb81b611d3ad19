"""The process runtime: a box as plain processes in a session of their own. It keeps no groups apart: for demos, development and hosts
of one group.

What runs is read from the locks and from ``/proc`` each time, so a service that was restarted finds its boxes as they are.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from backend.atomic import is_full
from backend.domain import BoxState, Observation, SizeClass
from backend.errors import ServiceError
from backend.i18n import Told
from backend.runtimes.boxlogs import telling
from backend.runtimes.health import ask
from backend.runtimes.proctable import GUARD_MODULE, MIGRATE_MODULE, guard_pid, processes_of

LOCK_SECONDS: Final = 30.0
"""Within this the guard must have taken its lock, also on a host that is very busy."""
KILL_SECONDS: Final = 10.0
LAST_MOMENT_SECONDS: Final = 2.0
_POLL: Final = 0.02
_LISTEN: Final = re.compile(r"^ *listen (?P<address>\S+):(?P<port>\d{1,5})\b", re.MULTILINE)
_LOGS: Final = ("guard.out", "guard.log", "nginx-error.log", "mlflow.log")
_TAIL_BYTES: Final = 65536
_ENVIRONMENT: Final = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"})


class ProcessRuntime:
    """Boxes below ``servers_dir``, run by the environments below ``envs_dir``. Implements the port ``Runtime``.

    ``environment`` is the service's own; of it only the search path, language and time zone reach a box's guard.
    """

    name = "process"
    isolates = False

    def __init__(self, *, servers_dir: Path, envs_dir: Path, environment: Mapping[str, str]) -> None:
        self._servers = servers_dir
        self._envs = envs_dir
        self._environment = {name: value for name, value in environment.items() if name in _ENVIRONMENT}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *, server_id: str, directory: Path, mlflow_version: str, size: SizeClass) -> None:  # noqa: ARG002 (the port's)
        """See the port. Plain processes have no limits: of ``size`` only what stands in the box's settings counts.

        What a killed guard left behind is removed first: its nginx would hold the port, its MLflow the database.
        """
        directory = directory.resolve()
        self._reap(server_id)
        if guard_pid(directory) is not None:
            return
        python = self._python(mlflow_version)
        with _refusal_is("box_failed_to_start"):
            self._end_all(server_id, directory)
            child = self._launch([str(python), "-P", "-m", GUARD_MODULE, str(directory)], directory)
        self._children[server_id] = child
        _wait_until(lambda: guard_pid(directory) is not None or child.poll() is not None, LOCK_SECONDS)
        # a child that ended because another guard, started by a service that was killed since, was first: that one is as good
        if guard_pid(directory) is None:
            self._end_all(server_id, directory)
            raise ServiceError("box_failed_to_start", log=self._logs(directory, 40), why=_last_words(directory) or "it did not come up")

    def migrate(self, *, server_id: str, directory: Path, mlflow_version: str, timeout: float) -> None:
        """See the port. A migration that a killed service left running is ended first."""
        directory = directory.resolve()
        python = self._python(mlflow_version)
        argv = [str(python), "-P", "-m", MIGRATE_MODULE, str(directory / "data" / "mlflow.db")]
        environment = {**self._environment, "TMPDIR": str(directory / "data"), "HOME": str(directory / "data")}
        try:
            with _refusal_is("migration_failed", version=mlflow_version):
                self._end_all(server_id, directory)
                done = subprocess.run(
                    argv,
                    cwd=directory / "data",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            late = Told("it did not end within {seconds} seconds", seconds=f"{timeout:g}")
            raise ServiceError("migration_failed", version=mlflow_version, why=late) from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            why = lines[-1] if lines else Told("it ended with status {status}", status=done.returncode)
            raise ServiceError("migration_failed", version=mlflow_version, why=why, log="\n".join(lines[-40:]) or None)

    def stop(self, *, server_id: str, directory: Path, timeout: float) -> None:
        """See the port."""
        directory = directory.resolve()
        _terminate(directory, timeout)
        self._end_all(server_id, directory)

    def observe(self, *, server_id: str, directory: Path, address: tuple[str, int]) -> Observation:
        """See the port."""
        directory = directory.resolve()
        self._reap(server_id)
        if guard_pid(directory) is None:
            return Observation(state=BoxState.ABSENT, detail=_last_words(directory))
        return ask(server_id, _listens(directory, address))

    def running(self) -> Sequence[str]:
        """See the port."""
        locks = self._servers.glob("*/run/guard.lock")
        return sorted(lock.parent.parent.name for lock in locks if guard_pid(lock.parent.parent) is not None)

    def logs(self, *, server_id: str, directory: Path, lines: int) -> str:  # noqa: ARG002 (the port's)
        """See the port."""
        return self._logs(directory, lines)

    @staticmethod
    def _logs(directory: Path, lines: int) -> str:
        tails = {name: _tail(directory / "log" / name, lines) for name in _LOGS}
        return "\n".join(f"== {name}\n" + "\n".join(tail) for name, tail in tails.items() if tail)

    def _python(self, mlflow_version: str) -> Path:
        """The interpreter of that version's environment. Error: ``version_missing``."""
        python = self._envs / f"mlflow-{mlflow_version}" / "bin" / "python"
        if not os.access(python, os.X_OK):
            raise ServiceError("version_missing", version=mlflow_version)
        return python

    def _launch(self, argv: list[str], directory: Path) -> subprocess.Popen[bytes]:
        """A session of its own: no signal that the service gets reaches it, and the service's end is not its end."""
        log = directory / "log"
        log.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(log / "guard.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            return subprocess.Popen(
                argv,
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                close_fds=True,
                start_new_session=True,
                umask=0o077,
            )

    def _reap(self, server_id: str) -> None:
        """While the service lives it is its boxes' parent, and takes note of their end; afterwards init is and does."""
        child = self._children.get(server_id)
        if child is not None and child.poll() is not None:
            self._children.pop(server_id, None)

    def _collect(self, server_id: str) -> None:
        """Take note of the end of a process that has let go of all its files: it has ended or ends in a moment."""
        child = self._children.pop(server_id, None)
        if child is None:
            return
        try:
            child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServiceError("box_failed_to_stop", why=Told("its process {pid} does not end", pid=child.pid)) from None

    def _end_all(self, server_id: str, directory: Path) -> None:
        """Kill what is left of the box. Error: ``box_failed_to_stop``."""

        def nothing_left() -> bool:
            left = processes_of(directory)
            for process in left:
                _signal(process.pid, signal.SIGKILL)
            return not left

        if not _wait_until(nothing_left, KILL_SECONDS):
            pids = ", ".join(str(process.pid) for process in processes_of(directory))
            raise ServiceError("box_failed_to_stop", why=Told("its processes {pids} cannot be killed", pids=pids))
        # a guard that is just ending has let go of its files already, and of its lock in a moment
        if not _wait_until(lambda: guard_pid(directory) is None, LAST_MOMENT_SECONDS):
            why = Told("process {pid}, which is not ours to end, holds its lock", pid=guard_pid(directory))
            raise ServiceError("box_failed_to_stop", why=why)
        self._collect(server_id)


@contextmanager
def _refusal_is(code: str, **params: str) -> Iterator[None]:
    """What the machine refuses (one more process, memory, a file) is that failure, with its word. A full disk passes: who called knows what
    was being done.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise
        raise ServiceError(code, why=error.strerror, **params) from error


def _terminate(directory: Path, timeout: float) -> None:
    """Ask the guard to end and wait for it. By a handle rather than by number, which could be another's at the next moment."""
    pid = guard_pid(directory)
    if pid is None:
        return
    with ExitStack() as stack:
        try:
            handle = os.pidfd_open(pid)
            stack.callback(os.close, handle)
            if guard_pid(directory) != pid:
                return
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(timeout * 1000)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _listens(directory: Path, wished: tuple[str, int]) -> tuple[str, int]:
    """Where a box that runs can be asked: it takes another address only when it starts. Before nginx has its configuration, as wished."""
    try:
        found = _LISTEN.search((directory / "run" / "nginx.conf").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return wished
    return (found["address"].strip("[]"), wished[1]) if found and int(found["port"]) == wished[1] else wished


def _last_words(directory: Path) -> str | None:
    """Why the guard ended, as it said itself; else what Python said when it could not even begin."""
    lines = _tail(directory / "log" / "guard.out", 1) or _tail(directory / "log" / "guard.log", 1)
    return lines[-1] if lines else None


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return telling(file.read().decode(errors="replace").splitlines())[-lines:]
    except FileNotFoundError:
        return []
