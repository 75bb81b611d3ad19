"""The one place that runs uv. A package that is built from source sees what uv sees: never the user's keys to other things."""

import re
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.certificates import trusted
from mlwf.image.environment.pytorch import BACKEND
from mlwf.image.process import UV_MARK, Hears, ProgramError, Runner

# What uv, the network, and compilers need of the user's variables. Of uv's own: where packages and Pythons come from, how that is reached,
# and what may be taken. The others say how a user works with projects, and contradict what it is told here.
NAMED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|XDG_[A-Z]+_HOME|NETRC|LD_LIBRARY_PATH"
    r"|(?i:https?_proxy|all_proxy|no_proxy)|SSL_CERT_FILE|SSL_CERT_DIR|SSL_CLIENT_CERT"
    r"|UV_(?:DEFAULT_INDEX|INDEX|INDEX_[A-Z0-9_]+|EXTRA_INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|CREDENTIALS_DIR|LOCK_TIMEOUT"
    r"|INSECURE_HOST|SYSTEM_CERTS|NATIVE_TLS|(?:HTTP|REQUEST|CONCURRENT)_[A-Z_]+|ASTRAL_MIRROR_URL|(?:S3|GCS|AZURE)_ENDPOINT_URL"
    r"|PYTHON_(?:DOWNLOADS|DOWNLOADS_JSON_URL|INSTALL_MIRROR|CPYTHON_BUILD)|TORCH_BACKEND|CUDA_DRIVER_VERSION|AMD_GPU_ARCHITECTURE"
    r"|RESOLUTION|PRERELEASE|EXCLUDE_NEWER)"
    r"|CC|CXX|CPP|FC|F77|F90|AR|LD|[A-Z]*FLAGS|CPATH|C_INCLUDE_PATH|CPLUS_INCLUDE_PATH|LIBRARY_PATH|PKG_CONFIG_PATH|CMAKE_[A-Z_]+"
    r"|CUDA_HOME|CUDA_PATH|MAX_JOBS|CARGO_HOME|RUSTUP_HOME"
)

HEAD = re.compile(r"^(?:error:| *\xd7) ", re.MULTILINE)
# The one hint that says why: to uv an index that does not let it in is one without the package.
NOT_ASKED = re.compile(r"hint: (An index URL \(\S+\) could not be queried .*?)(?: hint: |$)")
MOST = 400
# What uv says, away from a terminal, of each file of a megabyte or more that it begins to fetch: its size, packed.
FETCHING = re.compile(rb"^Downloading \S+ \(([0-9.]+)(B|KiB|MiB|GiB)\)\n", re.MULTILINE)
UNITS = {b"B": 1, b"KiB": 1 << 10, b"MiB": 1 << 20, b"GiB": 1 << 30}


def run_uv(
    runner: Runner,
    arguments: Sequence[str | Path],
    what: str,
    *,
    within: Path,
    extra: Mapping[str, str] | None = None,
    hears: Hears | None = None,
) -> str:
    """What uv says. `extra`: variables besides the named ones; `hears`: as Runner.run has it.

    Raises ProgramError, and MlwfError where uv was taken away. It runs in an empty folder made in `within`: in the user's own, which may
    be a stranger's package, it would run the Python of a .venv, and a name could mean a file.
    """
    words = [each.absolute() if isinstance(each, Path) else each for each in (_program(), *arguments)]
    with tempfile.TemporaryDirectory(dir=within) as nowhere:
        try:
            return runner.run(words, what, extra=extra, environ=named(runner.environ), folder=Path(nowhere), hears=hears)
        except ProgramError as error:
            error.why = reasons(error.output) or error.why
            raise


def reasons(output: str) -> str:
    """Why uv failed, without its drawing and its hints, in one line; empty where it does not say."""
    words = re.split(r"\n\s*hint:", output)[0]
    start = HEAD.search(words)
    parts = [unwrapped(part).rstrip(":") for part in UV_MARK.split(words[start.end() :])] if start else []
    # That it found none is said by what was not found, too.
    text = ": ".join(part for part in parts if part and not part.startswith("No solution found"))
    not_asked = NOT_ASKED.search(unwrapped(output))
    if not_asked:
        return f"{text[:MOST]} {not_asked[1]}"
    return text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 2 :]}"  # what a build said ends with its error


def unwrapped(output: str) -> str:
    """In one line: uv before 0.12 breaks its lines after 80 letters."""
    return re.sub(r"[\s│]+", " ", output).strip()


def announced(said: bytes | bytearray) -> int:
    """The bytes of the files that uv has begun to fetch, by what it has said so far."""
    return sum(int(float(number) * UNITS[unit]) for number, unit in FETCHING.findall(said))


def named(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv gets. To an empty choice of PyTorch's builds it says only that it is none."""
    own = {name: value for name, value in environ.items() if NAMED.fullmatch(name) and (value or name != BACKEND)}
    return own | trusted(environ)


def uv_version() -> str:
    """Of the uv that makes environments: it is told in them, and from some versions to the next their scripts are others."""
    return metadata.version("uv")


def _program() -> Path:
    """uv, which comes with this package."""
    import uv

    found = Path(uv.find_uv_bin())
    if not found.is_file():
        raise MlwfError(_("uv is missing in {folder}").format(folder=sysconfig.get_path("scripts")), cure=_("Install mlwf again."))
    return found
