"""Keeps the service's parts running: the API (a gunicorn for each listener) and the reconciler. One signal ends all; the servers' boxes
go on.

Both kinds can be run apart (``--part web``, ``--part reconciler``), so that what answers requests need not be able to use Docker.

It holds the lock that makes it the only one of its state, and the listening sockets: while the API restarts, requests wait in the socket's
queue and none is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from mlwf.i18n import current_language

from backend import log as logs
from backend.i18n import _, speak
from backend.listeners import CannotListenError, listeners
from backend.settings import Settings, environment
from backend.settings_file import load

log = logging.getLogger("backend.serving.supervisor")  # this module is the program itself, whose own name is another
RUNS: Final = {"all": ("web", "reconciler"), "web": ("web",), "reconciler": ("reconciler",)}
"""What `--part` names: `web` answers requests, on every listener."""
STOP_SECONDS: Final = 30.0
"""What the parts get to end by themselves."""
_FIRST_PAUSE: Final = 1.0
_LAST_PAUSE: Final = 60.0
_WELL_AFTER: Final = 60.0
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class AlreadyRunningError(Exception):
    """Another ``aihub serve`` has this state."""


@dataclass
class _Part:
    """One part, with its process and when it may be started (again)."""

    name: str
    argv: list[str]
    listener: int | None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause: float = field(default=_FIRST_PAUSE)

    def start(self) -> None:
        """In a session of its own, so that a Ctrl-C reaches it through us alone."""
        descriptors = () if self.listener is None else (self.listener,)
        variables = {name: value for name, value in environment().items() if name != "NOTIFY_SOCKET"}  # gunicorn would speak for us
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True, env=variables)
        self.started_at = time.monotonic()
        log.info("%s started (process %d)", self.name, self.process.pid)

    def look(self) -> None:
        """Start it when its time has come; note its end, and wait longer each time that it ends soon."""
        if self.process is None:
            self._start_in_time()
            return
        status = self.process.poll()
        if status is None:
            return
        lived = time.monotonic() - self.started_at
        self._wait(lived)
        log.error("%s ended after %.0f s with status %d; it is started again in %.0f s", self.name, lived, status, self.pause)

    def _start_in_time(self) -> None:
        if time.monotonic() < self.start_at:
            return
        try:
            self.start()
        except OSError as error:  # no process or no memory to be had: the other parts, and the sockets, are ours to hold
            self._wait(0.0)
            log.error("%s cannot be started (%s); it is tried again in %.0f s", self.name, error, self.pause)  # noqa: TRY400 (a sentence)

    def _wait(self, lived: float) -> None:
        self.pause = _FIRST_PAUSE if lived >= _WELL_AFTER else min(self.pause * 2, _LAST_PAUSE)
        self.process, self.start_at = None, time.monotonic() + self.pause

    def signal(self, number: int) -> None:
        """Send it a signal while it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def become(file: Path, part: str) -> NoReturn:
    """Turn this process into the supervisor: what it imported before (to look whether all is well) would stay in memory for months."""
    argv = [sys.executable, "-P", "-m", "backend.serving.supervisor", part, str(file.absolute())]
    os.execv(sys.executable, argv)  # noqa: S606 (our own interpreter, no shell wanted)


def main(argv: list[str]) -> int:
    """Supervise that part (or ``all``) by the settings of that file. Exit status 1, with a sentence, when that cannot begin."""
    settings = load(Path(argv[1]))
    logs.configure(settings.log_format)
    if settings.log_format == "text":  # somebody may sit before it, who is told in their language why it cannot begin
        speak(current_language())
    try:
        supervise(settings, Path(argv[1]), RUNS[argv[0]])
    except (AlreadyRunningError, CannotListenError) as error:
        if settings.log_format == "text":
            sys.stderr.write(f"aihub: {error}\n")
        else:
            log.error("%s", error)  # noqa: TRY400 (a traceback says nothing here)
        return 1
    return 0


def supervise(settings: Settings, file: Path, runs: tuple[str, ...] = RUNS["all"]) -> None:
    """Run these until SIGTERM or SIGINT. Errors: ``AlreadyRunningError``, ``CannotListenError``."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    try:
        with ExitStack() as stack:
            for each in runs:
                stack.enter_context(alone(settings, each))
            listening = stack.enter_context(listeners(settings)) if "web" in runs else {}
            names = [*listening, *(["reconciler"] if "reconciler" in runs else [])]
            parts = [_part(name, file, listening.get(name)) for name in names]
            try:
                _run(parts)
            finally:
                _end(parts)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def alone(settings: Settings, part: str) -> Iterator[None]:
    """Hold the lock of that part of the state. It goes with the process, however that ends. Error: ``AlreadyRunningError``."""
    path = settings.run_dir / f"serve-{part}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or _("unknown")
            told = _(
                "another aihub serve (process {holder}) runs on {path}; stop it first, or use another state_dir",
                holder=holder,
                path=settings.state_dir,
            )
            raise AlreadyRunningError(told) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _part(name: str, file: Path, listener: socket.socket | None) -> _Part:
    descriptor = listener.fileno() if listener is not None else None
    argv = [
        sys.executable,
        "-P",
        "-m",
        "backend.serving.serve",
        name,
        str(file.absolute()),
        *([str(descriptor)] if descriptor is not None else []),
    ]
    return _Part(name=name, argv=argv, listener=descriptor)


def _run(parts: list[_Part]) -> None:
    told = False
    while True:
        for part in parts:
            part.look()
        if not told:
            told = True
            _tell_systemd("READY=1")  # requests wait in the sockets' queues from now on
        waits = [part.start_at - time.monotonic() for part in parts if part.process is None]
        found = signal.sigtimedwait({*_ENDING, signal.SIGCHLD}, max(0.0, min([*waits, 3600.0])))
        if found is not None and found.si_signo in _ENDING:
            _tell_systemd("STOPPING=1")
            log.info("%s: the service ends; tracking servers go on running", signal.Signals(found.si_signo).name)
            return


def _tell_systemd(state: str) -> None:
    """sd_notify(3), where a unit of Type=notify started us."""
    address = environment().get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            log.warning("systemd was not told that %s: %s", state, error.strerror)


def _end(parts: list[_Part]) -> None:
    for part in parts:
        part.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for part in parts:
        if part.process is None:
            continue
        try:
            part.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("%s does not end and is killed", part.name)  # noqa: TRY400 (a traceback says nothing here)
            part.process.kill()
            part.process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
