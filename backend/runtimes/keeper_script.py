"""What the service's account may not do in a box's directory, done inside a one-shot container of the box's image. Standard library only:
its text is handed to the image's Python (``backend.runtimes.keeper``), with the directory at ``/box``.

    prepare SERVICE_UID SERVICE_GID GATE MLFLOW   make the folders, each for who reads or writes it
    open SERVICE_GID                              give folders and database the rights again that they were made with
    remove                                        empty the directory
    copy                                          a proven copy of the database of /box/data in the empty file /out/mlflow.db
    files                                         each file of /out gets the bytes of its namesake in /box/data
    place                                         /in/mlflow.db becomes the database of /box/data

A box's processes can write below some of these folders: nothing here follows a link.
"""

import os
import shutil
import sqlite3
import stat
import sys
from pathlib import Path

BOX, IN, OUT, DATABASE = Path("/box"), Path("/in"), Path("/out"), "mlflow.db"
SIDES = ("-wal", "-shm", "-journal")
"""As `backend.files.snapshots`, which is not here, has them."""
CLOSED = 0o750
INHERITED = 0o2750
"""The group goes on to each new file, so that the service's account writes without any right of root what only one uid reads."""


def prepare(service_uid: int, service_gid: int, gate: int, mlflow: int) -> None:
    """Done already is fine. What was restored or moved from another host gets its owners, too."""
    written_by = {"run": gate, "log": gate, "data": mlflow, "tmp": mlflow}
    for name in ("config", "config/s3"):
        _folder(name)
        for path in (BOX / name).iterdir():
            os.chown(path, service_uid, gate, follow_symlinks=False)
            _mode(path, INHERITED if path.is_dir() else 0o640)
        _give(name, service_uid, gate, INHERITED)
    for name, owner in written_by.items():
        _folder(name)
        for path in (BOX / name).rglob("*"):
            os.chown(path, owner, owner, follow_symlinks=False)
            _mode(path, 0o700 if path.is_dir() else 0o600)
        _give(name, owner, service_gid, CLOSED)
    _folder("spawn")
    _give("spawn", mlflow, mlflow, 0o711)


def reopen(service_gid: int) -> None:
    """Whatever code in the box did to them. Owners stay, and what is not there."""
    for name in ("run", "log", "data", "tmp"):
        if (BOX / name).exists():
            os.chown(BOX / name, -1, service_gid)
        _reopen(BOX / name, CLOSED)
    _reopen(BOX / "spawn", 0o711)
    for side in ("", *SIDES):
        _reopen(BOX / "data" / f"{DATABASE}{side}", 0o600)


def _reopen(path: Path, mode: int) -> None:
    try:
        is_link = stat.S_ISLNK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_link:
        path.chmod(mode)


def _folder(name: str) -> None:
    path = BOX / name
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        sys.exit(f"{name} is no folder")


def _give(name: str, owner: int, group: int, mode: int) -> None:
    os.chown(BOX / name, owner, group)
    (BOX / name).chmod(mode)


def _mode(path: Path, mode: int) -> None:
    if not path.is_symlink():
        path.chmod(mode)


def remove() -> None:
    """The directory itself is the service's, and goes afterwards."""
    for path in BOX.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def copy() -> None:
    """One moment's state, while MLflow writes; ``integrity_check`` before anybody relies on it."""
    source = sqlite3.connect(f"file:{BOX}/data/{DATABASE}?mode=rw", uri=True, timeout=60)
    target = sqlite3.connect(f"file:{OUT}/{DATABASE}?mode=rw", uri=True)  # the service's empty file
    source.backup(target)
    target.execute("PRAGMA journal_mode=DELETE")
    found = target.execute("PRAGMA integrity_check").fetchone()[0]
    source.close()
    target.close()
    if found != "ok":
        sys.exit(f"integrity_check: {found}")


def files() -> None:
    """Byte for byte, whatever is in them; what went meanwhile stays empty."""
    for path in OUT.iterdir():
        try:
            descriptor = os.open(BOX / "data" / path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        with os.fdopen(descriptor, "rb") as source, path.open("r+b") as target:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                sys.exit(f"{path.name} is no file")
            shutil.copyfileobj(source, target)


def place() -> None:
    """Whole or not there. As `replace_database` of `backend.files.snapshots`: what lay beside the database that goes is gone before
    the other comes, after a power cut too, since SQLite would play it into that one.
    """
    os.umask(0o077)
    fresh = BOX / "data" / f".{DATABASE}.new"
    shutil.copyfile(IN / DATABASE, fresh)
    _sync(fresh)
    for side in SIDES:
        (BOX / "data" / f"{DATABASE}{side}").unlink(missing_ok=True)
    _sync(BOX / "data")
    fresh.replace(BOX / "data" / DATABASE)
    _sync(BOX / "data")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(verb: str, *arguments: str) -> None:
    """One verb; a failure is the exit status and the last line."""
    if verb == "prepare":
        prepare(*(int(argument) for argument in arguments))
    elif verb == "open":
        reopen(int(arguments[0]))
    else:
        {"remove": remove, "copy": copy, "files": files, "place": place}[verb]()


if __name__ == "__main__":
    main(*sys.argv[1:])
