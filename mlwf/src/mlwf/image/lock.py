"""The model's requirements as a lock: every package that gets installed, with its version and the hashes of its files."""

import hashlib
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.process import Runner

NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One package of the lock."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """`text`: what `uv pip sync --require-hashes` reads. `python`: the exact version that it is for."""

    text: str
    python: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.python}\n{self.text}".encode()).hexdigest()

    @property
    def packages(self) -> tuple[Locked, ...]:
        found: list[Locked] = []
        for block in re.split(r"\n(?=[A-Za-z0-9])", self.text):
            match = NAMED.match(block)
            if match:
                found.append(Locked(match["name"], match["version"], tuple(HASH.findall(block))))
        return tuple(found)


@dataclass(frozen=True)
class BasePlatform:
    """What wheels the base can run. `glibc`: "2.36"; `architecture`: amd64 or arm64."""

    glibc: str
    architecture: str

    def as_uv(self) -> str:
        """The name of it in uv. Raises MlwfError for a base without glibc, where the wheels that models record do not run."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(self.architecture)
        if not machine or not re.fullmatch(r"2\.[0-9]+", self.glibc):
            raise MlwfError(
                _("Python packages cannot be installed in this base image"),
                _("it has no glibc, or other processors than x86_64 and aarch64"),
                _("Take a base of Debian, Ubuntu, Rocky or another with glibc."),
            )
        return f"{machine}-manylinux_2_{min(int(self.glibc[2:]), 40)}"


def uv_program() -> Path:
    """uv, which comes with this package. Raises MlwfError where it was taken away."""
    import uv

    found = Path(uv.find_uv_bin())
    if not found.is_file():
        raise MlwfError(_("uv is missing in {folder}").format(folder=sysconfig.get_path("scripts")), cure=_("Install mlwf again."))
    return found


def make_lock(
    requirements: Sequence[str],
    python: str,
    platform: BasePlatform,
    *,
    runner: Runner,
    cache: Path,
    folder: Path,
    offline: bool = False,
    only_wheels: bool = True,
) -> Lock:
    """Resolves the requirements for the base. `folder`: for the files between. Raises MlwfError."""
    wanted = folder / "requirements.in"
    wanted.write_text("\n".join(requirements) + "\n")
    options = ["--only-binary", ":all:"] if only_wheels else []
    options += ["--offline"] if offline else []
    text = runner.run(
        [
            uv_program(), "pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet",
            "--python-version", python, "--python-platform", platform.as_uv(), "--cache-dir", cache, *options, wanted,
        ],
        _("The model's packages cannot be resolved"),
    )  # fmt: skip
    return Lock(text, python)
