"""The one place that starts other programs: their output goes to the build log, and they end with us."""

import contextlib
import itertools
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from mlwf.ending import Held
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.allocation import address_space

GRACE_SECONDS = 5.0
# A shell's word for a program that is there and cannot be run.
NOT_STARTED = 126
# More than any program has to say that we know; those of a base or a model are strangers' and may write without end.
MAX_OUTPUT = 64 << 20
FIRST_WORDS = 64 << 10
# What is said by C, Go, Python and Rust.
MEMORY = re.compile(
    r"out of memory|cannot allocate memory|memory allocation of \d+ bytes failed|MemoryError|bad_alloc|pthread_create failed"
    r"|failed to reserve page summary memory|failed to (?:create|spawn) (?:new OS )?thread",  # Go's; mksquashfs', Rust's, Go's
    re.IGNORECASE,
)
FULL = re.compile(r"(?<![/\w])(?:no space left on device|disk quota exceeded)(?![/\w])", re.IGNORECASE)  # and no part of a path
# What uv writes before each reason: since 0.12, before, and where it draws.
UV_MARK = re.compile(r"^\s*(?:cause:|Caused by:|[├╰]─▶) ", re.MULTILINE)
# What the container tools' starter colours, in a pipe, too.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# How they begin such a line where a user or a site has switched their debugging on.
DEBUGGED = re.compile(r"^(FATAL|ERROR) +\[U=\d+,P=\d+\] +\S+ +", re.MULTILINE)
# What glibc says before each program, the good ones too, where LD_PRELOAD names what this node does not have.
PRELOAD = re.compile(r"^ERROR: ld\.so: object .* cannot be preloaded .*\n?", re.MULTILINE)
LOUD = re.compile(r"(?:FATAL|ERROR|error) *:")
# How many of a program's last lines may say it.
LAST_LINES = 20


Hears = Callable[[bytearray], None]


class ProgramError(MlwfError):
    """A program ended with a failure. `output`: the last lines that it said; `status`: its exit status, negative for a signal."""

    def __init__(self, what: str, status: int, output: str, cure: str = "") -> None:
        super().__init__(what, _last_words(output) or _("it ended with status {status}").format(status=status), cure)
        self.status = status
        self.output = output


class FullDiskError(MlwfError):
    """A program had no room for what it writes. No ProgramError: nothing else is to be tried then, and no other cure helps."""

    def __init__(self, what: str, line: str) -> None:
        super().__init__(what, UV_MARK.sub("", line)[:600], free_some_space())


class LittleMemoryError(MlwfError):
    """A program did not get the memory that it asked for, where that is limited. No ProgramError either."""

    def __init__(self, what: str, line: str, limit: int) -> None:
        why = _("{line} (ulimit -v allows a program {size} MB)").format(line=line[:600], size=limit >> 20)
        super().__init__(
            what, why, _("Ask for more memory, on Grid Engine with -l h_vmem=…, or raise ulimit -v; for threads also ulimit -u.")
        )


def free_some_space() -> str:
    """The cure for a full disk."""
    return _("Free some space, or choose other places with --output-dir, --tmpdir and MLWF_CACHE.")


class Runner:
    """Starts programs with `environ` and writes what they do into `log` (None: nowhere).

    Each program leads a process group of its own, which is ended when the wait for it is broken off (Ctrl-C, SIGTERM, a timeout), or by
    `stop` of another thread. `mark`: what begins each line in the log, where several threads write there.
    """

    def __init__(self, environ: Mapping[str, str], log: IO[bytes] | None = None, *, mark: str = "") -> None:
        self.environ = dict(environ)
        self.log = log
        self._mark = mark.encode()
        self._guard = threading.Lock()
        self._stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def twin(self, mark: str) -> "Runner":
        """Another one for another thread: the same variables and log, stopped by itself."""
        return Runner(self.environ, self.log, mark=f"{mark}: ")

    def note(self, text: str) -> None:
        """A line of our own in the log."""
        try:
            line = text.encode("utf-8", "surrogateescape")  # paths may be of another character set
        except UnicodeEncodeError:  # half a character, which a model's JSON or YAML can name
            line = text.encode("utf-8", "backslashreplace")
        self._write(line)

    def stop(self) -> None:
        """Ends what runs, at once, and starts nothing more: whoever waits for it gets a ProgramError. For another thread to call."""
        with self._guard:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)

    def run(
        self,
        argv: Sequence[str | Path],
        what: str,
        *,
        extra: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        timeout: float | None = None,
        folder: Path | None = None,
        hears: Hears | None = None,
        cure: str = "",
    ) -> str:
        """What the program wrote to stdout. `what` says in the user's words what failed, and `cure` what helps in most cases; `environ`:
        instead of the runner's own.

        `folder`: where it runs; here by default. `hears` is told, while it runs, all that it has written to stderr so far.

        Raises ProgramError, FullDiskError and LittleMemoryError.
        """
        variables = {**(self.environ if environ is None else environ), **(extra or {})}
        status, out, err = self._finish(argv, what, variables, timeout, folder, hears)
        if status:
            raise _failure(what, status, err or out, cure)
        return out

    def ask(self, argv: Sequence[str | Path], what: str) -> str:
        """All that the program says, whatever its status: for `--help` and its like. Raises MlwfError when it does not end."""
        _status, out, err = self._finish(argv, what, self.environ, 60.0)
        return out + err

    def _finish(  # noqa: PLR0917
        self,
        argv: Sequence[str | Path],
        what: str,
        environ: Mapping[str, str],
        timeout: float | None,
        folder: Path | None = None,
        hears: Hears | None = None,
    ) -> tuple[int, str, str]:
        words = [str(word) for word in argv]
        self.note("$ " + " ".join(words))
        # No signal comes between the start of a program and its end, but where that is waited for: so nothing that runs is forgotten.
        with Held() as held:
            process = self._started(words, environ, what, folder)
            try:
                with held.lifted():
                    out, err = self._collected(process, what, timeout, hears)
            except subprocess.TimeoutExpired as error:
                raise MlwfError(
                    what,
                    _("no end after {seconds:.0f} seconds").format(seconds=error.timeout),
                    _("Run it again, on another node if this one is busy; if it happens again, the program hangs, or its file system."),
                ) from error
            finally:
                end_group(process)
                with self._guard:
                    self._running.discard(process)
        for part in (out, err):
            if part:
                self._write(part.removesuffix(b"\n"))
        return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def _collected(self, process: "subprocess.Popen[bytes]", what: str, timeout: float | None, hears: Hears | None) -> tuple[bytes, bytes]:
        """All of stdout and stderr when the program has ended. Raises TimeoutExpired, and MlwfError for too much of it."""
        end = time.monotonic() + timeout if timeout is not None else None
        out, err = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            for pipe, said in ((process.stdout, out), (process.stderr, err)):
                assert pipe  # noqa: S101  # _started has made both
                selector.register(pipe, selectors.EVENT_READ, said)
            while selector.get_map():
                if end is not None and time.monotonic() >= end:
                    self._write(bytes(out[:FIRST_WORDS] + err[:FIRST_WORDS]))
                    raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
                for key, _events in selector.select(end - time.monotonic() if end is not None else None):
                    part = os.read(key.fd, 1 << 16)
                    key.data.extend(part)
                    if not part:
                        selector.unregister(key.fileobj)
                    elif hears and key.data is err:
                        hears(err)
                if len(out) + len(err) > MAX_OUTPUT:
                    self._write(bytes(out[:FIRST_WORDS] + err[:FIRST_WORDS]))
                    raise MlwfError(
                        what,
                        _("it wrote more than {size} MB").format(size=MAX_OUTPUT >> 20),
                        _("The build log has the beginning of it; if a program of the base image or the model does that, use another one."),
                    )
        process.wait(max(0.0, end - time.monotonic()) if end is not None else None)
        return bytes(out), bytes(err)

    def _started(self, argv: list[str], environ: Mapping[str, str], what: str, folder: Path | None) -> "subprocess.Popen[bytes]":
        with self._guard:
            if self._stopped:
                raise ProgramError(what, -signal.SIGKILL, "")
            try:
                process = subprocess.Popen(
                    argv,
                    env=environ,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:  # of another kind of processor, on a file system without programs, gone meanwhile
                raise ProgramError(what, NOT_STARTED, error.strerror or str(error)) from error
            self._running.add(process)
        return process

    def _write(self, text: bytes) -> None:
        if self.log:
            self.log.write(b"".join(self._mark + line + b"\n" for line in text.split(b"\n")))
            self.log.flush()


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a program that is still running, and everything that it started. What it still writes nobody reads."""
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
            return


def _failure(what: str, status: int, said: str, cure: str) -> MlwfError:
    said = PRELOAD.sub("", DEBUGGED.sub(r"\1: ", COLOURS.sub("", said)))
    lines = [line.strip(" \t│") for line in said.splitlines()]  # and uv draws a line beside all but the last reason
    last = lines[-LAST_LINES:]
    # uv before 0.12 breaks a line after 80 letters, wherever that is.
    both = [" ".join(pair) for pair in itertools.pairwise(last)]
    full = next((line for line in (*reversed(last), *reversed(both)) if FULL.search(line)), "")
    if full:
        return FullDiskError(what, full)
    limit = address_space()
    # Go says it first, and then all that it was doing. Without a limit it may be the words of a GPU's library.
    little = next((line for line in lines if MEMORY.search(line)), "") if limit else ""
    return LittleMemoryError(what, little, limit) if limit and little else ProgramError(what, status, said, cure)


def _last_words(output: str) -> str:
    """The lines that most likely say why: Apptainer's FATAL and ERROR, uv's and Python's last ones."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    loud = [line for line in lines if LOUD.match(line)]
    return " / ".join((loud or lines)[-3:])[:600]
