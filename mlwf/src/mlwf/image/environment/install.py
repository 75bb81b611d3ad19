"""The model's environment, from wheels of the user's cache, as the base's own Python would have it."""

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import remove_tree
from mlwf.image.environment.compiled import Compiler
from mlwf.image.environment.lock import BasePlatform, Lock, without_wheel
from mlwf.image.environment.pythons import Python
from mlwf.image.environment.uv_program import announced, run_uv, unwrapped
from mlwf.image.growth import Growth
from mlwf.image.kit import Kit
from mlwf.image.process import ProgramError
from mlwf.image.steps import Meter

ENV = "env"
# The Python that uv is run with, as folders are called.
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# How many bytes of files come of one of the wheels that have them, at most: 3.4 for numpy, scipy and pandas, below 2 for CUDA's libraries.
OF_PACKED = 3
# What a lock depends on besides the requirements.
INDEXES = (
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY", "UV_TORCH_BACKEND",
    "UV_RESOLUTION", "UV_PRERELEASE", "UV_EXCLUDE_NEWER",
)  # fmt: skip


@dataclass(frozen=True)
class Environments:
    """Makes environments for one base and one Python."""

    kit: Kit
    base: ComingBase
    python: Python
    only_wheels: bool = True

    @property
    def wheels(self) -> Path:
        """The cache of uv, ours alone; no container sees it."""
        return self.kit.cache.root / "wheels" / self.python.minor

    def fetch(self, lock: Lock, work: Path, *, offline: bool = False, meter: Meter | None = None) -> None:
        """Gets every wheel of the lock into the cache, with the user's own network and index settings. Raises MlwfError."""
        listed = work.parent / f"{work.name}.fetch.lock"
        listed.write_text(lock.text)
        target = work.parent / f"{work.name}.fetched"
        if meter:
            # uv unpacks what it fetches at once, in a new folder, and moves that to the others of its archive.
            meter.watches(Growth(self.wheels, self.wheels / "archive-v0"), None)
        try:
            run_uv(
                self.kit.runner,
                [
                    "pip", "install", "--no-config", "--no-deps", "--require-hashes", "--no-compile-bytecode",
                    "--cache-dir", self.wheels, "--target", target, *self._for_the_base(), *(["--offline"] if offline else []),
                    "--python", sys.executable, "--requirements", listed,
                ],
                _("The model's packages cannot be fetched"),
                within=work.parent,
                hears=functools.partial(_expected, meter) if meter else None,
            )  # fmt: skip
        finally:
            if target.exists():
                remove_tree(target)

    def install(self, lock: Lock, folder: Path) -> None:
        """Makes `folder`/env, which is /mlwf/env in the image. `folder` is in the job's work folder. Raises ProgramError.

        No code of a package runs: only wheels are unpacked. uv works with the Python of this program, and what it writes down of that is
        turned into the base's.
        """
        env, listed = folder / ENV, folder / "requirements.lock"
        listed.write_text(lock.text)
        what = _("The model's packages cannot be installed")
        options: list[str | Path] = ["--no-config", "--quiet", "--cache-dir", self.wheels]
        run_uv(
            self.kit.runner,
            ["venv", *options, "--relocatable", "--no-project", "--python", sys.executable, env],
            what,
            within=folder.parent,
        )
        links = self._link_places(env)
        run_uv(
            self.kit.runner,
            [
                "pip", "sync", *options, "--offline", "--require-hashes", "--link-mode", "hardlink", "--no-compile-bytecode",
                *self._for_the_base(), "--python", env, listed,
            ],
            what,
            within=folder.parent,
        )  # fmt: skip
        for link in links:
            link.unlink()
        self._name_python(env)
        self._tidy(env)

    def compile(self, folder: Path) -> None:
        """Compiles what `install` has made, by the base's Python, which runs where it cannot write a wheel. Raises ProgramError."""
        packages = f"{ENV}/lib/python{self.python.minor}/site-packages"
        Compiler(self.kit, self.base, self.python).compile(folder / packages, f"/mlwf/{packages}", folder.parent / "compiled")

    def _for_the_base(self) -> list[str]:
        """What makes uv, which runs here, choose the wheels that the base's Python takes."""
        platform = BasePlatform(self.base.facts.glibc, self.base.facts.architecture).as_uv()
        options = ["--only-binary", ":all:"] if self.only_wheels else []
        return ["--python-version", self.python.version, "--python-platform", platform, *options]

    def _link_places(self, env: Path) -> list[Path]:
        """Has uv install into the folders that the base's Python looks at; what is answered is to be removed again."""
        if self.python.minor == HERE:
            return []
        (env / f"lib/python{HERE}").rename(env / f"lib/python{self.python.minor}")
        (env / "include/site").mkdir(parents=True, exist_ok=True)
        (env / f"include/site/python{self.python.minor}").mkdir()
        links = [env / f"lib/python{HERE}", env / f"include/site/python{HERE}"]
        for link in links:
            link.symlink_to(f"python{self.python.minor}")
        return links

    def _name_python(self, env: Path) -> None:
        """Names the base's Python wherever uv wrote down the one of this machine, so that any machine makes the same environment."""
        minor, program = self.python.minor, PurePosixPath(self.python.inside)
        for name, target in (("python", str(program)), ("python3", "python"), (f"python{HERE}", ""), (f"python{minor}", "python")):
            (env / "bin" / name).unlink(missing_ok=True)
            if target:
                (env / "bin" / name).symlink_to(target)
        if (env / f"bin/pip{HERE}").exists():
            (env / f"bin/pip{HERE}").rename(env / f"bin/pip{minor}")
        told = {"home": program.parent, "version_info": self.python.version}
        _rewrite(env / "pyvenv.cfg", r"^(home|version_info) = .*", lambda line: f"{line[1]} = {told[line[1]]}")
        own = rf"^(\.\./\.\./\.\./(?:include/site/python|bin/pip)){re.escape(HERE)}(?=[/,])"
        for record in (env / f"lib/python{minor}/site-packages").glob("*.dist-info/RECORD"):
            _rewrite(record, own, lambda line: line[1] + minor)
        _rewrite(env / "bin/activate_this.py", rf"(?<=lib/python){re.escape(HERE)}(?=/site-packages)", lambda _match: minor)
        for folder in (env / f"include/site/python{minor}", env / "include/site", env / "include"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _tidy(self, env: Path) -> None:
        """Takes away what would differ from one build to the next and nobody needs."""
        for pattern in (".lock", ".gitignore", "CACHEDIR.TAG", f"lib/python{self.python.minor}/site-packages/*.dist-info/uv_cache.json"):
            for file in env.glob(pattern):
                file.unlink()


def _expected(meter: Meter, said: bytearray) -> None:
    packed = announced(said)
    if packed:
        meter.expects(OF_PACKED * packed)


def _rewrite(file: Path, pattern: str, new: Callable[[re.Match[str]], str]) -> None:
    """Changes a small text, in a file of its own: the old one may be a hard link of the cache's."""
    text = file.read_text("utf-8")
    changed = re.sub(pattern, new, text, flags=re.MULTILINE)
    if changed != text:
        file.unlink()
        file.write_text(changed, "utf-8")


def make_or_fetch(environments: Environments, lock: Lock, folder: Path, *, offline: bool, meter: Meter | None = None) -> None:
    """Makes the environment from the cache; where a wheel is missing there, fetches first. Raises MlwfError."""
    mark = environments.wheels / f"{environments.kit.cache.key(lock.digest, environments.base.facts.architecture)}.fetched"
    if not _is_installed(environments, lock, folder, mark):
        try:
            environments.fetch(lock, folder, offline=offline, meter=meter)
        except ProgramError as error:
            said = unwrapped(error.output)
            # A model's uv.lock may be taken as it is: then nobody has asked before. Fetching elsewhere would not help.
            missing = without_wheel(said) if environments.only_wheels else ""
            if missing or not offline:
                error.cure = error.cure or missing or _cure(said)
                raise
            raise MlwfError(
                _("Packages are missing from the cache, and --offline forbids fetching them"),
                error.why,
                _("Run the same command with --fetch-only on a node with internet first."),
            ) from error
        mark.touch()
        environments.install(lock, folder)
    environments.compile(folder)


def _cure(said: str) -> str:
    if "Hash mismatch" in said:
        return _("Run it again with --relock; if it happens again, tell the people who run the index.")
    return _("Check the index (UV_DEFAULT_INDEX, UV_INDEX) and the network, then run it again: what was fetched is kept.")


def _is_installed(environments: Environments, lock: Lock, folder: Path, mark: Path) -> bool:
    """Installs from the cache, if every wheel has been fetched before and is still there."""
    if not mark.exists():
        return False
    mark.touch()  # when these wheels were last used, for prune
    try:
        environments.install(lock, folder)
    except ProgramError as error:
        environments.kit.runner.note(str(error))
        mark.unlink(missing_ok=True)
        if (folder / ENV).exists():
            remove_tree(folder / ENV)
        return False
    return True
