"""Each server's part of a backup: its database and what is kept of it, wherever that lies by now."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from backend.atomic import full_disk_is_ours, make_private, place_file, remove_tree
from backend.errors import ServiceError
from backend.files.manifests import MANIFEST
from backend.files.snapshots import DATABASE, DatabaseCopies, database_of
from backend.files.untrusted_files import is_there
from backend.ports import Keeper
from backend.settings import Settings

SERVERS: Final = "servers"
DAMAGED: Final = "damaged"
"""Folder of a backup for the files of databases of which no proven copy could be made: each server's as they lay."""


class ServerCopies:
    """Copies servers into ``part``, the backup that is being made. What cannot be copied is noted in ``failures`` and stops no other."""

    def __init__(self, part: Path, settings: Settings, keeper: Keeper) -> None:
        self._part = part
        self._settings = settings
        self._keeper = keeper
        self.failures: list[dict[str, Any]] = []

    def copy(self, server: dict[str, Any]) -> bool:
        """Copy the server's database, or what is kept of it, and what may take its place again. False where there is no proven copy.

        A delete or a restore may move it since the registry was copied: what the registry's copy says decides where it lies in the backup.
        Errors: ``disk_full``, ``runtime_unavailable``, ``image_missing``, ``OSError``.
        """
        server_id = str(server["id"])
        kept, directory = self._settings.kept_dir / server_id, self._settings.servers_dir / server_id
        for folder in (self._settings.previous_dir, self._settings.replaced_dir):
            self._copy_copy(server, folder / server_id)
        replaced = DatabaseCopies(self._part / self._settings.replaced_dir.name)
        if replaced.exists(server_id):
            replaced.note_touched(server_id)  # if it is not yet, it may be when the server's own database is copied, a moment from now
        for _look in range(2):  # it may have moved between the looks at its two places
            if server["deleted"]:
                place, found = kept.parent.name, self._copy_copy(server, kept) or self._keep_copy(server, directory)
            else:
                place, found = SERVERS, self._copy_database(server, directory) or self._place_kept(kept)
            if found:
                break
        return (self._part / place / server_id / DATABASE).exists()

    def miss(self, server: dict[str, Any]) -> None:
        """Nothing of its database was found. A disk that is not mounted looks so, and a backup without it must not pass for a whole one."""
        if all(failure["id"] != server["id"] for failure in self.failures):
            self._fail(server, f"its database is not there ({database_of(self._settings.servers_dir / server['id'])})")

    def forget(self, server_id: str) -> None:
        """Nothing of the server is in the backup, so that it can be copied anew."""
        for name in (SERVERS, DAMAGED, *(folder.name for folder in self._settings.copies_dirs)):
            remove_tree(self._part / name / server_id)
        self.failures = [failure for failure in self.failures if failure["id"] != server_id]

    def _copy_database(self, server: dict[str, Any], directory: Path) -> bool:
        """True where there is one, in whatever state."""
        target = self._part / SERVERS / directory.name / DATABASE
        make_private(target.parent)
        try:
            self._keeper.copy_database(directory, target)
        except (FileNotFoundError, ServiceError) as error:
            if is_there(database_of(directory)) is False:
                return False
            if not isinstance(error, ServiceError) or error.code != "snapshot_failed":
                raise
            self._copy_files(server, directory, str(error.params["why"]))
        return True

    def _copy_files(self, server: dict[str, Any], directory: Path, why: str) -> None:
        folder = self._part / DAMAGED / directory.name
        make_private(folder)
        try:
            self._keeper.copy_files(directory, folder)
        except ServiceError as error:
            if error.code != "snapshot_failed":
                raise
            why = f"{why}; {error.params['why']}"
        self._fail(server, why)

    def _place_kept(self, kept: Path) -> bool:
        """Deleted since the registry was copied: it is a server of the backup like any other."""
        try:
            place_file(kept / DATABASE, self._part / SERVERS / kept.name / DATABASE)
        except FileNotFoundError:
            if (kept / DATABASE).exists():
                raise
            return False
        return True

    def _keep_copy(self, server: dict[str, Any], directory: Path) -> bool:
        """Restored since the registry was copied: it is a deleted server of the backup like any other."""
        about = {"server_id": server["id"], "mlflow_version": server["mlflow_version"], "schema_revision": server["schema_revision"]}
        copies = DatabaseCopies(self._part / self._settings.kept_dir.name, self._keeper)
        try:
            copies.make(server["id"], directory, about, damaged=True)
        except (FileNotFoundError, ServiceError) as error:
            if isinstance(error, ServiceError) and error.code == "snapshot_failed":
                self._fail(server, str(error.params["why"]))
                return True
            if is_there(database_of(directory)) is not False:
                raise
        if not copies.exists(server["id"]):
            return False
        why = copies.about(server["id"]).get("damaged")
        if why is not None:
            self._fail(server, why)
        return True

    def _copy_copy(self, server: dict[str, Any], copy: Path) -> bool:
        """A kept copy, into the folder of its kind. False where there is none."""
        target = self._part / copy.parent.name / copy.name
        try:
            with full_disk_is_ours("making the backup"):
                for path in copy.iterdir():
                    make_private(target)
                    place_file(path, target / path.name)
        except OSError as error:
            remove_tree(target)
            if not (copy / MANIFEST).exists():  # it went since the registry was copied
                return False
            self._fail(server, f"{error.strerror} ({error.filename})")
            return True
        return target.exists()

    def _fail(self, server: dict[str, Any], why: str) -> None:
        self.failures.append({**{name: server[name] for name in ("id", "group", "env_name")}, "why": why})
