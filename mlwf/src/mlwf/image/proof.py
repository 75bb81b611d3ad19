"""The proof: the finished image serves the model and answers its own input example, without network and without the user's home."""

import json
import math
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.allocation import THREADS
from mlwf.image.gpu import CHOICE, may_use_gpu
from mlwf.image.kit import Kit
from mlwf.image.model.example import request_of
from mlwf.image.model.package import ModelPackage
from mlwf.image.process import ProgramError
from mlwf.image.tool import Bind

# For loading the model, and again for its answer.
SECONDS = 1800.0
# What the container tool needs besides, to set up and tidy up.
MORE_SECONDS = 300.0
ANSWERED, LOADED, NEEDS_GPU = "answered", "loaded", "needs-gpu"
STATES = frozenset({ANSWERED, LOADED, "failed"})
MAX_RESULT = 64 << 20
# The last two are Triton's and vLLM's, who name no GPU.
GPU_WORDS = ("cuda", "nvidia", "nvml", "gpu", "hip error", "rocm", "active driver", "infer device type")
# An environment that is broken with GPUs, too, a file that is missing, and TensorFlow's remark that it takes the processor.
NOT_FOR_GPU = re.compile(
    r"no module named|undefined symbol|failed call to cuinit: internal"
    r"|filenotfounderror(?!.*'(?:\S*/)?(?:nvidia-smi|rocm-smi|nvidia[0-9]+|nvidiactl|kfd)')"
    r"|lib(?!cuda\.so|nvidia-)[\w.+-]+: cannot open shared object"
)
# Paths, and models as nvidia/NAME; not the devices of TensorFlow.
NAMES = re.compile(r"(?<!\S)(?!\S*device:|'/dev/)\S*/\S*")
# Runs in the image with its Python. The server is MLflow's own, on the loopback of a network that has nothing else.
SCRIPT = """
import contextlib, http.client, json, os, subprocess, sys, time, urllib.error, urllib.request

# The container tools let nobody else set it.
os.environ["HOME"] = "/tmp/home"
os.mkdir("/tmp/home")
# A fixed port: this network is ours alone. It has no proxy, whatever the base says.
URL = "http://127.0.0.1:8080"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
log = open("/tmp/server.log", "a+b")
server = subprocess.Popen(
    [sys.executable, "-m", "mlflow", "models", "serve", "-m", "/mlwf-model", "-h", "127.0.0.1", "-p", "8080", "--env-manager", "local"],
    stdout=log, stderr=subprocess.STDOUT)

limit = float(sys.argv[1])

def ask(path, seconds, body=None):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    with opener.open(urllib.request.Request(URL + path, body, headers), timeout=max(seconds, 0.1)) as answer:
        return answer.read()

def told():
    log.seek(0)
    return log.read().decode("utf-8", "replace")

def end(**result):
    server.kill()
    with open("/tmp/result.json", "w") as file:
        json.dump(result, file)
    sys.exit(0)

deadline = time.monotonic() + limit
while True:
    if server.poll() is not None:
        end(state="failed", text=told())
    try:
        ask("/ping", deadline - time.monotonic())
        break
    except urllib.error.HTTPError as error:
        end(state="failed", text=told())
    except OSError:
        if time.monotonic() >= deadline:
            end(state="failed", late="load", text=told())
        time.sleep(0.05)
if len(sys.argv) < 3:
    end(state="loaded")
with open(sys.argv[2], "rb") as file:
    example = file.read()
deadline = time.monotonic() + limit
try:
    end(state="answered", text=ask("/invocations", limit, example).decode())
except urllib.error.HTTPError as error:
    end(state="failed", text=told() + error.read().decode("utf-8", "replace"))
except (OSError, http.client.HTTPException) as error:
    if time.monotonic() >= deadline:
        end(state="failed", late="answer", text=told())
    # Where the server has died, whoever started it says how.
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(10)
    end(state="failed", text=f"{told()}\\nError: the server broke off: {type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Verdict:
    """`state`: answered, loaded (no input example can be sent) or needs-gpu; `compared`: with a recorded output; `text`: the answer."""

    state: str
    compared: bool = False
    text: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def prove(kit: Kit, image: Path, package: ModelPackage, folder: Path) -> Verdict:
    """Serves the model in the image and sends its input example. Raises MlwfError when it does not answer, or answers otherwise."""
    outside = folder / "proof"
    outside.mkdir()
    (outside / "proof.py").write_text(SCRIPT)
    command = ["/mlwf/env/bin/python", "/tmp/proof.py", str(SECONDS)]  # noqa: S108  # the container's own
    command += _asked_with(kit, package, outside)
    has_gpu = may_use_gpu(kit.runner.environ)
    binds = [Bind(package.folder, "/mlwf-model"), Bind(outside, "/tmp", writable=True)]  # noqa: S108
    chosen = {name: kit.runner.environ[name] for name in (CHOICE, *THREADS) if name in kit.runner.environ}
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", **chosen}
    what = _("The model does not work in the image")
    try:
        kit.tool.run(kit.runner, image, command, what, binds=binds, variables=variables, nvidia=has_gpu, timeout=2 * SECONDS + MORE_SECONDS)
        result = read_result(outside / "result.json")
    except (OSError, ValueError, RecursionError) as error:
        raise MlwfError(what, _("the test ended without a result"), _cure()) from error
    except ProgramError as error:
        raise MlwfError(what, error.why, _cure()) from error
    kit.runner.note(str(result.get("text", "")))
    return judge(result, package, has_gpu=has_gpu)


def _asked_with(kit: Kit, package: ModelPackage, outside: Path) -> list[str]:
    """The input example's path in the container, if there is one that can be sent. `outside` is the container's /tmp."""
    example = package.input_example
    if example is None:
        return []
    if example.kind is None:
        return [f"/mlwf-model/{example.file.relative_to(package.folder)}"]
    try:
        (outside / "example.json").write_text(request_of(example, _bounded(example.file)))
    except (ValueError, RecursionError) as error:
        kit.runner.note(f"The model is not asked with its input example: {error}")
        return []
    return ["/tmp/example.json"]  # noqa: S108


def read_result(file: Path) -> dict[str, object]:
    """What the test left, in a folder where the model could write anything. Raises OSError or ValueError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as content:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("no regular file")
        data = content.read(MAX_RESULT + 1)
    result = json.loads(data) if len(data) <= MAX_RESULT else None
    if not isinstance(result, dict) or result.get("state") not in STATES:
        raise ValueError("no result")
    return result


def judge(result: dict[str, object], package: ModelPackage, *, has_gpu: bool) -> Verdict:
    """What the result means. Raises MlwfError."""
    state, text = str(result.get("state")), str(result.get("text", ""))
    if state == "failed":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not has_gpu and _speaks_of_gpu(lines):
            return Verdict(NEEDS_GPU)
        late = _late(str(result.get("late", "")))
        if late:
            raise MlwfError(_("The model does not work in the image"), late, _late_cure())
        last = next((line for line in reversed(lines) if "Error" in line or "error" in line), lines[-1] if lines else "")
        raise MlwfError(_("The model does not work in the image"), last[:400], _cure())
    expected = package.folder / "expected_output.json"
    if state == LOADED:
        if expected.is_file():
            raise MlwfError(
                _("The model's answer cannot be compared with the one that was recorded with it"),
                _("the model has no input example that can be sent"),
                _("Log the model with an input example, or without expected_output.json; --no-test hands the image over untested."),
            )
        return Verdict(LOADED)
    if expected.is_file():
        try:
            recorded = _bounded(expected)
            equal = same(json.loads(recorded), json.loads(text))
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            raise MlwfError(
                _("The model's answer cannot be compared with the one that was recorded with it"),
                _("one of the two is not JSON, or is too large"),
                _cure(),
            ) from error
        if not equal:
            raise MlwfError(
                _("The model's answer differs from the one recorded with it"),
                _("{answer} instead of {expected}").format(answer=text[:120], expected=recorded[:120]),
                _cure(),
            )
        return Verdict(ANSWERED, compared=True, text=text)
    return Verdict(ANSWERED, text=text)


def _bounded(file: Path) -> str:
    with file.open("rb") as content:
        data = content.read(MAX_RESULT + 1)
    if len(data) > MAX_RESULT:
        raise ValueError("too large")
    return data.decode("utf-8")


def same(one: object, other: object) -> bool:
    """Equal, numbers to within a millionth of their size: other processors round differently."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9) or (one != one and other != other)  # noqa: PLR0124  # both not a number
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def _speaks_of_gpu(lines: list[str]) -> bool:
    """Whether the last errors are for want of a GPU. Whatever else is missing is none of them, whatever its name."""
    errors = [line.lower() for line in lines if "Error" in line or "error" in line or "Found no" in line]
    meant = [NAMES.sub(" ", line) for line in errors[-3:] if not NOT_FOR_GPU.search(line)]
    return any(word in line for line in meant for word in GPU_WORDS)


def _late(what: str) -> str:
    """Why there is no answer, where the time was over first; else empty."""
    return {
        "load": _("it was not loaded after {seconds:.0f} seconds"),
        "answer": _("it gave no answer to its input example within {seconds:.0f} seconds"),
    }.get(what, "").format(seconds=SECONDS)


def _late_cure() -> str:
    return _("Run it again on a node with more processors or with a GPU; the build log has the full output, and --no-test tests nothing.")


def _cure() -> str:
    return _("The build log has the full output; --no-test hands the image over untested.")
