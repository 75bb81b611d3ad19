"""An ordinary user of this machine, and a Python that such a one may run: the development environment's may lie in root's home."""

import os
import pwd
import shlex
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = pwd.getpwnam("games")
"""One of Debian's own accounts, so that none has to be made; `GROUP` is its group."""
GROUP = "games"
# A folder appears alone in one that nobody else may enter: what else is there stays unseen.
_ALONE = 'mount --bind "$2" /mnt && mount -t tmpfs -o mode=755 tmpfs "$1" && mkdir -p "$2" && mount --bind /mnt "$2" && umount /mnt'


def as_ordinary(*, without: Path | None = None) -> list[str]:
    """What a command begins with that root runs as that user, with a look of its own at the file system.

    The development environment's Python is there wherever it lies, so that what this checkout's .venv holds can be run as it is.
    `without`: a folder that is empty there.
    """
    prefix = Path(sys.base_prefix).resolve()
    closed = [folder for folder in prefix.parents if not folder.stat().st_mode & stat.S_IXOTH]
    steps = ["set -e"]
    steps += [f'set -- {shlex.quote(str(closed[-1]))} {shlex.quote(str(prefix))} "$@"; {_ALONE}; shift 2'] if closed else []
    steps += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(without))}"] if without else []
    user = ["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
    return ["unshare", "--mount", "sh", "-c", "\n".join([*steps, f'exec {shlex.join(user)} "$@"']), "sh"]


def everyones_python() -> str:
    """An interpreter of this Python's version that every user may start. AssertionError where there is none."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        path = Path(program)
        open_to_all = all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])
        if open_to_all and _version(program) == f"{sys.version_info.major}.{sys.version_info.minor}":
            return program
    raise AssertionError("no Python of this version that every user may run: install Debian's python3")


def write_program(path: Path, module: str) -> Path:
    """A program that runs a module of this checkout, for every user."""
    places = f"{sysconfig.get_paths()['purelib']}:{ROOT / 'mlwf' / 'src'}:{ROOT}"
    words = [everyones_python(), "-P", "-m", module]
    path.write_text(f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(places)} PYTHONDONTWRITEBYTECODE=1\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return path


def _version(program: str) -> str:
    done = subprocess.run([program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=False)
    return done.stdout.strip()
