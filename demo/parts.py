"""The demo's parts: what each runs, and when it is ready."""

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.client import Client, ServiceError, ServiceUnavailable

from demo.errors import DemoError
from demo.home import Home
from demo.ports import LOOPBACK, is_free
from demo.processes import STOP_SECONDS, Process, held_signals, read, start, write
from demo.settings import ROOT, Settings
from demo.store import StoreError

READY_SECONDS = 60.0
_LOG_LINES = 12
_PORT_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """One background process. `ready` tells why it is not, or None. `ports`: where it listens. `stop_seconds`: its time after SIGTERM."""

    name: str
    address: str
    argv: list[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    process_file: Path
    ready: Callable[[], str | None]
    ports: tuple[int, ...] = ()
    stop_seconds: float = STOP_SECONDS
    clean: Callable[[], None] = lambda: None

    def running(self) -> Process | None:
        process = read(self.process_file)
        return process if process and process.is_running() else None

    def ensure_started(self) -> bool:
        """Start it unless it runs; True if it was started now."""
        if self.running():
            return False
        self.clean()
        self._wait_for_ports()
        with held_signals():  # one that runs and is not noted would be found by no command
            process = start(self.argv, environment=self.environment, directory=self.directory, log=self.log)
            try:
                write(process, self.process_file)
            except BaseException:
                process.stop(seconds=0)
                raise
        return True

    def wait_ready(self) -> None:
        """Wait until it answers. Raises DemoError with its last words when it ends or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while (problem := self.ready()) is not None:
            if not self.running():
                raise DemoError(f"the {self.name} ended while starting; the end of {self.log}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise DemoError(f"the {self.name} was not ready after {READY_SECONDS:.0f} s ({problem}): {self.log} may say why")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; gone already is fine."""
        process = read(self.process_file)
        if process:
            process.stop(seconds=self.stop_seconds)
            self.process_file.unlink()
        self.clean()

    def _wait_for_ports(self) -> None:
        """What is left of a killed part lets go of its ports soon; a stranger does not. Raises DemoError."""
        deadline = time.monotonic() + _PORT_SECONDS
        while taken := [port for port in self.ports if not is_free(port)]:
            if time.monotonic() > deadline:
                cure = "stop that program, or start a new demo with DEMO_HOME=/another/folder"
                raise DemoError(f"another program has port {taken[0]} of the {self.name}: {cure}")
            time.sleep(0.1)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_LOG_LINES:])


def all_parts(home: Home, settings: Settings) -> list[Part]:
    """In the order in which they are waited for."""
    return [_store(home, settings), _service(home, settings), _console(home, settings)]


def console_url(home: Home) -> str:
    return f"http://{LOOPBACK}:{home.state().console_port}/"


def _store(home: Home, settings: Settings) -> Part:
    store = home.store()

    def ready() -> str | None:
        try:
            store.wait_ready(alive=lambda: True, seconds=0)
        except StoreError as error:
            return str(error)
        return None

    # Asked to end, SeaweedFS saves its volumes at once and then waits 10 s for nobody.
    return Part(
        "object store",
        store.endpoint_url,
        store.command(str(settings.programs / "weed")),
        store.environment(),
        store.home,
        home.logs / "store.log",
        home.process_file("store"),
        ready,
        ports=tuple(store.ports.values()),
        stop_seconds=2.0,
        clean=store.remove_sockets,
    )


def _service(home: Home, settings: Settings) -> Part:
    address = f"unix://{home.socket}"

    def ready() -> str | None:
        try:
            with Client(address, language="en") as client:
                client.health()
        except (ServiceUnavailable, ServiceError) as error:
            return str(error)
        return None

    return Part(
        "service",
        address,
        [str(settings.programs / "aihub"), "serve"],
        settings.environment(AIHUB_SETTINGS=str(home.service_settings)),
        home.path,
        home.logs / "service.log",
        home.process_file("service"),
        ready,
        stop_seconds=20.0,
    )


def _console(home: Home, settings: Settings) -> Part:
    port = home.state().console_port

    def ready() -> str | None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.request("GET", "/")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        finally:
            connection.close()
        return None if status == http.client.OK else f"status {status}"

    # Browsers open connections in advance: threads keep one that stays silent from holding up the others.
    gunicorn = [str(settings.programs / "gunicorn"), "--workers=1", "--threads=4", "--no-control-socket", f"--bind={LOOPBACK}:{port}"]
    return Part(
        "console",
        console_url(home),
        [*gunicorn, f"--chdir={ROOT}", "demo.console"],
        settings.environment(
            HOME=str(home.path),
            MLWF_SERVICE=f"unix://{home.socket}",
            AWS_SHARED_CREDENTIALS_FILE=str(home.credentials),
            AIHUB_CONSOLE_LOCAL_JOBS="true",
        ),
        home.path,
        home.logs / "console.log",
        home.process_file("console"),
        ready,
        ports=(port,),
    )
