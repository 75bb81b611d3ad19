"""A demo of its own for a test: started and stopped by the commands that its users have."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.runtimes import containers_of

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


@dataclass
class Demo:
    """`home` is short, for the sockets in it. `variables`: what `bin/demo env` exports, once it is up. `containers`: the daemon whose its
    servers are; None: they are processes. `begin`: what its commands begin with, where they are another user's.
    """

    home: Path
    containers: Docker | None = None
    begin: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        runtime = {} if self.containers is None else {"DEMO_RUNTIME": "docker", "DOCKER_HOST": self.containers.host}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DEMO_HOME": str(self.home / "demo"),
            "DEMO_IDLE_SECONDS": "8",
            **runtime,
        }

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`bin/demo COMMAND`, with its output."""
        argv = [*self.begin, str(ROOT / "bin/demo"), *command]
        # Output to files: parts that stay behind must not keep a pipe open, and a test would see it.
        return subprocess.run(argv, cwd=self.home, env=self.environment, capture_output=True, text=True, check=check, timeout=SECONDS)

    def read_variables(self) -> dict[str, str]:
        """What a shell has after `eval "$(bin/demo env)"`."""
        script = f'eval "$({ROOT}/bin/demo env)" && env -0'
        done = subprocess.run(["bash", "-c", script], cwd=self.home, env=self.environment, capture_output=True, text=True, check=True)
        self.variables = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
        return self.variables

    def last_words(self) -> str:
        """The ends of the parts' logs, for the reader of a failure."""
        logs = sorted((self.home / "demo" / "log").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def processes(self) -> list[str]:
        """Every process on the machine that works in the demo's folder or names it (command lines, for the reader of a failure), and its
        containers' names.
        """
        found = [] if self.containers is None else containers_of(self.containers, self.home / "demo" / "service")
        return [*found, *(f"{process.pid}: {words}" for process, words in self._working())]

    def environments(self) -> list[str]:
        """Of the same processes."""
        found = []
        for process, _words in self._working():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                found.append(f"{process.pid}: {process.environ()}")
        return found

    def _working(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                words = " ".join(process.cmdline())
                if str(self.home) in words or process.cwd().startswith(str(self.home)):
                    yield process, words


@contextlib.contextmanager
def new_demo(containers: Docker | None = None, begin: Sequence[str] = ()) -> Iterator[Demo]:
    """A demo's folder, not started; whatever runs in it is stopped at the end."""
    if containers is not None:
        containers.box_image(MLFLOW_VERSION)
    demo = Demo(Path(tempfile.mkdtemp(prefix="d-", dir="/tmp")), containers, begin)
    try:
        yield demo
    finally:
        print(demo.last_words())  # pytest shows it when the test failed
        demo.run("down", check=False)
        shutil.rmtree(demo.home)


@contextlib.contextmanager
def in_foreground(demo: Demo) -> Iterator["subprocess.Popen[str]"]:
    """`bin/demo up --foreground`, as `make demo` runs it, once it said that it is ready; ended by Ctrl-C at the latest here."""
    argv = [str(ROOT / "bin/demo"), "up", "--foreground"]
    with subprocess.Popen(
        argv, cwd=demo.home, env=demo.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "Ctrl-C stops the demo" in line:
                    break
            else:
                raise AssertionError("the demo did not start:\n" + "".join(said))
            demo.read_variables()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=SECONDS)
