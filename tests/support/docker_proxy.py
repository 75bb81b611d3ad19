"""A socket in front of Docker's: passes all on, notes what is asked, and can keep the daemon's answers back, as a busy daemon does."""

import contextlib
import re
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_REQUEST = re.compile(rb"([A-Z]+) (?:/v[0-9.]+)?(/[^ ?]*)(?:\?([^ ]*))? HTTP/1")
FOR_EVER = 3600.0


@dataclass
class DockerProxy:
    """`asked`: what was asked so far (`POST /containers/create?name=…`); `kept`: numbers of the answers that are kept back now."""

    home: Path
    upstream: Path
    asked: list[str] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    _seconds: float = 0.0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def socket(self) -> Path:
        return self.home / "docker.sock"

    @property
    def host(self) -> str:
        """For `docker_host`."""
        return f"unix://{self.socket}"

    def hold(self, seconds: float = FOR_EVER) -> None:
        """From now on each answer comes so much later; without a number: not before `release`."""
        with self._changed:
            self._seconds = seconds

    def release(self) -> None:
        """Give all that was kept back, and keep nothing."""
        with self._changed:
            self._seconds = 0.0
            self._changed.notify_all()

    def note(self, request: bytes) -> int:
        """A request begins; its number."""
        match = _REQUEST.match(request)
        method, path, query = match.groups(b"") if match else (b"?", b"?", b"")
        self.asked.append(f"{method.decode()} {path.decode()}" + (f"?{query.decode()}" if query else ""))
        return len(self.asked)

    def keep(self, number: int) -> None:
        """Return when the answer to that request may go on."""
        with self._changed:
            if self._seconds:
                self.kept.add(number)
                self._changed.wait_for(lambda: not self._seconds, self._seconds)
                self.kept.discard(number)


class _Connection(socketserver.BaseRequestHandler):
    """One connection. HTTP here has one request after the other, so what comes after an answer begins a new one."""

    def handle(self) -> None:
        self.proxy: DockerProxy = self.server.proxy  # type: ignore[attr-defined]
        self.number, self.answered = 0, True
        with socket.socket(socket.AF_UNIX) as daemon:
            try:
                daemon.connect(str(self.proxy.upstream))
            except OSError:
                return  # a daemon that is not there: whoever asks sees the connection end
            back = threading.Thread(target=self._answers, args=(daemon,), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(1 << 16):
                    if self.answered:
                        self.number, self.answered = self.proxy.note(data), False
                    daemon.sendall(data)
            with contextlib.suppress(OSError):
                daemon.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answers(self, daemon: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := daemon.recv(1 << 16):
                if not self.answered:
                    self.proxy.keep(self.number)
                    self.answered = True
                self.request.sendall(data)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def docker_proxy(upstream: Path) -> Iterator[DockerProxy]:
    """A proxy in a folder of its own, before the socket `upstream`, with that one's group and mode."""
    home = Path(tempfile.mkdtemp(prefix="docker-proxy-", dir="/tmp"))
    proxy = DockerProxy(home, upstream)
    try:
        with _Server(str(proxy.socket), _Connection) as server:
            server.proxy = proxy  # type: ignore[attr-defined]
            home.chmod(0o755)
            shutil.chown(proxy.socket, group=upstream.stat().st_gid)
            proxy.socket.chmod(0o660)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield proxy
            proxy.release()
            server.shutdown()
    finally:
        shutil.rmtree(home)
