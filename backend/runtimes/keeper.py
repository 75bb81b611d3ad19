"""Box directories whose folders belong to the box's own uids, though the service's account is not root: what needs root is done by a
one-shot container with four rights, no network and that one directory. Implements the port ``Keeper``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from backend.atomic import ensure_space, make_private, remove_tree, sync_folder
from backend.errors import ServiceError
from backend.files.snapshots import DATABASE, copied_files, files_of, replace_database
from backend.files.untrusted_files import ensure_room, refuse_links
from backend.i18n import Told
from backend.runtimes import failures
from backend.runtimes.docker import UNREADY, Engine, EngineConflictError, MissingError
from backend.runtimes.docker_spec import MIB, PYTHON, bind, one_shot

SECONDS: Final = 300.0
BYTES_A_SECOND: Final = 4 * MIB
"""What the slowest disk takes and proves: a large database gets the time that it needs."""
MEMORY: Final = 256 * MIB
PIDS: Final = 16
LEAST_UID: Final = 1000
"""As the setting ``uid_first`` has it: a row that says less was not written by the service."""
_SCRIPT: Final = Path(__file__).with_name("keeper_script.py")
_OWNERS: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_LOOKED_INTO: Final = ("run", "log", "data", "tmp")
_ON_DATABASES: Final = frozenset({"copy", "files", "place"})
_DISK_FULL: Final = re.compile(rf"OSError: \[Errno ({errno.ENOSPC}|{errno.EDQUOT})\]|sqlite3\.OperationalError: database or disk is full$")
"""As Python begins its last line; the words after it are the C library's, and a box's files may be called as they like."""


class ContainerKeeper:
    """``image``: the servers' image name, with ``{version}``: the newest that is there does the work, with its Python."""

    file_mode = 0o640

    def __init__(self, *, engine: Engine, image: str) -> None:
        self._engine = engine
        self._image = image

    def is_prepared(self, directory: Path, uids: tuple[int, int] | None) -> bool:
        """See the port."""
        return uids is not None and min(uids) >= LEAST_UID and _is_prepared(directory, uids)

    def prepare(self, directory: Path, uids: tuple[int, int] | None) -> None:
        """See the port. A box that is prepared already, and whose folders are right, costs one look."""
        if uids is None or min(uids) < LEAST_UID:
            raise ValueError("a box in containers has uids, and none of the system's")
        if _is_prepared(directory, uids):
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        arguments = ["prepare", str(os.geteuid()), str(os.getegid()), *map(str, uids)]
        self._run(arguments, box=directory, user="0:0", rights=_OWNERS, mounts=[bind(directory, "/box")])

    def remove(self, directory: Path) -> None:
        """See the port."""
        if directory.is_dir() and any(directory.iterdir()):
            self._run(["remove"], box=directory, user="0:0", rights=("DAC_OVERRIDE", "FOWNER"), mounts=[bind(directory, "/box")])
        remove_tree(directory)

    def reopen(self, directory: Path) -> None:
        """See the port. A box that is as it was made costs one look."""
        if not _is_open(directory):
            self._run(["open", str(os.getegid())], box=directory, user="0:0", rights=_OWNERS, mounts=[bind(directory, "/box")])

    def copy_database(self, directory: Path, target: Path) -> None:
        """See the port. The box's own uid reads it, in a container that has nothing else: what is in the file cannot reach the service."""
        data = directory / "data"
        size = ensure_room(target.parent, copied_files(data / DATABASE), why="copying the database")
        self._fetch("copy", data, {DATABASE: target}, size)

    def copy_files(self, directory: Path, folder: Path) -> None:
        """See the port. As ``copy_database``."""
        data = directory / "data"
        files = files_of(data / DATABASE)
        size = ensure_room(folder, files, why="copying the database's files")
        self._fetch("files", data, {path.name: folder / path.name for path in files}, size)

    def place_database(self, directory: Path, source: Path, *, touching: Callable[[], None] = lambda: None) -> None:
        """See the port."""
        data = directory / "data"
        needed, doing = source.stat().st_size, "putting the database back"
        if not data.exists() or data.stat().st_uid == os.geteuid():  # not prepared yet, which gives it its owner
            make_private(data)
            ensure_space(data, needed, why=doing)
            replace_database(source, data / DATABASE, touching=touching)
            return
        ensure_space(directory, 2 * needed, why=doing)  # once more for the box's own uid, which cannot read ours
        with _exchange(directory) as given:
            shutil.copyfile(source, given / DATABASE)
            given.chmod(0o755)
            (given / DATABASE).chmod(0o644)
            touching()
            mounts = [bind(data, "/box/data"), bind(given, "/in", read_only=True)]
            self._run(["place"], box=directory, user=_owner_of(data), mounts=mounts, size=needed, writes=directory.name)

    def _fetch(self, verb: str, data: Path, targets: Mapping[str, Path], size: int) -> None:
        """Files of the box's own uid become the service's, each through one that was made for it; all targets are in one folder."""
        (folder,) = {target.parent for target in targets.values()}
        with _exchange(folder) as out, ExitStack() as opened:
            ours = {name: opened.enter_context((out / name).open("xb")) for name in targets}
            for file in ours.values():
                os.fchmod(file.fileno(), 0o666)
            out.chmod(0o1777)  # its parent is the service's alone; sticky: the files can be written to, not replaced
            self._run([verb], box=data.parent, user=_owner_of(data), mounts=[bind(data, "/box/data"), bind(out, "/out")], size=size)
            for name, target in targets.items():
                _take(out / name, ours[name], target)

    def _run(
        self,
        arguments: Sequence[str],
        *,
        box: Path,
        user: str,
        mounts: Sequence[Mapping[str, Any]],
        rights: Sequence[str] = (),
        size: int = 0,
        writes: str | None = None,
    ) -> None:
        """``box``: whose it is; ``size``: how many bytes it has to do with; ``writes``: whose database it changes. Errors: ``disk_full``,
        ``snapshot_failed``, ``keeper_failed``, ``image_missing``, ``runtime_unavailable``, ``runtime_refused``.
        """
        refuse_links(box)
        seconds = SECONDS + size / BYTES_A_SECOND
        wanted = {
            **one_shot(memory=MEMORY, pids=PIDS),
            "image": self._newest_image(),
            "entrypoint": [PYTHON, "-I", "-S", "-c", _SCRIPT.read_text(encoding="utf-8")],
            "command": list(arguments),
            "user": user,
            "cap_add": list(rights),
            "mounts": list(mounts),
        }
        try:
            status, words = self._engine.run(arguments[0], wanted, seconds=seconds, writes=writes)
        except (EngineConflictError, MissingError) as error:
            raise failures.refused(error, "runtime_refused", runtime="docker") from error
        if status:
            late = Told("it was not done within {seconds} seconds", seconds=f"{seconds:.0f}")
            silent = late if status == UNREADY else Told("it ended with status {status}", status=status)
            why = (words.strip().splitlines() or [silent])[-1]
            if _DISK_FULL.match(why):
                raise ServiceError("disk_full", why=Told("{verb} in the server's folder", verb=arguments[0]))
            raise ServiceError("snapshot_failed" if arguments[0] in _ON_DATABASES else "keeper_failed", why=why)

    def _newest_image(self) -> str:
        there = self._engine.images(self._image.format(version="*"))
        if not there:
            raise ServiceError("image_missing", image=self._image.format(version="VERSION"))
        return max(there, key=lambda image: image.created).id


def _is_prepared(directory: Path, uids: tuple[int, int]) -> bool:
    service = os.geteuid(), os.getegid()
    wanted = {
        "config": (service[0], uids[0]),
        "config/s3": (service[0], uids[0]),
        "run": (uids[0], service[1]),
        "log": (uids[0], service[1]),
        "data": (uids[1], service[1]),
        "tmp": (uids[1], service[1]),
        "spawn": (uids[1], uids[1]),
    }
    try:
        return all(((found := (directory / name).lstat()).st_uid, found.st_gid) == owners for name, owners in wanted.items())
    except FileNotFoundError:
        return False


def _is_open(directory: Path) -> bool:
    """Whether the service may look into the folders, and the box's own uid has its rights. What is the service's is not prepared yet."""
    for name, rights in {**dict.fromkeys(_LOOKED_INTO, 0o750), "spawn": 0o711}.items():
        found = _seen(directory / name)
        if found is not None and (found.st_mode & rights != rights or (name in _LOOKED_INTO and found.st_gid != os.getegid())):
            return False
    files = filter(None, map(_seen, files_of(directory / "data" / DATABASE)))
    return all(stat.S_ISLNK(found.st_mode) or found.st_mode & 0o600 == 0o600 for found in files)


def _seen(path: Path) -> os.stat_result | None:
    """What is of the box's own uids there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return None if found.st_uid == os.geteuid() else found


def _owner_of(folder: Path) -> str:
    owner = folder.stat().st_uid
    return f"{owner}:{owner}"


@contextmanager
def _exchange(parent: Path) -> Iterator[Path]:
    """A folder through which one file goes."""
    folder = parent / ".exchange"
    remove_tree(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove_tree(folder)


def _take(found: Path, ours: BinaryIO, target: Path) -> None:
    """The file that was made for it becomes ``target``, nothing else that lies in its place. Error: ``snapshot_failed``."""
    if not os.path.samestat(os.fstat(ours.fileno()), found.lstat()):
        raise ServiceError("snapshot_failed", why=Told("{name} is not the file that was made for it", name=found.name))
    os.fchmod(ours.fileno(), 0o600)
    os.fsync(ours.fileno())
    found.rename(target)
    sync_folder(target.parent)
