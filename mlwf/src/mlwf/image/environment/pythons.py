"""The exact Python that the model recorded: the base's own, one that the site keeps, or one that uv fetches."""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import Cache
from mlwf.image.environment.uv_program import run_uv
from mlwf.image.kit import Kit
from mlwf.image.model.requirements import without_passwords
from mlwf.image.process import ProgramError, Runner
from mlwf.image.tool import Bind

INSIDE = "/mlwf/python"
ORIGINS = ("site", "uv")
# Of what `_made_ready` makes of one, in its name in the cache: raised with each change there, since an older mlwf's would be taken for it.
FORM = "2"
VERSION = re.compile(r"3\.[0-9]{1,2}\.[0-9]{1,2}")
COMPILE = (
    "import compileall, py_compile, sys\n"
    f"compileall.compile_dir(sys.argv[1], ddir='{INSIDE}/lib', quiet=2, force=True, workers=int(sys.argv[2]),"
    " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n"
)
TELL = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
# What the files beside the standard library call the folder that this Python is in.
PREFIX = re.compile(r"""^\s*["']prefix["']: *["'](/.+?)/*["'],?$""", re.MULTILINE)


@dataclass(frozen=True)
class Python:
    """`inside`: its path in the image; `folder`: what is put at /mlwf/python, None when the base has it; `origin`: base, site or uv."""

    version: str
    inside: str
    folder: Path | None
    origin: str

    @property
    def minor(self) -> str:
        """As folders are called: "3.11"."""
        return self.version.rpartition(".")[0]

    @property
    def form(self) -> str:
        """Of what was made of it for the image; empty where that has the base's own."""
        return FORM if self.folder else ""

    def binds(self) -> list[Bind]:
        return [Bind(self.folder, INSIDE)] if self.folder else []


@dataclass(frozen=True)
class PythonWishes:
    """`allow_minor`: another patch of the same minor version will do; `mirror`: where uv fetches; `offline`: it does not."""

    allow_minor: bool = False
    mirror: str = ""
    offline: bool = False


def find_python(wanted: str, base: ComingBase, kit: Kit, *, wishes: PythonWishes) -> Python:
    """The Python `wanted` ("3.11.7") for this base. Raises MlwfError when there is none, saying what would do."""
    refused: list[str] = []
    found = _found(wanted, base, kit, wishes, refused)
    if not found and wishes.allow_minor:
        found = _found(wanted.rpartition(".")[0], base, kit, wishes, refused)
    if found and found.version != wanted:
        text = _("The image gets Python {version}, not the model's {wanted}")
        if refused:
            text = _("The image gets Python {version}, not the model's {wanted}: build.log says why uv fetched none")
        kit.warns(text.format(version=found.version, wanted=wanted))
    if found:
        return found
    raise _missing(wanted, base, wishes, refused)


def _missing(wanted: str, base: ComingBase, wishes: PythonWishes, refused: Sequence[str]) -> MlwfError:
    what = _("Python {version}, which the model recorded, is not available").format(version=wanted)
    if wishes.offline:
        cure = _("Run the same command with --fetch-only on a node with internet first.")
        return MlwfError(what, _("it is neither in the base image nor in the cache, and --offline forbids fetching it"), cure)
    cure = _("Use a base image with Python {version}, or set --python-mirror or MLWF_PYTHONS.")
    if not wishes.allow_minor:
        cure = _(
            "Use a base image with Python {version}, set --python-mirror or MLWF_PYTHONS, or allow another patch version: "
            "--allow-python-minor."
        )
    found = ", ".join(base.facts.pythons) or _("no Python")
    why = _("the base image has {found}, the site keeps none, and uv fetched none").format(found=found)
    return MlwfError(what, f"{why} ({refused[0]})" if refused else why, cure.format(version=wanted))


def _found(wanted: str, base: ComingBase, kit: Kit, wishes: PythonWishes, refused: list[str]) -> Python | None:
    """The Python `wanted`, or the newest of a minor version ("3.11"): the base's, one that was got before, the site's, or uv's.

    Why uv fetches none is added to `refused`.
    """
    own = newest(wanted, base.facts.pythons)
    if own:
        return Python(own, base.facts.pythons[own], None, "base")
    architecture = base.facts.architecture
    with kit.cache.lock(f"python-{wanted}-{architecture}", waits=kit.steps.waits):
        return _kept(wanted, architecture, kit.cache) or _provide(wanted, base, kit, wishes, refused)


def newest(wanted: str, versions: Iterable[str]) -> str:
    """Of these versions `wanted`, or the newest of that minor version; empty where there is none."""
    fitting = [each for each in versions if VERSION.fullmatch(each) and wanted in {each, each.rpartition(".")[0]}]
    return max(fitting, key=lambda version: int(version.rpartition(".")[2]), default="")


def _kept(wanted: str, architecture: str, cache: Cache) -> Python | None:
    """The one in the cache. Its folder's name says where it came from: a note of its own could be lost, and the folder stay."""
    above = cache.root / "pythons"
    for origin in ORIGINS:
        end = _end(architecture, origin)
        version = newest(wanted, (folder.name.removesuffix(end) for folder in above.glob(f"{wanted}*{end}")))
        with contextlib.suppress(FileNotFoundError):
            if version:
                os.utime(above / f"{version}{end}")  # when it was last used, for prune
                return _python(version, above / f"{version}{end}", origin)
    return None


def _end(architecture: str, origin: str) -> str:
    return f"-{architecture}-{origin}-{FORM}"


def _python(version: str, folder: Path, origin: str) -> Python:
    return Python(version, f"{INSIDE}/bin/python{version.rpartition('.')[0]}", folder, origin)


def _provide(wanted: str, base: ComingBase, kit: Kit, wishes: PythonWishes, refused: list[str]) -> Python | None:
    """Puts the Python into the cache; None when nobody has it."""
    with kit.cache.work() as work:
        made = work / "python"
        origin = "site" if _from_site(wanted, made, kit.runner.environ) else ""
        if not origin and not wishes.offline:
            try:
                origin = "uv" if _from_uv(wanted, made, work, kit.runner, wishes.mirror) else ""
            except ProgramError as error:
                kit.runner.note(str(error))
                refused.append(without_passwords(error.why))
        if not origin:
            return None
        version = _made_ready(wanted, made, base, kit)
        folder = kit.cache.put_folder("pythons", f"{version}{_end(base.facts.architecture, origin)}", made)
        return _python(version, folder, origin)


def _made_ready(wanted: str, made: Path, base: ComingBase, kit: Kit) -> str:
    """Turns what it has of its own into the image's, and answers what version it says that it is, in the base. Raises MlwfError."""
    _name_place(made)
    name = f"python{'.'.join(wanted.split('.')[:2])}"
    # Its own .pyc compare times, which an image does not keep: they are made anew, unchecked; here, since all bases share it. With -I
    # no variable counts, and before 3.11 the same source has other bytes each time: it has the one that it needs, and no other.
    kit.runner.run(
        [(made / "bin" / name).absolute(), "-s", "-S", "-c", COMPILE, "lib", str(kit.processors)],
        _("Python {version} does not run on this machine").format(version=wanted),
        environ={"PYTHONHASHSEED": "0"},
        folder=made,
    )
    what = _("Python {version} does not run in the base image").format(version=wanted)
    command = [f"{INSIDE}/bin/{name}", "-I", "-S", "-c", TELL]
    said = kit.tool.run(kit.runner, base.made().file, command, what, binds=[Bind(made, INSIDE)]).strip()
    if not newest(wanted, [said]):
        raise MlwfError(
            _("What should be Python {version} is {found}").format(version=wanted, found=said[:40] or "''"),
            cure=_("Correct the folder that MLWF_PYTHONS names, or the mirror."),
        )
    return said


def _name_place(made: Path) -> None:
    """Names its place in the image where uv or the site wrote down where it was installed: here that was a folder of this job's alone."""
    for told in made.glob("lib/python3*/_sysconfig*"):
        text = told.read_text("utf-8")
        prefix = PREFIX.search(text)
        if prefix:
            told.unlink()  # a site's may be read-only
            told.write_text(re.sub(rf"{re.escape(prefix[1])}(?=[/'\"\s:]|$)", INSIDE, text), "utf-8")


def _from_site(wanted: str, into: Path, environ: Mapping[str, str]) -> bool:
    """A folder VERSION below the one that MLWF_PYTHONS names, whole and movable (python-build-standalone and its like)."""
    above = environ.get("MLWF_PYTHONS")
    there = [bin_folder.parent.name for bin_folder in Path(above).glob("*/bin")] if above else []
    version = newest(wanted, there)
    if not above or not version:
        return False
    shutil.copytree(Path(above, version), into, symlinks=True)
    for folder, _folders, _files in os.walk(into):
        Path(folder).chmod(stat.S_IMODE(os.lstat(folder).st_mode) | 0o700)  # a site's may be read-only; the copy is made ready
    return True


def _from_uv(wanted: str, into: Path, work: Path, runner: Runner, mirror: str) -> bool:
    """Raises ProgramError where uv says why it fetches none."""
    fetched = work / "fetched"
    argv: list[str | Path] = ["python", "install", "--no-config", "--no-bin", "--install-dir", fetched, "--no-cache"]
    # As a variable, not an argument: a site's address may hold a password.
    extra = {"UV_PYTHON_INSTALL_MIRROR": mirror} if mirror else {}
    run_uv(runner, [*argv, wanted], _("uv cannot fetch Python {version}").format(version=wanted), within=work, extra=extra)
    found = [each for each in fetched.iterdir() if (each / "bin").is_dir() and not each.is_symlink()]
    if len(found) != 1:
        return False
    found[0].rename(into)
    return True
