"""A real file system of a few megabytes, for what happens when it is full. Needs root."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

BALLAST = "ballast"
# A large file leaves some blocks, which it reserved for more than it took: they go one by one, the last of them to files of their own.
_FILL = """
cat /dev/zero >"$1" 2>/dev/null; sync -f "$1"
dd if=/dev/zero of="$1" bs=4096 oflag=append,dsync conv=notrunc 2>/dev/null
number=0
while printf x 2>/dev/null >"$1.$number" && sync "$1.$number"; do number=$((number + 1)); done
"""


@contextlib.contextmanager
def small_volume(place: Path, megabytes: int) -> Iterator[None]:
    """An ext4 of that size mounted at `place`, all of it for anybody, and gone at the end."""
    descriptor, name = tempfile.mkstemp(prefix="volume-", dir="/tmp")
    try:
        os.truncate(descriptor, megabytes << 20)
        _run("mkfs.ext4", "-q", "-m", "0", name)
        _run("mount", "-o", "loop", name, str(place))
        try:
            (place / "lost+found").rmdir()
            yield
        finally:
            _run("umount", str(place))
    finally:
        os.close(descriptor)
        Path(name).unlink()


def fill(place: Path) -> None:
    """Leave not a block free."""
    _run("sh", "-c", _FILL, "sh", str(place / BALLAST))


def make_room(place: Path) -> None:
    """Undo `fill`."""
    _run("rm", "-f", *map(str, place.glob(f"{BALLAST}*")))


def _run(*argv: str) -> None:
    """As root, also in a process that acts as another account."""
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(argv, env=environment, user=0, group=0, check=True, capture_output=True, timeout=60)
