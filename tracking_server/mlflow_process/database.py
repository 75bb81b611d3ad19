"""The backend store's file before MLflow opens it: made of the template, on a file system that SQLite can trust, of the right schema."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from tracking_server.mlflow_process.plan import Plan

# SQLite's WAL needs shared memory between its users and locks that hold: over a network there is neither.
NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "acfs", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "coda", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs",
    "pvfs2", "smb3", "smbfs", "wekafs",
})  # fmt: skip
BY_KEY = ("latest_metrics", "params", "tags")
"""Tables whose primary key begins with a name that every run may have."""
# A million rows, of which fifty thousand share a name.
_SIZES = "INSERT INTO sqlite_stat1 SELECT ?1, name, '1000000 50000 1' FROM pragma_index_list(?1) WHERE origin = 'pk'"
# SQLITE_ERROR: it has not the table that says its version, as an empty file.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
# On a full disk a sleeping server's database cannot be opened, since its shared memory is a file beside it: SQLite calls that an I/O error.
_WRITABLE = "see that the server's disk has room and can be written to"
_ALONE = "end what else has it open"
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


class DatabaseError(Exception):
    """MLflow must not open this database; one sentence without paths."""


def prepare(plan: Plan, environment: Path, mounts: str | None = None) -> None:
    """Make the database if there is none; turn WAL on, which a copy that was put back lacks, and check the schema.

    Raises:
        DatabaseError: network file system, another version's schema, damage, or what is in the way now, as a full disk.
    """
    kind = file_system(plan.box.data, mounts if mounts is not None else Path("/proc/self/mounts").read_text())
    if kind in NETWORK_FILE_SYSTEMS:
        raise DatabaseError(f"the server's data is on {kind}, where SQLite loses data: move the service's state to a local disk")
    expected = json.loads((environment / "version.json").read_text())["schema_revision"]
    try:
        if not plan.box.database.exists():
            make(plan, environment / "template.db")
        # "rw": what a killed MLflow left half done is taken back by whoever may write.
        with closing(sqlite3.connect(f"file:{plan.box.database}?mode=rw", uri=True)) as connection:
            turn_on_wal(connection)
            check_schema(connection, expected)
            tell_sizes(connection)
    except OSError as error:
        raise DatabaseError(_in_the_way(error.strerror or type(error).__name__, _WRITABLE)) from None
    except sqlite3.DatabaseError as error:
        raise DatabaseError(_words(error)) from None


def _words(error: sqlite3.DatabaseError) -> str:
    """Damage only where SQLite itself calls it that: who puts back a backup because the disk is full loses what came after it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # none: a text in it is no text
    if code in _DAMAGE:
        return f"the server's database cannot be read ({error}): restore it from a backup"
    return _in_the_way(str(error), _ALONE if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else _WRITABLE)


def _in_the_way(what: str, cure: str) -> str:
    return f"the server's database cannot be opened now ({what}); leave it as it is: {cure}; it is tried again by itself"


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, by a mount table in the form of /proc/mounts; the last mount of a place counts."""
    real, best, kind = str(path.resolve()), "", ""
    for line in mounts.splitlines():
        place, type_ = line.split(" ")[1:3]
        for escape, character in _ESCAPES.items():
            place = place.replace(escape, character)
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, type_
    return kind


def make(plan: Plan, template: Path) -> None:
    """A copy of the template whose default experiment is this server's own, and made now; whole, or not there."""
    part = plan.box.database.with_name("mlflow.db.part")
    shutil.copyfile(template, part)
    part.chmod(0o600)
    with closing(sqlite3.connect(part)) as database:
        database.execute("PRAGMA journal_mode = MEMORY")  # killed here, it leaves nothing beside the part that the next one would read
        with database:
            now, location = round(time.time() * 1000), plan.artifact_root.rstrip("/") + "/0"
            database.execute("UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ?", (location, now, now))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(plan.box.database)


def turn_on_wal(connection: sqlite3.Connection) -> None:
    """It stays on, in the file. Where a backup reads a database that has it not yet, the next start turns it on: MLflow works without."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise


def tell_sizes(connection: sqlite3.Connection) -> None:
    """SQLite takes the name of a metric, parameter or tag for a rare thing as long as it has no numbers, and compares each run with each to
    put them in order by one: seconds with some thousand runs, not done in minutes with 100,000. So it gets numbers of a large server, whose
    plans are good for a small one, too. Where it has some already, those stay. What is in the way, as a full disk, keeps
    no server down; it is in MLflow's log.
    """
    try:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",) or not _lacking(connection):  # else a reader may be waited for
            return
        connection.execute("ANALYZE sqlite_master")  # makes the table of numbers, and fills in nothing
        with connection:
            connection.executemany(_SIZES, [(each,) for each in _lacking(connection)])
    except sqlite3.OperationalError as error:
        sys.stderr.write(f"the sizes by which SQLite plans were not written ({error}): many runs are put in order slowly\n")


def _lacking(connection: sqlite3.Connection) -> list[str]:
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()
    known = {name for (name,) in connection.execute("SELECT tbl FROM sqlite_stat1")} if there else set()
    return [each for each in BY_KEY if each not in known]


def check_schema(connection: sqlite3.Connection, expected: str) -> None:
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if not found or found[0] != expected:
        was = found[0] if found else "none"
        message = f"the server's database has schema {was} and this MLflow needs {expected}: upgrade the server (its data is left as it is)"
        raise DatabaseError(message)
