"""What kind of file system a path is on, by the kernel's table of mounts."""

from collections.abc import Callable
from pathlib import Path

# Over a network small files take long, and SQLite's locks and shared memory do not hold. The box has the same ones, in a list of its own.
NETWORK = frozenset({
    "9p", "acfs", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "coda", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs",
    "pvfs2", "smb3", "smbfs", "wekafs",
})  # fmt: skip
MOUNTS = Path("/proc/self/mountinfo")


def kinds_of(mounts: Path) -> Callable[[Path], tuple[str, str]]:
    """Tells a path's kind of file system and mount options: those of the longest mount point above it, the last one of equals."""
    table: dict[str, tuple[str, str]] = {}
    for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
        left, _dash, right = line.partition(" - ")
        fields = left.split(" ")
        # As the kernel writes them, spaces and the like are octal.
        point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
        table[point] = (right.split(" ")[0], fields[5])

    def kind_of(path: Path) -> tuple[str, str]:
        real = path.resolve()
        for each in (real, *real.parents):
            if str(each) in table:
                return table[str(each)]
        return "", ""

    return kind_of
