"""Box directories whose folders belong to the box's own uids, though the service's account is not root: what needs root is done by a
one-shot container with four rights, no network and that one directory. Implements the port ``Keeper``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from backend.atomic import ensure_space, make_private, remove_tree, sync_folder
from backend.errors import ServiceError
from backend.runtimes.docker import Engine, EngineConflictError, MissingError
from backend.runtimes.docker_spec import MIB, bind, one_shot
from backend.snapshots import DATABASE, bytes_of, place_file

PYTHON: Final = "/opt/aihub/env/bin/python"
SECONDS: Final = 300.0
"""For the largest of them, the copy of a database of some gigabytes."""
MEMORY: Final = 256 * MIB
PIDS: Final = 16
_SCRIPT: Final = Path(__file__).with_name("keeper_script.py")
_OWNERS: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_DISK_WORDS: Final = ("No space left", "database or disk is full", "Disk quota exceeded")


class ContainerKeeper:
    """``image``: the servers' image name, with ``{version}``: the newest that is there does the work, with its Python."""

    file_mode = 0o640

    def __init__(self, *, engine: Engine, image: str) -> None:
        self._engine = engine
        self._image = image

    def prepare(self, directory: Path, uids: tuple[int, int] | None) -> None:
        """See the port. A box that is prepared already, and whose folders are right, costs one look."""
        if uids is None:
            raise ValueError("a box in containers has uids")
        if _is_prepared(directory, uids):
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        arguments = ["prepare", str(os.geteuid()), str(os.getegid()), *map(str, uids)]
        self._run(arguments, user="0:0", rights=_OWNERS, mounts=[bind(directory, "/box")])

    def remove(self, directory: Path) -> None:
        """See the port."""
        if directory.is_dir() and any(directory.iterdir()):
            self._run(["remove"], user="0:0", rights=("DAC_OVERRIDE", "FOWNER"), mounts=[bind(directory, "/box")])
        remove_tree(directory)

    def copy_database(self, directory: Path, target: Path) -> None:
        """See the port. The box's own uid reads it, in a container that has nothing else: what is in the file cannot reach the service."""
        data = directory / "data"
        ensure_space(target.parent, bytes_of(data / DATABASE), why="copying the database")
        with _exchange(target.parent) as out, (out / DATABASE).open("xb") as ours:
            os.fchmod(ours.fileno(), 0o666)
            out.chmod(0o1777)  # its parent is the service's alone; sticky: the file can be written to, not replaced
            self._run(["copy"], user=_owner_of(data), mounts=[bind(data, "/box/data"), bind(out, "/out")])
            _take(out / DATABASE, ours, target)

    def place_database(self, directory: Path, source: Path) -> None:
        """See the port."""
        data = directory / "data"
        needed, doing = source.stat().st_size, "putting the database back"
        if not data.exists() or data.stat().st_uid == os.geteuid():  # not prepared yet, which gives it its owner
            make_private(data)
            ensure_space(data, needed, why=doing)
            place_file(source, data / DATABASE)
            return
        ensure_space(directory, 2 * needed, why=doing)  # once more for the box's own uid, which cannot read ours
        with _exchange(directory) as given:
            shutil.copyfile(source, given / DATABASE)
            given.chmod(0o755)
            (given / DATABASE).chmod(0o644)
            self._run(["place"], user=_owner_of(data), mounts=[bind(data, "/box/data"), bind(given, "/in", read_only=True)])

    def _run(self, arguments: Sequence[str], *, user: str, mounts: list[Mapping[str, Any]], rights: Sequence[str] = ()) -> None:
        """Errors: ``disk_full``, ``snapshot_failed``, ``image_missing``, ``runtime_unavailable``."""
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
            status, words = self._engine.run(arguments[0], wanted, seconds=SECONDS)
        except (EngineConflictError, MissingError) as error:
            raise ServiceError("runtime_unavailable", runtime="docker", why=str(error)) from error
        if status:
            why = (words.strip().splitlines() or [f"status {status}"])[-1]
            if any(sign in words for sign in _DISK_WORDS):
                raise ServiceError("disk_full", why=f"{arguments[0]} in the server's folder")
            raise ServiceError("snapshot_failed" if arguments[0] in {"copy", "place"} else "keeper_failed", why=why)

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
        raise ServiceError("snapshot_failed", why=f"{found.name} is not the file that was made for it")
    os.fchmod(ours.fileno(), 0o600)
    os.fsync(ours.fileno())
    found.rename(target)
    sync_folder(target.parent)
