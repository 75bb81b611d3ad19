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
