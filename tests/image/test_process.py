"""The programs that are started: their last words, their end, and what they say without end."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.process import FullDiskError, ProgramError, Runner

from tests.support.box import alive, until


def test_what_a_program_says_last_is_the_reason(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        runner = Runner({"PATH": os.environ["PATH"]}, log)
        assert runner.run(["sh", "-c", "echo out; echo more >&2"], "It fails") == "out\n"
        with pytest.raises(ProgramError, match=r"It fails: FATAL:\s+no space") as told:
            runner.run(["sh", "-c", "echo INFO; echo 'FATAL:   no space' >&2; echo bye >&2; exit 3"], "It fails")
        assert told.value.status == 3
    assert "more" in (tmp_path / "log").read_text()


def test_a_programs_colours_are_no_words() -> None:
    """Word for word the starter of Apptainer 1.4.5 into a pipe, where no user namespace can be made; SingularityCE's writes so, too."""
    said = r"\033[91mERROR  : Failed to create user namespace: not allowed to create user namespace\n\033[0m"
    with pytest.raises(ProgramError) as told:
        Runner({"PATH": os.environ["PATH"]}).run(["sh", "-c", f"echo INFO; printf '{said}' >&2; exit 1"], "It fails")
    assert told.value.why == "ERROR  : Failed to create user namespace: not allowed to create user namespace"


def test_a_tool_whose_debugging_is_on_has_its_reason_told() -> None:
    """Apptainer 1.4.5 with APPTAINER_DEBUG=1, and SingularityCE 4.1.1 in the same form."""
    said = "DEBUG   [U=65534,P=12739]  getCacheParentDir()           environment variable APPTAINER_CACHEDIR not set\\n"
    said += "FATAL   [U=65534,P=12739]  pullRun()                     While pulling image from oci registry: no\\n"
    with pytest.raises(ProgramError) as told:
        Runner({"PATH": os.environ["PATH"]}).run(["sh", "-c", f"printf '{said}' >&2; exit 255"], "It fails")
    assert told.value.why == "FATAL: While pulling image from oci registry: no"


def test_what_cannot_be_preloaded_is_no_reason() -> None:
    """It was told alone, since it begins as the container tools' own words do."""
    environ = {"PATH": os.environ["PATH"], "LD_PRELOAD": "/nowhere/site.so"}
    with pytest.raises(ProgramError) as told:
        Runner(environ).run(["sh", "-c", "echo 'FATAL ERROR: Data queue size is too large' >&2; exit 1"], "It fails")
    assert told.value.why == "FATAL ERROR: Data queue size is too large"


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    """As one for another kind of processor, which a site's module may name."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\2\1\1" + b"\0" * 60)
    program.chmod(0o755)
    with pytest.raises(ProgramError, match="It fails: Exec format error"):
        Runner({"PATH": os.environ["PATH"]}).run([program], "It fails")


def test_a_program_that_had_no_room_has_its_own_cure() -> None:
    runner = Runner({"PATH": os.environ["PATH"]})
    for words in ("No space left on device (os error 28)", "disk quota exceeded"):
        with pytest.raises(FullDiskError) as told:
            runner.run(["sh", "-c", f"echo 'error: no cache' >&2; echo '  cause: /cache/x: {words}' >&2; exit 1"], "It fails")
        assert told.value.why == f"/cache/x: {words}"
        assert "--tmpdir and MLWF_CACHE" in told.value.cure
        assert not isinstance(told.value, ProgramError), "what is tried instead after one of these would not help"
    for others in ("echo 'No space left on device' >&2; seq 100 >&2", "echo 'cannot open /home/No space left on device/x' >&2"):
        with pytest.raises(ProgramError):
            runner.run(["sh", "-c", f"{others}; exit 1"], "It fails")


def test_a_path_that_is_no_text_is_written_as_it_is(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\x83\x8f")
    Path(folder).mkdir()
    log = io.BytesIO()
    Runner({"PATH": os.environ["PATH"]}, log).run(["ls", "-d", folder], "It fails")
    assert log.getvalue() == b"$ ls -d " + os.fsencode(folder) + b"\n" + os.fsencode(folder) + b"\n"


LIMITED = """
import sys
from mlwf.errors import MlwfError
from mlwf.image.process import Runner

try:
    Runner({"PATH": "/usr/bin:/bin"}).run([sys.executable, "-c", sys.argv[1]], "It fails")
except MlwfError as error:
    print(type(error).__name__, error.why, error.cure, sep="\\n")
"""


def test_a_program_without_enough_memory_has_its_own_cure_where_that_is_limited() -> None:
    takes = "x = bytearray(4 << 30)"  # as Grid Engine's h_vmem=2G refuses it
    told = subprocess.run(
        ["prlimit", f"--as={2 << 30}", sys.executable, "-c", LIMITED, takes], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told[:2] == ["LittleMemoryError", "MemoryError (ulimit -v allows a program 2048 MB)"]
    assert "h_vmem" in told[2]
    with pytest.raises(ProgramError):
        Runner({"PATH": os.environ["PATH"]}).run(["sh", "-c", "echo 'CUDA out of memory' >&2; exit 1"], "It fails")


@pytest.mark.parametrize(
    "words",
    [
        # squashfs-tools 4.5.1, 4.6.1 and 4.7.5 alike
        "echo 'FATAL ERROR: Failed to create thread' >&2; exit 1",
        # Apptainer 1.4.5 and whatever else is of Go, where a program may have 600 MB or less; all that it was doing comes after it.
        "echo 'fatal error: failed to reserve page summary memory' >&2; seq 100 >&2; exit 2",
        # uv 0.13.9
        """echo 'failed to spawn thread: Os { code: 11, kind: WouldBlock, message: "Resource temporarily unavailable" }' >&2; exit 1""",
    ],
)
def test_other_words_for_too_little_memory(words: str) -> None:
    limited = LIMITED.replace('[sys.executable, "-c", sys.argv[1]]', '["sh", "-c", sys.argv[1]]')
    said = subprocess.run(
        ["prlimit", f"--as={700 << 20}", sys.executable, "-c", limited, words], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("LittleMemoryError\n"), said


def test_a_program_ends_with_everything_it_started(tmp_path: Path) -> None:
    runner = Runner({"PATH": os.environ["PATH"]})
    with pytest.raises(MlwfError, match="no end"):
        runner.run(["sh", "-c", f"sleep 600 & echo $! >{tmp_path}/child; wait"], "It fails", timeout=5)
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive([child]), seconds=10, what="the signalled child's end")


@pytest.mark.parametrize("stream", [1, 2])
def test_a_program_that_writes_without_end_is_ended(tmp_path: Path, stream: int) -> None:
    said = r"It fails: it wrote more than 64 MB\. The build log"
    with (tmp_path / "log").open("wb", buffering=0) as log, pytest.raises(MlwfError, match=said):
        Runner({"PATH": os.environ["PATH"]}, log).run(["sh", "-c", f"echo $$; exec yes >&{stream}"], "It fails")
    words = (tmp_path / "log").read_text().splitlines()
    assert len(words) < 100_000
    assert "y" in words, "its beginning is told"
    until(lambda: not alive([int(words[1])]), seconds=10, what="the program's end")


AT_EVERY_LINE = """
import os, signal, sys
from pathlib import Path
from mlwf.ending import ENDS, Terminated, raise_on_terminate
from mlwf.errors import MlwfError
from mlwf.image.process import Runner

number = getattr(signal, sys.argv[1])

def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

def ends_at(line):
    # Whether the signal came: sent to ourselves before that line of Runner, or of what it calls.
    left = line
    def trace(frame, event, _argument):
        nonlocal left
        left -= event == "line"
        if event == "line" and left == 0:
            sys.settrace(None)
            frame.f_trace = None
            signal.raise_signal(number)
        return trace
    for each in (*ENDS, signal.SIGINT):
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    raise_on_terminate()
    try:
        sys.settrace(trace)
        Runner({"PATH": "/usr/bin:/bin"}).run(["sleep", "600"], "It fails", timeout=0.02)
    except (Terminated, KeyboardInterrupt):
        came = True
    except MlwfError:
        sys.settrace(None)  # what a destructor does now is Python's own
        came = False
    lost = children()
    for each in lost:
        os.kill(int(each), signal.SIGKILL)
    if lost:
        sys.exit(f"at line {line} of {sys.argv[1]} the program was lost")
    if came != (left <= 0):
        sys.exit(f"at line {line} {sys.argv[1]} was not heeded")
    return came

line = 1
while ends_at(line):
    line += 1
print(line)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_loses_no_program_wherever_it_comes(number: str) -> None:
    """While a program was being started, whoever could end it had not heard of it yet."""
    environ = ["env", "--default-signal=INT,TERM"]  # whoever runs the tests in the background has SIGINT ignored
    done = subprocess.run([*environ, sys.executable, "-c", AT_EVERY_LINE, number], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100, "every line from the first to the last"


WAITS = """
import signal, sys
from mlwf.ending import Terminated, raise_on_terminate
from mlwf.image.process import Runner

raise_on_terminate()
try:
    Runner({"PATH": "/usr/bin:/bin"}).run(["sh", "-c", f"kill -{sys.argv[1]} $PPID; exec sleep 600"], "It fails")
except (Terminated, KeyboardInterrupt) as ended:
    print(type(ended).__name__)
"""


@pytest.mark.parametrize(("number", "ends"), [("TERM", "Terminated"), ("INT", "KeyboardInterrupt")])
def test_a_signal_breaks_the_wait_for_a_program_off(number: str, ends: str) -> None:
    argv = ["env", "--default-signal=INT,TERM", sys.executable, "-c", WAITS, number]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout == f"{ends}\n"
