"""The Python that runs the tests as python-build-standalone publishes one: it runs wherever it is unpacked. And a list of it for uv."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

VERSION = platform.python_version()
MINOR = VERSION.rpartition(".")[0]
# As it stands in an address: the + of its name is quoted.
RELEASE = f"20240107/cpython-{VERSION}%2B20240107-linux-install_only_stripped.tar.gz"
GITHUB = "https://github.com/astral-sh/python-build-standalone/releases/download"
# What theirs were configured with, and name as their folder until they are installed.
PREFIX = "/install"
LEFT_OUT = ("site-packages", "test", "idlelib", "tkinter", "turtledemo", "__pycache__", "config-*", "_tkinter*")


@dataclass(frozen=True)
class Movable:
    """`archive`: what the mirror serves at /RELEASE; `listed`: the file for UV_PYTHON_DOWNLOADS_JSON_URL, which knows this one alone."""

    archive: bytes
    listed: Path


def can_move() -> bool:
    """Whether the Python of the tests is one by itself (pyenv's, uv's, CI's): the system's is spread over /usr."""
    return sys.base_prefix not in {"/usr", "/usr/local"}


def movable_python(folder: Path) -> Movable:
    """Made in `folder`, in some seconds. Needs patchelf."""
    made = folder / "python"
    source = Path(sys.base_prefix)
    shutil.copytree(source / "lib" / f"python{MINOR}", made / "lib" / f"python{MINOR}", ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(source / "include", made / "include")
    (made / "lib" / f"python{MINOR}" / "site-packages").mkdir()
    for library in source.glob(f"lib/libpython{MINOR}.so*"):
        shutil.copy2(library, made / "lib", follow_symlinks=False)
    program = made / "bin" / f"python{MINOR}"
    program.parent.mkdir()
    shutil.copy2(source / "bin" / program.name, program)
    subprocess.run(["patchelf", "--set-rpath", "$ORIGIN/../lib", program], check=True)
    for name in ("python", "python3"):
        program.with_name(name).symlink_to(program.name)
    (told,) = made.glob("lib/python*/_sysconfigdata_*.py")
    told.write_text(told.read_text().replace(sys.base_prefix, PREFIX))
    archive = folder / "python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(made, "python")
    shutil.rmtree(made)
    return Movable(archive.read_bytes(), _list_of(archive, folder / "downloads.json"))


def _list_of(archive: Path, listed: Path) -> Path:
    machine = platform.machine()
    major, minor, patch = (int(part) for part in VERSION.split("."))
    entry = {
        "name": "cpython", "arch": {"family": machine, "variant": None}, "os": "linux", "libc": "gnu", "major": major, "minor": minor,
        "patch": patch, "prerelease": "", "url": f"{GITHUB}/{RELEASE}", "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None, "build": "20240107",
    }  # fmt: skip
    listed.write_text(json.dumps({f"cpython-{VERSION}-linux-{machine}-gnu": entry}))
    return listed
