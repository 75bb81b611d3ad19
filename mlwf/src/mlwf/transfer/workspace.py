"""The folder of an export, or of an image: made hidden, shown complete, gone when anything fails."""

import contextlib
import datetime as dt
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from mlwf.errors import MlwfError
from mlwf.file_server import rename
from mlwf.i18n import _
from mlwf.looks import entries
from mlwf.transfer.lease_file import hold, is_over

DIRECTORY_MODE, FILE_MODE = 0o750, 0o640
PREFIX = "MLWFExportModel_"
PARTIAL, LEASE = ".partial", ".lease"
MARGIN = 16 << 20
# A holder on another host that is silent may only be suspended, and its work would be lost: it gets a day.
SILENT_SECONDS = 86400.0


def now() -> dt.datetime:
    return dt.datetime.now().astimezone()


def visible(folder: Path) -> Path:
    """The folder as the user knows it: of one in a workspace, which is hidden and soon gone, the one above."""
    hidden = (each for each in (folder, *folder.parents) if each.name.startswith(".") and each.suffix == PARTIAL)
    return next((each.parent for each in hidden), folder)


def check_space(folder: Path, needed: int, cure: str) -> None:
    """Raises MlwfError when the file system of `folder` has not `needed` bytes (and a little more) for this user."""
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < needed + MARGIN:
        raise MlwfError(
            _("There is not enough space in {folder}").format(folder=visible(folder)),
            _("{needed} MB are needed, {free} MB are free").format(needed=(needed + MARGIN) >> 20, free=free >> 20),
            cure,
        )


class Workspace:
    """A hidden folder beside the target, renamed by `publish` and removed on leaving without it.

    The name is the local time; where that is taken, the next second is waited for. A lease beside it tells the next run here whether
    this one lives: what killed runs left is removed first. Raises MlwfError.
    """

    def __init__(
        self, parent: Path, *, prefix: str = PREFIX, clock: Callable[[], dt.datetime] = now, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._parent = parent
        self._prefix = prefix
        self._clock = clock
        self._sleep = sleep
        self.target = parent
        self.path = parent
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        _sweep(self._parent, self._prefix)
        while True:
            moment = self._clock()
            self.target = self._parent / f"{self._prefix}{moment:%Y%m%d%H%M%S}"
            self.path = self._parent / f".{self.target.name}{PARTIAL}"
            if not os.path.lexists(self.target):
                try:
                    self.path.mkdir(0o700)
                except FileExistsError:
                    pass
                except OSError as error:
                    raise self._unwritable(error) from error
                else:
                    self._take()
                    return self
            self._sleep(1.0 - moment.microsecond / 1e6)

    def _take(self) -> None:
        """What could not be removed at the end is found by its lease; without one nobody would find it."""
        try:
            self._held.enter_context(hold(self.path.with_suffix(LEASE), keeps=self.path.exists))
        except BaseException as error:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        with self._held:
            self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if not self.path.name.startswith("."):
            return
        for _attempt in range(3):
            try:
                shutil.rmtree(self.path, ignore_errors=True)
            except BaseException:  # noqa: BLE001, S112  # an impatient second Ctrl-C must not leave half of it
                continue
            break
        if error is not None and self.path.exists():
            error.add_note(f"{self.path} could not be removed")

    def check_space(self, needed: int) -> None:
        """Raises MlwfError when the file system has not `needed` bytes (and a little more) for this user."""
        check_space(self.path, needed, _("Free some, or choose another place with --output-dir."))

    def publish(self) -> Path:
        """Shows the complete folder under its name, and answers that."""
        self.path.chmod(DIRECTORY_MODE)
        while True:
            try:
                rename(self.path, self.target)
            except OSError:
                if not os.path.lexists(self.target):
                    raise
                # Somebody took the name meanwhile; a rename never replaces a folder that holds something.
                self._sleep(1.0)
                self.target = self._parent / f"{self._prefix}{self._clock():%Y%m%d%H%M%S}"
            else:
                self.path = self.target
                return self.target

    def _unwritable(self, error: OSError) -> MlwfError:
        return MlwfError(
            _("No folder can be made in {folder}").format(folder=self._parent),
            error.strerror or str(error),
            _("Change to a folder of yours, or name one with --output-dir."),
        )


def _sweep(parent: Path, prefix: str) -> None:
    """Removes what this user's killed runs left in `parent`: hidden folders whose lease is over."""
    for lease in entries(parent, f".{prefix}*{LEASE}"):
        if is_mine(lease, stat.S_ISREG) and is_over(lease, silent=SILENT_SECONDS):
            folder = lease.with_suffix(PARTIAL)
            if is_mine(folder, stat.S_ISDIR):
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():  # else the next run tries again
                with contextlib.suppress(OSError):  # of two who sweep, one gets it
                    lease.unlink()


def is_mine(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether it is this user's own, and of that kind (`stat.S_ISDIR` …) itself: no link to one."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return state.st_uid == os.geteuid() and kind(state.st_mode)
