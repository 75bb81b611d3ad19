"""Keeps the service's parts running: the API (a gunicorn for each listener) and the reconciler. One signal ends all; the servers' boxes
go on.

It holds the lock that makes it the only one of its state, and the listening sockets: while the API restarts, requests wait in the socket's
queue and none is refused.
"""

from __future__ import annotations

import fcntl
import grp
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

from backend import log as logs
from backend.settings import Settings, load

log = logging.getLogger(__name__)
STOP_SECONDS: Final = 30.0
"""What the parts get to end by themselves."""
_FIRST_PAUSE: Final = 1.0
_LAST_PAUSE: Final = 60.0
_WELL_AFTER: Final = 60.0
_BACKLOG: Final = 1024
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class AlreadyRunningError(Exception):
    """Another ``aihub serve`` has this state."""


class CannotListenError(Exception):
    """The socket cannot be made; the message says why and the cure."""


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
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True)
        self.started_at = time.monotonic()
        log.info("%s started (process %d)", self.name, self.process.pid)

    def look(self) -> None:
        """Start it when its time has come; note its end, and wait longer each time that it ends soon."""
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
            return
        status = self.process.poll()
        if status is None:
            return
        lived = time.monotonic() - self.started_at
        self.pause = _FIRST_PAUSE if lived >= _WELL_AFTER else min(self.pause * 2, _LAST_PAUSE)
        log.error("%s ended after %.0f s with status %d; it is started again in %.0f s", self.name, lived, status, self.pause)
        self.process, self.start_at = None, time.monotonic() + self.pause

    def signal(self, number: int) -> None:
        """Send it a signal while it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def become(file: Path) -> NoReturn:
    """Turn this process into the supervisor: what it imported before (to look whether all is well) would stay in memory for months."""
    argv = [sys.executable, "-P", "-m", "backend.supervisor", str(file.absolute())]
    os.execv(sys.executable, argv)  # noqa: S606 (our own interpreter, no shell wanted)


def main(argv: list[str]) -> int:
    """Supervise by the settings of that file. Exit status 1, with a sentence, when that cannot begin."""
    logs.configure()
    try:
        supervise(load(Path(argv[0])), Path(argv[0]))
    except (AlreadyRunningError, CannotListenError) as error:
        sys.stderr.write(f"aihub: {error}\n")
        return 1
    return 0


def supervise(settings: Settings, file: Path) -> None:
    """Run the service until SIGTERM or SIGINT. Errors: ``AlreadyRunningError``, ``CannotListenError``."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    try:
        with alone(settings), _listeners(settings) as listeners:
            parts = [_part(name, file, listeners.get(name)) for name in (*listeners, "reconciler")]
            try:
                _run(parts)
            finally:
                _end(parts)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Hold the state's lock. It goes with the process, however that ends. Error: ``AlreadyRunningError``."""
    path = settings.run_dir / "serve.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"another aihub serve (process {holder}) runs on {settings.state_dir}; stop it first, or use another state_dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _listeners(settings: Settings) -> Iterator[dict[str, socket.socket]]:
    """The listening sockets by the names of their parts. Error: ``CannotListenError``."""
    with ExitStack() as stack:
        found = {"api": stack.enter_context(_listening(settings))}
        for name, address in (("munge", settings.munge_listen), ("token", settings.token_listen)):
            if address is not None:
                found[name] = stack.enter_context(_tcp(f"{name}_listen", address))
        yield found


def _tcp(setting: str, address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CannotListenError(f"{setting}: {address} cannot be used ({error.strerror}); free that port, or name another one") from None
    log.info("listening on %s", address)
    return listener


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket. It gets its mode before it gets its name, and replaces a dead one by rename. Error: ``CannotListenError``."""
    path = settings.socket
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and not path.is_socket():
            raise CannotListenError(f"{path} is there and no socket; remove it, or name another place in the setting socket")
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotListenError(
            f"{path.parent} cannot be used ({error.strerror}); make it for the service's account, or set socket"
        ) from None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = Path(f"/proc/self/fd/{folder}/.{path.name[:60]}.{os.getpid()}")  # short, however deep the folder lies
    try:
        try:
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            _open_to_users(new, settings)
            listener.listen(_BACKLOG)
            new.rename(new.with_name(path.name))
        except OSError as error:
            raise CannotListenError(f"the socket {path} cannot be made ({error.strerror}); see its folder's owner and mode") from None
        log.info("listening on %s", path)
        yield listener
        path.unlink(missing_ok=True)
    finally:
        listener.close()
        os.close(folder)


def _open_to_users(path: Path, settings: Settings) -> None:
    if settings.socket_group is None:
        path.chmod(0o666)
        return
    try:
        gid = grp.getgrnam(settings.socket_group).gr_gid
    except KeyError:
        raise CannotListenError(f"socket_group: there is no group {settings.socket_group}; name one that exists, or leave it out") from None
    os.chown(path, -1, gid)
    path.chmod(0o660)


def _part(name: str, file: Path, listener: socket.socket | None) -> _Part:
    descriptor = listener.fileno() if listener is not None else None
    argv = [sys.executable, "-P", "-m", "backend.serve", name, str(file.absolute()), *([str(descriptor)] if descriptor is not None else [])]
    return _Part(name=name, argv=argv, listener=descriptor)


def _run(parts: list[_Part]) -> None:
    while True:
        for part in parts:
            part.look()
        waits = [part.start_at - time.monotonic() for part in parts if part.process is None]
        found = signal.sigtimedwait({*_ENDING, signal.SIGCHLD}, max(0.0, min([*waits, 3600.0])))
        if found is not None and found.si_signo in _ENDING:
            log.info("%s: the service ends; tracking servers go on running", signal.Signals(found.si_signo).name)
            return


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
