"""Background processes that outlive the command which started them, known again by number *and* start time."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STOP_SECONDS = 10.0
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Process:
    """A process of ours. A number alone may be somebody else's by now; with the boot and the start time it is not."""

    pid: int
    started: str

    def is_running(self) -> bool:
        """Whether it still runs; ended ones are reaped where they are children of ours."""
        with contextlib.suppress(ChildProcessError):  # started by an earlier command
            os.waitpid(self.pid, os.WNOHANG)
        return _started(self.pid) == self.started

    def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """End it with SIGTERM, after `seconds` with SIGKILL, and the rest of its group with it. One that is gone already is fine."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # The handle names one process for good, so that a number which was given away meanwhile is seen here and never signalled.
            if not self.is_running():
                return
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], seconds)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [])
        finally:
            os.close(handle)
        self._kill_group()
        self.is_running()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the leader was the last of it
            os.killpg(self.pid, signal.SIGKILL)


def start(argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> Process:
    """Start a process in a session of its own, with its words in `log` (0600). It goes on when the caller ends."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            env=environment,
            cwd=directory,
            umask=0o077,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
        )
    finally:
        os.close(descriptor)
    child.returncode = 0  # it is not ours to wait for: no warning when this object goes
    return Process(child.pid, _started(child.pid) or "ended")


def write(process: Process, file: Path) -> None:
    """Note a process, so that a later command finds it."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(asdict(process)))
    part.replace(file)


def read(file: Path) -> Process | None:
    """The process that was noted, running or not; None when none was."""
    try:
        return Process(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Inside, the signals that end a program wait; they act when the block is over. No mask: what is started inside would inherit it."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in came:
            signal.raise_signal(held)


def _started(pid: int) -> str | None:
    """Boot and start time of a process; None when there is none, or only its exit status is left."""
    try:
        # The name, in parentheses, may hold anything; the fields after the last parenthesis are plain.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{_BOOT_ID.read_text().strip()}:{fields[19]}"
