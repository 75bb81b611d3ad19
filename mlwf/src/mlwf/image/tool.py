"""Apptainer, SingularityCE or SingularityPRO, whichever the machine has, and mksquashfs: all that we ask of them."""

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.image.certificates import trusted
from mlwf.image.process import ProgramError, Runner
from mlwf.secret import Secret

NAMES = ("apptainer", "singularity")
# How an image is packed: as the tool reads it best, or as who will run it elsewhere needs it.
AUTO, GZIP, ZSTD = COMPRESSIONS = ("auto", "gzip", "zstd")
BUILD_PREFIXES = ("APPTAINER", "SINGULARITY")
NO_OCI_MODE = "SINGULARITY_NO_OCI"
# The first with -offset, -mkfs-time and -all-time; RHEL 8 has 4.3.
LEAST_MKSQUASHFS = (4, 4)
# Where it is on some systems, and users have no PATH to.
SYSTEM = ("/usr/sbin", "/sbin")
Login = tuple[str, Secret]
# Of the tools' own variables a program in a container is started with these alone: where they work, and how they mount an image at all.
# The others reach into it whatever the options say: *_BIND, *_BINDPATH and *_MOUNT add to --bind, *ENV_* goes past --cleanenv.
KEPT_VARIABLES = ("TMPDIR", "CACHEDIR", "DISABLE_CACHE", "CONFIGDIR", "USERNS", "UNSQUASH", "TMP_SANDBOX")
# What fetches and unpacks a base has these besides: where bases are. Of the others most are options of `build` or `pull`:
# *_PULLFOLDER puts the file elsewhere, *_FAKEROOT makes it another user's, *_MESSAGELEVEL tells the password (*_DEBUG does not).
FETCH_VARIABLES = ("LIBRARY", "NOHTTPS", "NO_HTTPS", "DEBUG")
# What the tools say where the kernel or the site lets no user make one.
NO_NAMESPACE = re.compile(r"user ?namespace|max_user_namespaces|unshare|CLONE_NEWUSER", re.IGNORECASE)
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

    @property
    def opens_zstd(self) -> bool:
        """Whether it opens an image that is packed with zstd. It looks itself, whatever the kernel reads: Apptainer before 1.4 and every
        Singularity say that such an image is corrupted.
        """
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        return self.kind == "apptainer" and numbers is not None and (int(numbers[1]), int(numbers[2])) >= (1, 4)

    def build_sandbox(
        self, runner: Runner, source: str, folder: Path, *, shown: str, tmpdir: Path, http: bool = False, login: Login | None = None
    ) -> None:
        """Unpacks a base image, which the user calls `shown`, into `folder`. `http`: the registry speaks plain HTTP. Raises MlwfError."""
        extra = {f"{prefix}_TMPDIR": str(tmpdir) for prefix in BUILD_PREFIXES}
        what = _("The base image {source} cannot be unpacked").format(source=shown)
        try:
            self._fetch(runner, ["build", "--fix-perms", "--sandbox"], [folder, source], what, http=http, login=login, extra=extra)
        except ProgramError as error:
            error.cure = _unpack_cure(error.output)
            raise

    def pull(self, runner: Runner, source: str, file: Path, *, cache: Path, http: bool = False, login: Login | None = None) -> None:
        """Fetches an image that is a SIF already (library://, oras://), by way of the folder `cache`. Raises ProgramError."""
        what = _("The base image {source} cannot be fetched").format(source=source)
        self._fetch(runner, ["pull"], [file, source], what, http=http, login=login, cache=cache)

    def _fetch(
        self, runner: Runner, verb: list[str], names: list[str | Path], what: str, *, http: bool, login: Login | None,
        extra: Mapping[str, str] | None = None, cache: Path | None = None,
    ) -> None:  # fmt: skip
        # We keep what comes of it: the tool shall not keep it too, in the user's home and for ever.
        options = [*([] if cache else ["--disable-cache"]), *(["--no-https"] if http else [])]
        # The tools read each their own files and variables of a login, and no other's: what the look-up used is what they are given.
        known = {f"{self._prefix}_DOCKER_USERNAME": login[0], f"{self._prefix}_DOCKER_PASSWORD": login[1].reveal()} if login else {}
        own = {f"{self._prefix}_CACHEDIR": str(cache)} if cache else {}
        caches = ("CACHEDIR", "DISABLE_CACHE") if cache else ()
        environ = without_wishes(runner.environ, kept=[each for each in (*KEPT_VARIABLES, *FETCH_VARIABLES) if each not in caches])
        more = {**(extra or {}), **known, **own, **self._native(), **trusted(runner.environ)}
        runner.run([self.path, *verb, *options, *names], what, environ=environ, extra=more)

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
        cure: str = "",
    ) -> str:
        """What a command in the container wrote to stdout, which has no network and sees nothing of the user's but `binds` and `variables`.

        `what` says in the user's words what failed, and `cure` what helps. Raises ProgramError.
        """
        options = ["--containall", "--no-home", "--cleanenv", "--pwd", "/", "--net", "--network", "none"]
        if nvidia:
            options.append("--nv")
        for bind in binds:
            options += ["--bind", bind.text()]
        argv: list[str | Path] = [self.path, "--silent", "exec", *options, image, *command]
        environ = {name: value for name, value in without_wishes(runner.environ).items() if not PROXY.fullmatch(name)}
        return runner.run(argv, what, environ=environ, extra=self._native() | self.inside(variables or {}), timeout=timeout, cure=cure)

    def inside(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables as the container gets them, whichever tool it is."""
        return {f"{self._prefix}ENV_{name}": value for name, value in variables.items()}

    @property
    def _prefix(self) -> str:
        return "APPTAINER" if self.kind == "apptainer" else "SINGULARITY"

    def _native(self) -> dict[str, str]:
        """What keeps SingularityCE and PRO from their OCI mode, where a site has set it: it runs no folder and no SIF of ours."""
        return {} if self.kind == "apptainer" else {NO_OCI_MODE: "1"}


def _unpack_cure(said: str) -> str:
    if NO_NAMESPACE.search(said):
        return _(
            "Look with 'mlwf doctor', and ask the admins to allow user namespaces (user.max_user_namespaces) or for a setuid installation."
        )
    return _("Check that the base image is what its address says (docker-archive: what 'docker save' wrote) and whole, then run it again.")


def without_wishes(environ: Mapping[str, str], kept: Sequence[str] = KEPT_VARIABLES) -> dict[str, str]:
    """The variables without those by which a user or a site's module asks the container tools for more each time."""
    names = {f"{prefix}_{name}" for prefix in BUILD_PREFIXES for name in kept}
    return {name: value for name, value in environ.items() if name in names or not name.startswith(BUILD_PREFIXES)}


def find_tool(environ: Mapping[str, str]) -> ContainerTool:
    """Apptainer where there is one, else Singularity; `MLWF_CONTAINER_TOOL` names another. Raises MlwfError."""
    wanted = environ.get("MLWF_CONTAINER_TOOL", "")
    for name in [wanted] if wanted else NAMES:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return _known(found, environ)
    raise MlwfError(
        _("There is no {name} on this machine").format(name=wanted or _("Apptainer or Singularity")),
        cure=_("Load its module ('module load apptainer' or 'singularity'), or run this on a node that has it."),
    )


def _known(command: str, environ: Mapping[str, str]) -> ContainerTool:
    try:
        said = Runner(environ).run([command, "--version"], _does_not_run(command), timeout=60)
    except ProgramError as error:
        cure = _("Load a module made for this node, or set MLWF_CONTAINER_TOOL to another command.")
        raise MlwfError(error.what, error.why, cure) from error
    return ContainerTool(Path(command), *parse_version(said))


def parse_version(said: str) -> tuple[str, str]:
    """`apptainer version 1.4.5` → apptainer, 1.4.5; `singularity-ce version 4.1.0` → singularity-ce, 4.1.0. Raises MlwfError."""
    match = re.fullmatch(r"(?P<kind>apptainer|singularity(?:-ce|-pro)?) version (?P<version>[0-9]+\.[0-9]+\S*)", said.strip())
    if not match:
        raise MlwfError(
            _("The container tool reports a version that we do not recognise: {said}").format(said=said.strip()[:80] or "''"),
            cure=_("Set MLWF_CONTAINER_TOOL to Apptainer 1.1 or Singularity 3.8, or a later version."),
        )
    return match["kind"], match["version"]


@dataclass(frozen=True)
class Squasher:
    """mksquashfs and how it shall compress: gzip or zstd, at the level that costs least time."""

    path: Path
    version: str
    compression: str

    @property
    def compressor(self) -> tuple[str, ...]:
        """Its options for that."""
        return ("-comp", self.compression, "-Xcompression-level", "1")


def find_mksquashfs(environ: Mapping[str, str], tool: ContainerTool, wanted: str | None = None) -> Squasher:
    """The first mksquashfs of this machine, or else of Apptainer's or Singularity's own, that is new enough. Raises MlwfError.

    `wanted`: one of COMPRESSIONS; None: what MLWF_COMPRESSION says.
    """
    found, version = _mksquashfs(environ, tool)
    runner, what = Runner(environ), _does_not_run(found)
    helped = runner.ask([found, "-help"], what)
    if "-help-section" in helped:  # since 4.7 -help names sections alone
        helped = runner.ask([found, "-help-section", "compression"], what)
    can_zstd = re.search(rf"^\s+{ZSTD}\b", helped, re.MULTILINE) is not None
    wanted = wanted or environ.get("MLWF_COMPRESSION") or AUTO
    if wanted == AUTO and tool.opens_zstd and not _others_open_zstd(environ, tool):
        wanted = GZIP
    compression = _compression(tool, can_zstd=can_zstd, wanted=wanted)
    return Squasher(Path(found), version, compression)


def _mksquashfs(environ: Mapping[str, str], tool: ContainerTool) -> tuple[str, str]:
    """The first one that has all the options that we give it, and its version. Raises MlwfError."""
    beside = tool.path.resolve().parent.parent
    own = (str(beside / part) for part in ("libexec/apptainer/bin", "libexec/singularity/bin"))
    folders = [*environ.get("PATH", "").split(":"), *SYSTEM, *own]
    old = ""
    for found in dict.fromkeys(filter(None, (shutil.which("mksquashfs", path=folder) for folder in folders if folder))):
        told = re.search(r"mksquashfs version (\S+)", Runner(environ).ask([found, "-version"], _does_not_run(found)))
        version = told[1] if told else ""
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if not numbers or (int(numbers[1]), int(numbers[2])) >= LEAST_MKSQUASHFS:
            return found, version
        old = old or f"{version} ({found})"
    cure = _("Ask the admins for squashfs-tools {version} or later, or run this on another node.").format(
        version=".".join(map(str, LEAST_MKSQUASHFS))
    )
    if old:
        raise MlwfError(_("The mksquashfs of this machine is too old: {found}").format(found=old), cure=cure)
    raise MlwfError(_("There is no mksquashfs on this machine"), cure=cure)


def _does_not_run(command: str) -> str:
    return _("{command} does not run").format(command=command)


def _others_open_zstd(environ: Mapping[str, str], tool: ContainerTool) -> bool:
    """Whether each other tool that is here opens it, too: people run an image by the name that they know, whichever tool has made it."""
    found = (shutil.which(name, path=environ.get("PATH")) for name in NAMES if not environ.get("MLWF_CONTAINER_TOOL"))
    for command in {os.path.realpath(each) for each in found if each} - {os.path.realpath(tool.path)}:
        with contextlib.suppress(MlwfError):  # what does not run opens none at all
            if not _known(command, environ).opens_zstd:
                return False
    return True


def _compression(tool: ContainerTool, *, can_zstd: bool, wanted: str) -> str:
    """Answers gzip or zstd. Raises MlwfError where it cannot be as it is wanted, or the image could not be opened here."""
    if wanted not in COMPRESSIONS:
        raise WrongUseError(
            _("MLWF_COMPRESSION cannot be {value}").format(value=repr(wanted)),
            cure=_("Set one of {values}, or leave it out.").format(values=", ".join(COMPRESSIONS)),
        )
    if wanted == AUTO:
        return ZSTD if can_zstd and tool.opens_zstd else GZIP
    if wanted == ZSTD and not tool.opens_zstd:
        raise MlwfError(
            _("{tool} cannot open images packed with zstd").format(tool=f"{tool.kind} {tool.version}"),
            cure=_("Leave out --compression and MLWF_COMPRESSION, or make it where there is Apptainer 1.4 or later."),
        )
    if wanted == ZSTD and not can_zstd:
        raise MlwfError(
            _("This machine's mksquashfs does not pack with zstd"), cure=_("Leave out --compression and MLWF_COMPRESSION, or say gzip.")
        )
    return wanted
