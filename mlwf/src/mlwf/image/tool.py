"""Apptainer, SingularityCE or SingularityPRO, whichever the machine has, and mksquashfs: all that we ask of them."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.process import Runner

NAMES = ("apptainer", "singularity")
BUILD_PREFIXES = ("APPTAINER", "SINGULARITY")
# Of the tools' own variables a program in a container is started with these alone: where they work, and how they mount an image at all.
# The others reach into it whatever the options say: *_BIND, *_BINDPATH and *_MOUNT add to --bind, *ENV_* goes past --cleanenv.
KEPT_VARIABLES = ("TMPDIR", "CACHEDIR", "DISABLE_CACHE", "CONFIGDIR", "USERNS", "UNSQUASH", "TMP_SANDBOX")
# These, too, go past --cleanenv, perhaps with a password; a container without network has no use for them.
PROXY = re.compile(r".*_proxy", re.IGNORECASE)


@dataclass(frozen=True)
class Bind:
    """A folder of the host, seen in the container as `inside`."""

    outside: Path
    inside: str
    writable: bool = False

    def text(self) -> str:
        """As the tools take it, which know no way to write a comma or colon of a path. Raises MlwfError."""
        if {",", ":"} & set(str(self.outside)):
            raise MlwfError(
                _("The container tool cannot be given {path}").format(path=self.outside),
                _("there is a comma or a colon in it"),
                _("Choose other places with --output-dir, --tmpdir and MLWF_CACHE."),
            )
        return f"{self.outside}:{self.inside}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class ContainerTool:
    """The command that runs containers. `kind`: apptainer, singularity-ce, singularity-pro or singularity."""

    path: Path
    kind: str
    version: str

    def build_sandbox(self, runner: Runner, source: str, folder: Path, *, tmpdir: Path, http: bool = False) -> None:
        """Unpacks a base image into `folder`. `http`: the registry speaks plain HTTP. Raises ProgramError."""
        options = ["--no-https"] if http else []
        runner.run(
            [self.path, "build", *options, "--fix-perms", "--sandbox", folder, source],
            _("The base image {source} cannot be unpacked").format(source=source),
            extra={f"{prefix}_TMPDIR": str(tmpdir) for prefix in BUILD_PREFIXES},
        )

    def blob_folders(self, environ: Mapping[str, str]) -> tuple[Path, Path]:
        """Where it keeps the layers that it fetches: beginning ones, and whole ones."""
        name = "apptainer" if self.kind == "apptainer" else "singularity"
        above = environ.get(f"{name.upper()}_CACHEDIR") or str(Path(environ.get("HOME", "/"), f".{name}"))
        blob = Path(above, "cache", "blob")
        return blob, blob / "blobs" / "sha256"

    def pull(self, runner: Runner, source: str, file: Path, *, http: bool = False) -> None:
        """Fetches an image that is a SIF already (library://, oras://). Raises ProgramError."""
        options = ["--no-https"] if http else []
        runner.run([self.path, "pull", *options, file, source], _("The base image {source} cannot be fetched").format(source=source))

    def run(
        self,
        runner: Runner,
        image: Path,
        command: Sequence[str],
        what: str,
        *,
        binds: Sequence[Bind] = (),
        variables: Mapping[str, str] | None = None,
        nvidia: bool = False,
        timeout: float | None = None,
    ) -> str:
        """What a command in the container wrote to stdout, which has no network and sees nothing of the user's but `binds` and `variables`.

        `what` says in the user's words what failed. Raises ProgramError.
        """
        options = ["--containall", "--no-home", "--cleanenv", "--pwd", "/", "--net", "--network", "none"]
        if nvidia:
            options.append("--nv")
        for bind in binds:
            options += ["--bind", bind.text()]
        argv: list[str | Path] = [self.path, "--silent", "exec", *options, image, *command]
        return runner.run(argv, what, environ=without_wishes(runner.environ), extra=self.inside(variables or {}), timeout=timeout)

    def inside(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables as the container gets them, whichever tool it is."""
        prefix = "APPTAINERENV_" if self.kind == "apptainer" else "SINGULARITYENV_"
        return {prefix + name: value for name, value in variables.items()}


def without_wishes(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without proxies, and those by which a user or a site's module asks the container tools for more in every container."""
    kept = {f"{prefix}_{name}" for prefix in BUILD_PREFIXES for name in KEPT_VARIABLES}
    return {
        name: value for name, value in environ.items() if name in kept or not (name.startswith(BUILD_PREFIXES) or PROXY.fullmatch(name))
    }


def find_tool(environ: Mapping[str, str]) -> ContainerTool:
    """Apptainer where there is one, else Singularity; `MLWF_CONTAINER_TOOL` names another. Raises MlwfError."""
    wanted = environ.get("MLWF_CONTAINER_TOOL", "")
    for name in [wanted] if wanted else NAMES:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            said = Runner(environ).run([found, "--version"], _("{command} does not run").format(command=found), timeout=60)
            kind, version = parse_version(said)
            return ContainerTool(Path(found), kind, version)
    raise MlwfError(
        _("There is no {name} on this machine").format(name=wanted or _("Apptainer or Singularity")),
        cure=_("Load its module ('module load apptainer' or 'singularity'), or run this on a node that has it."),
    )


def parse_version(said: str) -> tuple[str, str]:
    """`apptainer version 1.4.5` → apptainer, 1.4.5; `singularity-ce version 4.1.0` → singularity-ce, 4.1.0. Raises MlwfError."""
    match = re.fullmatch(r"(?P<kind>apptainer|singularity(?:-ce|-pro)?) version (?P<version>[0-9]+\.[0-9]+\S*)", said.strip())
    if not match:
        raise MlwfError(
            _("The container tool does not say a version that we know: {said}").format(said=said.strip()[:80] or "''"),
            cure=_("Name Apptainer 1.1 or Singularity 3.8, or a later one, in MLWF_CONTAINER_TOOL."),
        )
    return match["kind"], match["version"]


@dataclass(frozen=True)
class Squasher:
    """mksquashfs and what it can do."""

    path: Path
    version: str
    compressors: tuple[str, ...]

    @property
    def compressor(self) -> tuple[str, ...]:
        """The options of the fastest compression that every reader of the image understands as far as we know."""
        name = "zstd" if "zstd" in self.compressors else "gzip"
        return ("-comp", name, "-Xcompression-level", "1")


def find_mksquashfs(environ: Mapping[str, str], tool: ContainerTool) -> Squasher:
    """The machine's mksquashfs, else the one that Apptainer or Singularity brings. Raises MlwfError."""
    beside = tool.path.resolve().parent.parent
    paths = [
        environ.get("PATH", ""),
        "/usr/sbin",
        "/sbin",
        *(str(beside / part) for part in ("libexec/apptainer/bin", "libexec/singularity/bin")),
    ]
    found = shutil.which("mksquashfs", path=":".join(paths))
    if not found:
        raise MlwfError(
            _("There is no mksquashfs on this machine"), cure=_("Ask the administrators for squashfs-tools, or run this on another node.")
        )
    runner, what = Runner(environ), _("{command} does not run").format(command=found)
    said, helped = runner.ask([found, "-version"], what), runner.ask([found, "-help"], what)
    version = re.search(r"mksquashfs version (\S+)", said)
    compressors = tuple(name for name in ("gzip", "zstd") if re.search(rf"^\s+{name}\b", helped, re.MULTILINE))
    return Squasher(Path(found), version[1] if version else "", compressors)
