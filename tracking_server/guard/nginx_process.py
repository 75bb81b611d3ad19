"""nginx: checked before it is started or reloaded, started again when it dies, gone when the guard is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tracking_server import layout
from tracking_server.guard import child
from tracking_server.guard.loop import Loop
from tracking_server.settings import Settings

# The leash leads nginx's process group and reads a pipe that only the guard holds: however the guard dies, the group ends with it.
_LEASH = "read -r _; kill -KILL 0"
_LONGEST_BACKOFF = 10.0
_STEADY_SECONDS = 10.0


class NginxError(Exception):
    """nginx cannot run; the text says why."""


class NginxProcess:
    """`on_hopeless` is called with a reason when nginx ends before it ever ran steadily."""

    def __init__(self, loop: Loop, log: Callable[[str], None], error_log: Path, environment: dict[str, str]) -> None:
        self._loop = loop
        self._log = log
        self._error_log = error_log
        self._environment = environment
        self._program = "nginx"
        self._master = 0
        self._leash = 0
        self._leash_pipe = -1
        self._started_at = 0.0
        self._failures = 0
        self._stopping: Callable[[], None] | None = None
        self.on_hopeless: Callable[[str], None] = lambda _reason: None

    def install(self, settings: Settings, text: str) -> bool:
        """Put a configuration in place if nginx takes it, and tell a running nginx. False when it is the one in place.

        Raises:
            NginxError: nginx refuses it, or is not there; the one in place stays.
        """
        self._program = settings.nginx
        place = Path(layout.NGINX_CONF)
        if self._master and place.exists() and place.read_text() == text:
            return False
        part = Path(f"{layout.NGINX_CONF}.part")
        part.write_text(text)
        self._check(part)
        part.replace(place)
        if self._master:
            child.send(self._master, signal.SIGHUP)
        return True

    def _check(self, conf: Path) -> None:
        mark = self._error_log.stat().st_size if self._error_log.exists() else 0
        pid = self._spawn([self._program, "-t", "-q", *self._options(conf.name)], group=0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            raise NginxError(f"nginx refuses its configuration: {self._last_error(mark)}")

    def start(self) -> None:
        """Start it; raises NginxError when that cannot be, and leaves nothing then."""
        try:
            self._start()
        except OSError as error:
            self._cut_leash()
            raise NginxError(f"nginx cannot be started ({error.strerror})") from None
        except NginxError:
            self._cut_leash()
            raise

    def _start(self) -> None:
        reader, self._leash_pipe = os.pipe()
        try:
            leash = child.spawn(["sh", "-c", _LEASH], environment=self._environment, files={0: reader, 1: self._null(), 2: self._null()})
        finally:
            os.close(reader)
        self._leash = leash
        self._loop.on_exit(leash, lambda _code: self._leash_ended(leash))
        self._master = self._spawn([self._program, *self._options(layout.NGINX_CONF)], group=self._leash)
        self._started_at = time.monotonic()
        self._loop.on_exit(self._master, self._ended)

    def _options(self, conf: str) -> list[str]:
        return ["-p", "./", "-e", "../log/nginx-error.log", "-c", conf]

    def _spawn(self, argv: list[str], *, group: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        out = os.open(self._error_log, flags, 0o600)
        try:
            return child.spawn(argv, environment=self._environment, files={0: self._null(), 1: out, 2: out}, group=group)
        except OSError as error:
            raise NginxError(
                f"{argv[0]} cannot be started ({error.strerror}): install nginx or name its program in settings.json"
            ) from None
        finally:
            os.close(out)

    def _null(self) -> int:
        return 0  # the guard's own standard input is /dev/null

    def _last_error(self, mark: int) -> str:
        with self._error_log.open("rb") as file:
            file.seek(mark)
            lines = [line for line in file.read(65536).decode(errors="replace").splitlines() if "[emerg]" in line]
        return lines[-1].partition("[emerg] ")[2] if lines else "it gave no reason; see log/nginx-error.log"

    def _leash_ended(self, leash: int) -> None:
        """Killed by somebody: without it nginx could outlive us, so nginx is started anew with another. A worker that stayed would hold the
        port; its group is there as long as one of them is.
        """
        if leash == self._leash:
            self._cut_leash()

    def _ended(self, code: int) -> None:
        self._master = 0
        self._cut_leash()
        if self._stopping is not None:
            self._stopping()
            return
        steady = time.monotonic() - self._started_at > _STEADY_SECONDS
        self._failures = 0 if steady else self._failures + 1
        self._log(f"nginx ended with status {code}")
        self._try_again(f"nginx ended {self._failures} times soon after its start; see log/nginx-error.log")

    def _try_again(self, hopeless: str) -> None:
        if self._failures > 3:
            self.on_hopeless(hopeless)
            return
        self._loop.later(min(_LONGEST_BACKOFF, 0.05 * 4**self._failures), self._start_again)

    def _start_again(self) -> None:
        if self._stopping is not None:
            return
        try:
            self.start()
        except NginxError as error:  # as where the machine has no process to spare: it may have one soon
            self._failures += 1
            self._log(str(error))
            self._try_again(str(error))

    def _cut_leash(self) -> None:
        """A killed master leaves its workers: they go with the group."""
        if self._leash:
            child.kill_group(self._leash)
            self._leash = 0
        if self._leash_pipe >= 0:
            os.close(self._leash_pipe)
            self._leash_pipe = -1

    def reopen_logs(self) -> None:
        """After they were renamed."""
        if self._master:
            child.send(self._master, signal.SIGUSR1)

    def stop(self, done: Callable[[], None]) -> None:
        """Stop accepting, let requests finish, call `done` when it is gone."""
        self._stopping = done
        if self._master:
            child.send(self._master, signal.SIGQUIT)
        else:
            self._cut_leash()
            done()

    def kill(self) -> None:
        """At once, workers too."""
        if self._leash:
            child.kill_group(self._leash)
