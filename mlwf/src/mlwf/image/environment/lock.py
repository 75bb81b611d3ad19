"""The model's requirements as a lock: every package that gets installed, with its version and the hashes of its files."""

import functools
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.environment.pytorch import BACKEND, chosen_backend, recorded_backend, tell_backend, told_backend
from mlwf.image.environment.uv_lock import UvLock, read_uv_lock, stands_alone, unmet
from mlwf.image.environment.uv_program import run_uv, unwrapped
from mlwf.image.model.package import ModelPackage
from mlwf.image.model.requirements import STRICT, Policy, RefusedRequirementError, Requirements, check_variables
from mlwf.image.process import ProgramError, Runner

NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?:==(?P<version>[^\s;\\]+)| @ (?P<address>https://\S+))")
# What uv has names for: wheels for a version run on every later one.
MANYLINUX = (17, 28, *range(31, 41))
# One package of what uv writes, which is made of texts of the model's lock or of an index: nothing in it may be a line of its own.
PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[A-Za-z0-9,._-]*\])? ?(?:==(?P<version>[A-Za-z0-9.+!_-]+)|@ (?P<address>https://[^\s'\"\\]+))"
    r"(?: ; (?P<marker>[\w .'\"()<>=!~,*+-]*?))?(?: --hash=[a-z0-9]+:[0-9a-f]+)*",
    re.ASCII,
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# What uv says of packages without a wheel; each of these words may stand alone.
NO_WHEEL = re.compile(r"has no usable wheels|has no wheels with a matching|building from source is disabled|`--no-build`")
# And without a network, of a package that it has no list of, or a list from before the version came out.
OLD_INDEX = re.compile(r"network was disabled|connectivity is disabled|in the cache|there (?:is|are) no versions? of")
BUILD = re.compile(r"^(?:error:|\xd7) Failed to build `")
# How a lock says what became of the model's uv.lock: in a comment, so that it is kept with the lock.
OF_UV_LOCK = "# The model's uv.lock: "
# And what uv has to be told to find its packages, as variables: whoever installs it by hand needs that, too.
TOLD = "# Installed with "
STRATEGY = "UV_INDEX_STRATEGY"
# What a uv.lock fixes by hashes may come from any of the indexes. uv by itself stays at the first one that knows the name.
ANY_INDEX = "unsafe-first-match"
VARIABLE = re.compile(rf"({BACKEND}|{STRATEGY})=([A-Za-z0-9.-]+)")


@dataclass(frozen=True)
class Locked:
    """One package of the lock. `version`: empty where it comes from an `address` of its own."""

    name: str
    version: str
    hashes: tuple[str, ...]
    address: str = ""


@dataclass(frozen=True)
class Lock:
    """`text`: what `uv pip sync --require-hashes` reads. `python`: the exact version that it is for."""

    text: str
    python: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.python}\n{self.text}".encode()).hexdigest()

    @property
    def uv_lock(self) -> str:
        """What became of the model's uv.lock; empty where it has none."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(OF_UV_LOCK) if first.startswith(OF_UV_LOCK) else ""

    @property
    def variables(self) -> dict[str, str]:
        """What uv is told when it installs this."""
        line = next((each for each in self.text.splitlines()[:2] if each.startswith(TOLD)), "")
        return dict(VARIABLE.findall(line))

    @property
    def packages(self) -> tuple[Locked, ...]:
        found: list[Locked] = []
        for block in re.split(r"\n(?=[A-Za-z0-9])", self.text):
            match = NAMED.match(block)
            if match:
                found.append(Locked(match["name"], match["version"] or "", tuple(HASH.findall(block)), match["address"] or ""))
        return tuple(found)


@dataclass(frozen=True)
class Taken:
    """What a model's own uv.lock is good for: a lock's `text`, or `why` it is none; option lines of `indexes`; and builds of PyTorch."""

    text: str = ""
    why: str = ""
    indexes: tuple[str, ...] = ()
    backend: str = ""

    @property
    def told(self) -> str:
        """The line on it in the lock; empty where there is no uv.lock."""
        what = "taken as it is" if self.text else f"only its versions were preferred: {self.why}"
        return OF_UV_LOCK + what if self.text or self.why else ""


@dataclass(frozen=True)
class BasePlatform:
    """What wheels the base can run. `glibc`: "2.36"; `architecture`: amd64 or arm64."""

    glibc: str
    architecture: str

    def as_uv(self) -> str:
        """The name of it in uv. Raises MlwfError for a base without glibc, where the wheels that models record do not run."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(self.architecture)
        if not machine or not re.fullmatch(r"2\.[0-9]+", self.glibc):
            raise MlwfError(
                _("Python packages cannot be installed in this base image"),
                _("it has no glibc, or other processors than x86_64 and aarch64"),
                _("Use a base image of Debian, Ubuntu, Rocky or another system with glibc."),
            )
        known = [version for version in MANYLINUX if version <= int(self.glibc[2:])]
        if not known:
            raise MlwfError(
                _("Python packages cannot be installed in this base image"),
                _("its glibc {version} is older than any that wheels are made for").format(version=self.glibc),
                _("Use a newer base image."),
            )
        return f"{machine}-manylinux_2_{known[-1]}"


def make_lock(
    package: ModelPackage,
    python: str,
    platform: BasePlatform,
    *,
    runner: Runner,
    cache: Path,
    folder: Path,
    policy: Policy = STRICT,
    offline: bool = False,
    only_wheels: bool = True,
) -> Lock:
    """Every package with its hashes, for the base: from the model's own uv.lock, else resolved now. Raises MlwfError.

    `python`: the exact version that the image gets; `cache`: uv's cache; `folder`: for the files between.
    """
    own, taken = read_uv_lock(package.uv_lock, runner.environ) if package.uv_lock else None, Taken()
    if own:
        taken = _of_uv_lock(own, package.wanted, policy, runner.environ, functools.partial(_exported, own, python, runner, cache, folder))
        runner.note(taken.told)
    indexes = tuple(dict.fromkeys((*package.wanted.indexes, *taken.indexes)))
    tell_backend(runner.environ, recorded_backend(package.wanted) or taken.backend)
    if taken.text:
        return Lock(_with_head(runner.environ, indexes, taken.text, taken.told, strategy=ANY_INDEX), python)
    wanted, bounds, locked = _written((*indexes, *package.wanted.packages), package.wanted.constraints, own, folder)
    options = [*(["--only-binary", ":all:"] if only_wheels else []), *(["--offline"] if offline else [])]
    try:
        run_uv(
            runner,
            [
                "pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet",
                "--python-version", python, "--python-platform", platform.as_uv(), "--cache-dir", cache, *options,
                "--python", sys.executable, "--constraints", bounds, "--output-file", locked, wanted,
            ],
            _("The model's packages cannot be resolved"),
            within=folder,
        )  # fmt: skip
    except ProgramError as error:
        raise _explained(error, offline=offline, only_wheels=only_wheels) from error
    return Lock(_with_head(runner.environ, indexes, locked.read_bytes().decode(), taken.told), python)


def _written(lines: Sequence[str], constraints: Sequence[str], own: UvLock | None, folder: Path) -> tuple[Path, Path, Path]:
    """The requirements, the constraints, and where the lock is to be written; uv keeps to versions that stand there, as far as it may."""
    files = folder / "requirements.in", folder / "constraints.in", folder / "resolved.txt"
    preferred = [f"{name}=={version}" for name, version in sorted(own.pins.items())] if own else []
    for file, each in zip(files, (lines, constraints, preferred), strict=True):
        file.write_text("\n".join(each) + "\n")
    return files


def _with_head(environ: Mapping[str, str], indexes: Sequence[str], text: str, told: str, *, strategy: str = "") -> str:
    """The lock tells where its packages come from, so that whoever installs it (our offline install too) asks the same places.

    `told`: the line on the model's uv.lock, if it has one; `strategy`: where the user has none. Raises RefusedRequirementError for a text
    that holds more than packages.
    """
    packages = [(each["name"], each["version"] or "") for each in _packages(text)]
    variables = {BACKEND: told_backend(environ, packages), STRATEGY: (environ.get(STRATEGY) or strategy) if indexes or strategy else ""}
    named = " ".join(f"{name}={value}" for name, value in variables.items() if value)
    return "".join(f"{line}\n" for line in (told, named and TOLD + named, *indexes) if line) + text


def _explained(error: ProgramError, *, offline: bool, only_wheels: bool) -> MlwfError:
    said = unwrapped(error.output)
    if offline and OLD_INDEX.search(said):
        return MlwfError(
            _("The packages' index is not in the cache, and --offline forbids asking it"),
            error.why,
            _("Run the same command with --fetch-only on a node with internet first."),
        )
    cure = _("Check the index (UV_DEFAULT_INDEX, UV_INDEX) and the network, and that the versions exist for this Python and base image.")
    if BUILD.search(said):
        cure = _("The build log has the full output. Use a version that has a wheel, or a node with what its build needs.")
    return MlwfError(error.what, error.why, (without_wheel(said) if only_wheels else "") or cure)


def without_wheel(said: str) -> str:
    """What helps where uv says, in one line, that a package has no wheel; else empty."""
    if not NO_WHEEL.search(said):
        return ""
    return _("A package has no wheel for this Python and base image: take a newer base, or allow its build with --allow-source-builds.")


def _of_uv_lock(
    own: UvLock, wanted: Requirements, policy: Policy, environ: Mapping[str, str], export: Callable[[Sequence[str]], str]
) -> Taken:
    """The model's own uv.lock as a lock of ours, held to the same policy."""
    foreign = own.lacks(wanted.packages)
    if foreign:
        return Taken(why=f"it does not have {foreign}")
    own.check_required(wanted.packages, policy)
    known = Taken(indexes=own.indexes(wanted.packages), backend=own.backend)
    if not stands_alone(own.file.with_name("pyproject.toml")):
        return replace(known, why="it is of a workspace, whose other projects are not here")
    backend, why = chosen_backend(environ, recorded_backend(wanted) or own.backend), ""
    for options in own.exports(wanted.packages):
        try:
            text = export(options)
        except ProgramError as error:
            why = why or _unusable(unwrapped(error.output))
            continue
        exported = _packages(text)
        why = unmet(wanted, exported) or own.astray(exported, backend)
        if not why:
            for package in exported:
                own.check(package["name"], policy)
                check_variables(package[0])
            return replace(known, text=text, indexes=own.indexes([each["name"] for each in exported]))
    return replace(known, why=why)


def _unusable(said: str) -> str:
    """No word of uv's own, which may name a folder of this job: what is said stands in the lock, and is the same each time."""
    if "unsupported schema version" in said:
        return "it is of another version of uv, whose form this one does not know"
    if "Failed to parse `uv.lock`" in said:
        return "uv cannot read it"
    return "uv cannot use it without the rest of its project"


def _exported(own: UvLock, python: str, runner: Runner, cache: Path, folder: Path, options: Sequence[str]) -> str:  # noqa: PLR0917
    """What uv exports of it. Raises ProgramError where it cannot."""
    # A copy: uv may write beside what it reads, and the package stays as it came.
    project = Path(tempfile.mkdtemp(dir=folder))
    for name in ("uv.lock", "pyproject.toml"):
        shutil.copyfile(own.file.parent / name, project / name)
    return run_uv(
        runner,
        [
            "export", "--frozen", *options, "--no-emit-project", "--no-header", "--no-annotate", "--no-config", "--quiet",
            "--format", "requirements.txt", "--project", project, "--python", python, "--no-python-downloads", "--cache-dir", cache,
            "--offline",
        ],
        _("The model's uv.lock cannot be used"),
        within=folder,
    )  # fmt: skip


def _packages(text: str) -> list[re.Match[str]]:
    """The packages of what uv wrote. Raises RefusedRequirementError for a line that is something else."""
    found = []
    for line in text.replace(" \\\n    ", " ").removesuffix("\n").split("\n") if text else ():
        match = PACKAGE.fullmatch(line)
        if not match:
            raise RefusedRequirementError(line, _("it has no fixed version"), _("Lock the project's packages again."))
        found.append(match)
    return found
