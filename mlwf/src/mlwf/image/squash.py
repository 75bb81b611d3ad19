"""Calls of mksquashfs: a new file system, and one that is appended to; the same bytes for the same files."""

import os
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image import sif
from mlwf.image.process import Runner
from mlwf.image.tool import Squasher


@dataclass(frozen=True)
class Squash:
    """mksquashfs with this job's processors. `memory`: megabytes."""

    squasher: Squasher
    processors: int
    memory: int

    def create(self, runner: Runner, folder: Path, target: Path, *, offset: int) -> int:
        """Writes `folder` as a squashfs at `offset` of the new file, times of files as they are. The size in bytes. Raises MlwfError."""
        return self._run(runner, [folder, target], target, offset, ["-noappend", "-no-xattrs", *self.squasher.compressor])

    def append(self, runner: Runner, folder: Path, target: Path, *, offset: int) -> int:
        """Adds `folder` as a folder of the root to the squashfs at `offset`, whose own bytes stay. The new size. Raises MlwfError."""
        options = ["-keep-as-directory", "-all-time", str(sif.EPOCH), "-no-xattrs"]
        return self._run(runner, [folder, target], target, offset, options)

    def _run(self, runner: Runner, paths: list[Path], target: Path, offset: int, options: list[str]) -> int:
        common = ["-offset", str(offset), "-no-recovery", "-no-progress", "-all-root", "-mkfs-time", str(sif.EPOCH), "-quiet"]
        resources = ["-processors", str(self.processors), "-mem", f"{self.memory}M"]
        # By itself it makes an empty file of what it cannot read, leaves out such a folder, and ends well.
        whole = ["-exit-on-error"]
        # With SOURCE_DATE_EPOCH beside times of ours, mksquashfs ends at once.
        quiet = ["env", "-u", "SOURCE_DATE_EPOCH"]
        cure = _("Run it again where there is more memory; if it happens again, tell the admins the version of squashfs-tools ({version}).")
        runner.run(
            [*quiet, self.squasher.path, *paths, *common, *whole, *resources, *options],
            _("The image cannot be packed"),
            cure=cure.format(version=self.squasher.version),
        )
        size = target.stat().st_size - offset
        _check(target, offset, size)
        return size


def _check(target: Path, offset: int, size: int) -> None:
    """A mksquashfs that crashed can leave a file that looks whole: the superblock must say how long it is."""
    with target.open("rb") as file:
        superblock = os.pread(file.fileno(), 96, offset)
    used = int.from_bytes(superblock[40:48], "little") if superblock[:4] == sif.SQUASHFS_MAGIC else -1
    if not 0 < used <= size:
        raise MlwfError(
            _("The image that mksquashfs wrote is not whole"),
            cure=_("Try again; if it happens again, report the version of squashfs-tools."),
        )
