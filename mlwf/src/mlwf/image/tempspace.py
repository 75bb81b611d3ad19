"""Where a job may put gigabytes for a while: a local disk of the node with room enough, found by the batch systems' habits."""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.cache import remove_tree
from mlwf.looks import entries
from mlwf.mounts import MOUNTS, NETWORK, kinds_of
from mlwf.transfer.lease_file import hold, is_over
from mlwf.transfer.workspace import SILENT_SECONDS, is_mine

# SLURM_TMPDIR, SGE_LOCALDIR and PBS_LOCALDIR are made by sites (the last two by ABCI, where /tmp is small); PBS and Grid Engine set
# TMPDIR for each job, and PBS a folder of the job.
VARIABLES = ("APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "SLURM_TMPDIR", "SGE_LOCALDIR", "PBS_LOCALDIR", "TMPDIR", "PBS_JOBDIR")
USUAL = ("/tmp", "/var/tmp")  # noqa: S108  # a folder of its own is made in it, by a name that nobody can guess
MB = 1 << 20
_PREFIX, _LEASE = "mlwf-", "lease"


@dataclass(frozen=True)
class Place:
    """A candidate, who named it, and why it will not do (empty: it will)."""

    path: Path
    named: str
    fault: str


@contextlib.contextmanager
def temporary_folder(environ: Mapping[str, str], asked: Path | None, needed: int) -> Iterator[Path]:
    """A new folder (0700) with `needed` bytes of room, gone at the end. `asked`: the user's own choice, which must do. Raises MlwfError."""
    folder = find_tempspace(environ, asked, needed) / f"{_PREFIX}{secrets.token_hex(8)}"
    folder.mkdir(0o700)
    try:
        with hold(folder / _LEASE):
            yield folder
    finally:
        remove_tree(folder)


def sweep_tempspace(environ: Mapping[str, str], asked: Path | None) -> None:
    """Remove what this user's killed runs left, in each place that `find_tempspace` may answer."""
    for place in {asked} if asked else {*(Path(environ[name]) for name in VARIABLES if environ.get(name)), *map(Path, USUAL)}:
        for folder in entries(place, f"{_PREFIX}*"):
            # the lease lies in a folder that only this user may write, so that nobody else can have put it there
            if is_mine(folder, stat.S_ISDIR) and is_over(folder / _LEASE, silent=SILENT_SECONDS):
                remove_tree(folder)


def find_tempspace(environ: Mapping[str, str], asked: Path | None, needed: int, *, mounts: Path = MOUNTS) -> Path:
    """The first place that will do. Raises MlwfError, which tells what is wrong with each."""
    kinds = kinds_of(mounts)
    places = [Place(asked, "--tmpdir", _fault(asked, needed, kinds))] if asked else list(_places(environ, needed, kinds))
    for place in places:
        if not place.fault:
            return place.path
    raise MlwfError(
        _("There is no room for {size} MB of temporary files").format(size=needed // MB),
        "; ".join(f"{place.path} ({place.named}): {place.fault}" for place in places),
        _("Name a folder on a local disk of this node with --tmpdir."),
    )


def _places(environ: Mapping[str, str], needed: int, kinds: Callable[[Path], tuple[str, str]]) -> Iterator[Place]:
    seen = set()
    named = [*((name, environ.get(name, "")) for name in VARIABLES), *((_("the usual place"), path) for path in USUAL)]
    for name, path in named:
        if path and path not in seen:
            seen.add(path)
            yield Place(Path(path), name, _fault(Path(path), needed, kinds))


def _fault(path: Path, needed: int, kinds: Callable[[Path], tuple[str, str]]) -> str:
    try:
        return _unfit(path, needed, kinds)
    except OSError as error:  # it is below a folder that is closed to this user, say: the next place may do
        return error.strerror or str(error)


def _unfit(path: Path, needed: int, kinds: Callable[[Path], tuple[str, str]]) -> str:
    if not path.is_absolute() or not path.is_dir():
        return _("it is not a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        return _("you may not write there")
    kind, options = kinds(path)
    if kind in NETWORK:
        return _("it is on a network file system ({kind}), which takes minutes for what a local disk does in seconds").format(kind=kind)
    if "noexec" in options.split(","):
        return _("programs may not run there (noexec)")
    state = os.statvfs(path)
    free = state.f_bavail * state.f_frsize
    if free < needed:
        return _("only {free} MB are free").format(free=free // MB)
    return ""
