"""Copies of a tracking server's database: consistent while it is in use, and proven before anything else is touched."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from backend.atomic import ensure_space, full_disk_is_ours, make_private, place_file, remove_tree, sync_file, sync_folder
from backend.errors import ServiceError
from backend.files.manifests import MANIFEST, check_files, describe_files, read_manifest, write_manifest
from backend.files.untrusted_files import ensure_room, is_there, reopen
from backend.i18n import Told
from backend.ports import Keeper
from backend.registry.models import now

DATABASE: Final = "mlflow.db"
SIDES: Final = ("-wal", "-shm", "-journal")
"""Endings of what SQLite keeps beside a database: its last transactions may be there alone, or what takes back half of one. The next who
opens the database plays them into it, whichever database that is by then.
"""
_PART: Final = ".part-"
_TOUCHED: Final = "touched"
_SETTINGS: Final = ("settings.json", "users.json")


def database_of(directory: Path) -> Path:
    """Where a box has its database."""
    return directory / "data" / DATABASE


def files_of(database: Path) -> list[Path]:
    """It and what lies beside it, where they are; itself last, so that who puts them somewhere has it there when all are there."""
    return [path for path in (*(database.with_name(database.name + side) for side in SIDES), database) if is_there(path) is not False]


def mark_of(database: Path) -> list[int] | None:
    """What each write to a database that nobody has open changes; None where its last transactions may lie beside it."""
    beside = [path for path in files_of(database) if not path.name.endswith((DATABASE, "-shm"))]
    if is_there(database) is False or any(path.stat().st_size for path in beside):
        return None
    found = database.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def copied_files(database: Path) -> list[Path]:
    """Those of them that a proven copy is made of; the database itself also where it is not there."""
    wal = database.with_name(database.name + "-wal")
    return [database] if is_there(wal) is False else [database, wal]


class PlainKeeper:
    """Implements the port ``Keeper`` where boxes run as the service's own account: all of a box's directory is its own."""

    file_mode = 0o600

    def is_prepared(self, directory: Path, uids: tuple[int, int] | None) -> bool:  # noqa: ARG002 (the port's)
        """See the port."""
        return directory.is_dir()

    def prepare(self, directory: Path, uids: tuple[int, int] | None) -> None:  # noqa: ARG002 (the port's)
        """See the port. The box makes its own folders."""
        make_private(directory)

    def remove(self, directory: Path) -> None:
        """See the port."""
        remove_tree(directory)

    def reopen(self, directory: Path) -> None:
        """See the port."""
        database = database_of(directory)
        reopen(database.parent, 0o700)
        for path in files_of(database):
            reopen(path, 0o600)

    def copy_database(self, directory: Path, target: Path) -> None:
        """See the port."""
        copy_database(database_of(directory), target)

    def copy_files(self, directory: Path, folder: Path) -> None:
        """See the port."""
        files = files_of(database_of(directory))
        ensure_room(folder, files, why="copying the database's files")
        try:
            with full_disk_is_ours("copying the database's files"):
                for path in files:
                    with suppress(FileNotFoundError):  # a box that runs may put away what lies beside its database
                        place_file(path, folder / path.name)
        except OSError as error:
            raise ServiceError("snapshot_failed", why=f"{error.strerror} ({error.filename})") from error

    def place_database(self, directory: Path, source: Path, *, touching: Callable[[], None] = lambda: None) -> None:
        """See the port."""
        target = database_of(directory)
        make_private(target.parent)
        ensure_space(target.parent, source.stat().st_size, why="putting the database back")
        replace_database(source, target, touching=touching)


class DatabaseCopies:
    """Copies of servers' databases below one folder, for one purpose: of deleted servers (``STATE/kept``), from before an upgrade
    (``previous``), from before what is under way (``replaced``). One folder each, named by the server's id.

    Each holds the database (none where an admin had a server deleted that had lost it), settings.json and users.json as the box had them,
    and a manifest with sizes and sha256. Keys are not in it: the registry has them, encrypted. ``damaged`` in the manifest says why the
    database's files are kept as they lay and not as a proven copy.
    """

    def __init__(self, root: Path, keeper: Keeper | None = None) -> None:
        self._root = root
        self._keeper = keeper or PlainKeeper()

    def folder(self, server_id: str) -> Path:
        """Where the copy is, whether it exists or not."""
        return self._root / server_id

    def exists(self, server_id: str) -> bool:
        """Whether there is a whole copy."""
        return (self.folder(server_id) / MANIFEST).exists()

    def make(self, server_id: str, directory: Path, about: dict[str, Any], *, damaged: bool = False) -> None:
        """Copy the box of ``directory``, replacing an older copy; the copy is proven before it takes its place. ``damaged``: where that
        fails, the database's files are kept as they are, or none where there is none.

        Where the box is gone already, or has no database while an existing copy has, that copy is what was made of it and stays. Errors:
        ``disk_full``, ``snapshot_failed``, ``snapshot_damaged``.
        """
        if not directory.exists() or (is_there(database_of(directory)) is False and self._has_database(server_id)):
            return
        if not damaged and is_there(database_of(directory)) is False:
            raise ServiceError("snapshot_failed", why=Told("its database is not there ({path})", path=database_of(directory)))
        part = self._root / f"{_PART}{server_id}"
        try:
            with full_disk_is_ours("keeping a copy of the database"):
                self._root.mkdir(mode=0o700, exist_ok=True)
                remove_tree(part)
                part.mkdir(mode=0o700)
                _fill(part, directory, about, self._keeper, damaged=damaged)
                remove_tree(self.folder(server_id))
                part.rename(self.folder(server_id))
                sync_folder(self._root)
        finally:
            remove_tree(part)

    def unpack(self, server_id: str, directory: Path) -> None:
        """Put the copy's database into a box's directory, unless it is there already. Errors: ``snapshot_damaged``, ``disk_full``."""
        target = database_of(directory)
        if is_there(target) is not False:
            return
        folder = self.folder(server_id)
        manifest = read_manifest(folder)
        if not manifest["files"].get(DATABASE):
            return
        check_files(folder, manifest)
        with full_disk_is_ours("putting the database back"):
            if manifest.get("damaged"):
                _place_files(folder, target.parent)  # which is not there: it gets its owner with the rest of the box
            else:
                self._keeper.place_database(directory, folder / DATABASE)

    def about(self, server_id: str) -> dict[str, Any]:
        """What the copy says of itself. Error: ``snapshot_damaged``."""
        return read_manifest(self.folder(server_id))

    def put_back(self, server_id: str, directory: Path, *, touching: Callable[[], None] = lambda: None) -> None:
        """Make the copy's database that of a box which does not run, in place of the one that is there; the copy stays. ``touching``: see
        the port ``Keeper``. Errors: ``snapshot_damaged``, ``disk_full``.
        """
        folder = self.folder(server_id)
        check_files(folder, read_manifest(folder))
        with full_disk_is_ours("putting the database back"):
            self._keeper.place_database(directory, folder / DATABASE, touching=touching)

    def _has_database(self, server_id: str) -> bool:
        return self.exists(server_id) and DATABASE in self.about(server_id)["files"]

    def note_touched(self, server_id: str) -> None:
        """From now on, and after a power cut too, the copy may be the only whole one: the box's own database is about to be changed."""
        self.note(server_id, **{_TOUCHED: True})

    def note(self, server_id: str, **facts: Any) -> None:
        """The copy says that of itself besides. Error: ``snapshot_damaged``."""
        folder = self.folder(server_id)
        write_manifest(folder, {**read_manifest(folder), **facts})

    def is_touched(self, server_id: str) -> bool:
        """Whether the box's own database may not be whole any more. Error: ``snapshot_damaged``."""
        return bool(self.about(server_id).get(_TOUCHED))

    def adopt(self, server_id: str, other: DatabaseCopies) -> None:
        """Take over the copy that another folder keeps, in place of ours; done already is fine."""
        if not other.exists(server_id):
            return
        self._root.mkdir(mode=0o700, exist_ok=True)
        self.remove(server_id)
        other.folder(server_id).rename(self.folder(server_id))
        sync_folder(self._root)

    def remove(self, server_id: str) -> None:
        """Remove the copy; gone already is fine."""
        folder = self.folder(server_id)
        part = self._root / f"{_PART}{server_id}"
        remove_tree(part)
        if folder.exists():  # from sight at once: no half of it is ever taken for a copy
            folder.rename(part)
            sync_folder(self._root)
            remove_tree(part)

    def ids(self) -> Sequence[str]:
        """Ids of all servers of which something is kept, remains of a copy that was cut short included."""
        return sorted({path.name.removeprefix(_PART) for path in self._root.iterdir()}) if self._root.is_dir() else []


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database that may be in use, from one moment's state, and prove the copy (``integrity_check``).

    Errors: ``disk_full``, ``snapshot_failed``; ``target`` does not exist then.
    """
    ensure_room(target.parent, copied_files(source), why="copying the database")
    try:
        with full_disk_is_ours("copying the database"):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            with closing(_open(source)) as old, closing(_open(target)) as new:
                old.backup(new)
                # one file, nothing beside it; the box turns its own way of writing on at each start
                new.execute("PRAGMA journal_mode=DELETE")
                _prove(new)
            sync_file(target)
    except (sqlite3.Error, OSError, ServiceError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise ServiceError("snapshot_failed", why=str(error)) from error
        raise


def remove_sides(database: Path) -> None:
    """Nothing lies beside it, after a power cut too: it is to go, and what lies there would be played into the one that comes."""
    for side in SIDES:
        database.with_name(database.name + side).unlink(missing_ok=True)
    sync_folder(database.parent)


def replace_database(source: Path, target: Path, *, touching: Callable[[], None] = lambda: None) -> None:
    """As ``place_file``, where a database may be. Killed after ``touching``, it must be asked for again: the old one lacks its sides."""

    def make_way() -> None:
        touching()
        remove_sides(target)

    place_file(source, target, replacing=make_way)


def _fill(part: Path, directory: Path, about: dict[str, Any], keeper: Keeper, *, damaged: bool) -> None:
    names = [name for name in _SETTINGS if (directory / "config" / name).exists()]
    for name in names:
        shutil.copyfile(directory / "config" / name, part / name)
        (part / name).chmod(0o600)
    if is_there(database_of(directory)) is not False:
        about = {**about, "damaged": _copy(part, directory, keeper, damaged=damaged)}
        names += [path.name for path in files_of(part / DATABASE)]
    write_manifest(part, {**about, "made_at": now().isoformat(), "files": describe_files(part, names)})


def _place_files(folder: Path, data: Path) -> None:
    sources = files_of(folder / DATABASE)
    make_private(data)
    ensure_space(data, sum(path.stat().st_size for path in sources), why="putting the database back")
    for path in sources:
        place_file(path, data / path.name)


def _copy(part: Path, directory: Path, keeper: Keeper, *, damaged: bool) -> str | None:
    """Why the files had to be taken as they are; None for a proven copy."""
    try:
        keeper.copy_database(directory, part / DATABASE)
    except ServiceError as error:
        if not damaged or error.code != "snapshot_failed":
            raise
        keeper.copy_files(directory, part)
        return str(error.params["why"])
    return None


def _prove(database: sqlite3.Connection) -> None:
    verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        raise ServiceError("snapshot_failed", why=str(verdict)[:200])


def _open(path: Path) -> sqlite3.Connection:
    """Only what exists: SQLite would make an empty database of a wrong name."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=20)
