"""What the service needs of the world. Adapters implement these; the logic knows nothing else of them.

Every method names its errors. "Gone already" is success for stop and remove.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mlwf.secret import Secret

from backend.domain import Box, Caller, Group, Observation, Probe, SizeClass, Storage, StorageKey


class Runtime(Protocol):
    """Runs boxes. It is the truth of what runs: nothing of it is remembered elsewhere."""

    name: str
    isolates: bool
    """Whether two groups' servers are kept apart. Where not, the service refuses it unless ``allow_unisolated`` is set."""

    def start(self, *, server_id: str, directory: Path, mlflow_version: str, size: SizeClass) -> None:
        """Start the box of ``directory`` with the limits of ``size``; one that runs already is left alone. Returns when it was started,
        not when it answers.

        Errors: ``box_failed_to_start`` (with the log's last lines), ``version_missing``, ``OSError`` of a full disk.
        """

    def migrate(self, *, server_id: str, directory: Path, mlflow_version: str, timeout: float) -> None:
        """Bring the database of a box that does not run to the schema of that version, by that version's own environment
        (``python -P -m tracking_server.migrate DATABASE``), without network. Nothing of it runs at the end.

        Errors: ``migration_failed`` (with what it said last), ``version_missing``, ``OSError`` of a full disk.
        """

    def stop(self, *, server_id: str, directory: Path, timeout: float) -> None:
        """Stop it, give requests under way ``timeout`` seconds, then kill. All of it is gone at the end. Error: ``box_failed_to_stop``."""

    def observe(self, *, server_id: str, directory: Path, address: tuple[str, int]) -> Observation:
        """What it is now. Its ``/mlflow/-/health`` is asked for where it listens; ``address``: where it would if it were started now, for
        what is not known to listen elsewhere. Never raises for a box that is ill.
        """

    def running(self) -> Sequence[str]:
        """Ids of all boxes of ours that this runtime runs, those that no row knows included."""

    def logs(self, *, server_id: str, directory: Path, lines: int) -> str:
        """The last lines of the box's logs, without secrets."""


class ObjectStore(Protocol):
    """Tries an object store with somebody's key. Makes and removes one small object below the prefix, nothing else."""

    def probe(self, *, storage: Storage, key: StorageKey) -> Probe:
        """Write, read, list, multipart and delete below the prefix.

        Errors: ``storage_key_unknown``, ``storage_secret_wrong``, ``storage_bucket_missing``, ``storage_forbidden``,
        ``storage_unreachable`` (host, port, TLS), ``storage_not_s3``, ``storage_clock``.
        """


class Trial(Protocol):
    """Is a client of a tracking server, to see whether its MLflow does what clients ask for. ``password`` is that of the trial's user."""

    def try_out(self, *, address: tuple[str, int], password: Secret, version: str, folder: str) -> None:
        """Log, search, store and fetch an artifact, register a model, on a copy that is thrown away; the artifact lies below ``folder`` in
        the server's own prefix, and is removed. Error: ``version_unfit``.
        """

    def look(self, *, address: tuple[str, int], password: Secret, version: str) -> None:
        """Only read. Error: ``version_unfit``."""


class Directory(Protocol):
    """Users and groups of the site (NSS). An error of it denies: ``directory_failed``."""

    def caller(self, *, uid: int) -> Caller:
        """Who that uid is, with all groups. Errors: ``caller_unknown``, ``directory_failed``."""

    def uid_of(self, *, user: str) -> int | None:
        """The uid of that user; None when there is none. Error: ``directory_failed``."""

    def group(self, *, name: str) -> Group | None:
        """The group of that name now; None when there is none."""

    def is_member(self, *, user: str, gid: int) -> bool:
        """Whether that user is in that group now. A user who is gone is in none."""

    def members(self, *, group: Group) -> Sequence[str]:
        """The members that NSS lists (primary members may be missing where NSS does not enumerate)."""


class Keeper(Protocol):
    """Does in a box's directory what the service's account may not do itself, where the box runs as other uids."""

    file_mode: int
    """Of the files that the service writes and the box reads."""

    def is_prepared(self, directory: Path, uids: tuple[int, int] | None) -> bool:
        """Whether ``prepare`` would change nothing. Only looks."""

    def prepare(self, directory: Path, uids: tuple[int, int] | None) -> None:
        """Make the directory with the folders that the service writes to. Done already is fine. Error: ``keeper_failed``."""

    def remove(self, directory: Path) -> None:
        """Remove it, whoever owns what is in it; gone already is fine. Error: ``keeper_failed``."""

    def reopen(self, directory: Path) -> None:
        """Folders and database of a box that does not run have the rights again that they were made with, whatever code in it did; one that
        is not there is fine. Error: ``keeper_failed``.
        """

    def copy_database(self, directory: Path, target: Path) -> None:
        """A proven copy of the box's database, from one moment while it is in use; ``target`` is whole or not there.

        Errors: ``disk_full``, ``snapshot_failed``, ``FileNotFoundError``.
        """

    def copy_files(self, directory: Path, folder: Path) -> None:
        """The database's files, byte for byte and in whatever state they are, into ``folder`` by their own names.

        Errors: ``disk_full``, ``snapshot_failed``.
        """

    def place_database(self, directory: Path, source: Path, *, touching: Callable[[], None] = lambda: None) -> None:
        """Make a copy the database of a box that does not run. Until ``touching`` is called, the one that was there is as it was.

        Errors: ``disk_full``, ``snapshot_failed``.
        """


class BoxFiles(Protocol):
    """The directory of each box (docs/reference/box.md): written by the service, read by the box."""

    def directory(self, server_id: str) -> Path:
        """Where it is, whether it exists or not."""

    def is_installed(self, box: Box) -> bool:
        """Whether ``install`` would change nothing. Nothing is written."""

    def install(self, box: Box) -> bool:
        """Make the directory and its ``config/`` say what ``box`` says; each file by rename,
        only where it differs. True if something changed.
        """

    def retract(self, box: Box) -> bool:
        """Take from a box that is there the tokens that ``box`` does not name, and end the sessions that it says are over, or under a
        ticket key that it has no more; a box that takes tickets takes them by its newer key, too. Nothing is given to anybody. Safe beside
        ``install`` and ``remove``. True if something changed. Error: ``disk_full``.
        """

    def config(self, server_id: str) -> Mapping[str, int | None]:
        """The files of ``config/`` as they are now, as ``Observation.config`` has them."""

    def reopen(self, server_id: str) -> None:
        """What code in a box that does not run any more closed to the service is open again. Error: ``keeper_failed``."""

    def remove(self, server_id: str) -> None:
        """Remove the whole directory, the database included."""

    def ids(self) -> Sequence[str]:
        """Ids of all box directories on disk."""
