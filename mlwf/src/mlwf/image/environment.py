"""The model's environment, built inside the base without network, from wheels of the user's cache."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.base import ComingBase
from mlwf.image.cache import remove_tree
from mlwf.image.kit import Kit
from mlwf.image.lock import BasePlatform, Lock, uv_program
from mlwf.image.process import ProgramError
from mlwf.image.pythons import Python
from mlwf.image.requirements import without_passwords
from mlwf.image.tool import Bind

# The cache and the new environment are one mount in the container: hard links do not cross mounts.
INSIDE = "/mlwf-build"
UV_INSIDE = "/mlwf-uv"
ENV = "env"
# Index addresses are part of the names in uv's cache, so that the offline install needs the same ones.
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY", "UV_TORCH_BACKEND")
# Compiles what has no .pyc yet; each .pyc names the file where it will be in the image, and is never checked against it. The packages' own
# tests stay as they are: nobody imports them, and they are a quarter to a half of pandas, SciPy and their like.
COMPILE = """
import concurrent.futures, importlib.util, os, py_compile, sys
above, final, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])

def compiled(path):
    try:
        py_compile.compile(path, doraise=True, dfile=final + path[len(above):], quiet=2,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except Exception:
        return None  # templates and sources for another Python are no failure
    return path

def main():
    missing = []
    for folder, folders, names in os.walk(above):
        folders[:] = [each for each in folders if each != "tests"]
        have = set(os.listdir(folder + "/__pycache__")) if os.path.isdir(folder + "/__pycache__") else ()
        for name in sorted(names):
            if name.endswith(".py") and os.path.basename(importlib.util.cache_from_source(name)) not in have:
                missing.append(os.path.join(folder, name))
    if missing:
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            for path in pool.map(compiled, missing, chunksize=32):
                if path:
                    print(os.path.relpath(importlib.util.cache_from_source(path), above))

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Environments:
    """Makes environments for one base and one Python."""

    kit: Kit
    base: ComingBase
    python: Python
    only_wheels: bool = True

    @property
    def wheels(self) -> Path:
        """The cache of uv, ours alone and for one minor version of Python: the wheels in it carry that one's .pyc."""
        return self.kit.cache.root / "wheels" / self.python.version.rpartition(".")[0]

    def fetch(self, lock: Lock, work: Path, *, offline: bool = False) -> None:
        """Gets every wheel of the lock into the cache, with the user's own network and index settings. Raises MlwfError."""
        listed = work.parent / f"{work.name}.fetch.lock"
        listed.write_text(lock.text)
        target = work.parent / f"{work.name}.fetched"
        options = ["--only-binary", ":all:"] if self.only_wheels else []
        options += ["--offline"] if offline else []
        platform = BasePlatform(self.base.facts.glibc, self.base.facts.architecture).as_uv()
        try:
            self.kit.runner.run(
                [
                    uv_program(), "pip", "install", "--no-config", "--no-deps", "--require-hashes", "--quiet", "--cache-dir", self.wheels,
                    "--target", target, "--python-version", self.python.version, "--python-platform", platform, *options,
                    "--requirements", listed,
                ],
                _("The model's packages cannot be fetched"),
            )  # fmt: skip
        finally:
            if target.exists():
                remove_tree(target)

    def make(self, lock: Lock, folder: Path) -> None:
        """Makes `folder`/env, which is /mlwf/env in the image. `folder` is in the cache's work folder. Raises ProgramError.

        No code of a package runs: only wheels are unpacked, and Python starts without what they installed.
        """
        (folder / "requirements.lock").write_text(lock.text)
        inside = f"{INSIDE}/{folder.relative_to(self.kit.cache.root)}"
        options = "--only-binary :all:" if self.only_wheels else ""
        script = (
            'set -e; uv venv --no-config --quiet --relocatable --no-project --python "$1" "$2/env"\n'
            "uv pip sync --no-config --quiet --offline --require-hashes --link-mode hardlink "
            f'{options} --python "$2/env" "$2/requirements.lock"\n'
            f'exec "$1" -I -S -B "$2/compile.py" "$2/env/lib/python{self._minor}/site-packages" '
            f'"/mlwf/env/lib/python{self._minor}/site-packages" "$3"\n'
        )
        (folder / "compile.py").write_text(COMPILE)
        said = self.kit.runner.run(
            self.kit.tool.argv(
                self.base.made().file,
                ["/bin/sh", "-c", script, "sh", self.python.inside, inside, str(self.kit.processors)],
                binds=[
                    Bind(self.kit.cache.root, INSIDE, writable=True),
                    Bind(uv_program().parent, UV_INSIDE),
                    *self.python.binds(),
                    *self._found_here(),
                ],
                network=False,
            ),
            _("The model's packages cannot be installed"),
            extra=self.kit.tool.inside(self._variables()),
        )
        (folder / "compile.py").unlink()
        self._keep_compiled(folder / ENV, said.splitlines())
        self._tidy(folder / ENV)

    @property
    def _minor(self) -> str:
        return self.python.version.rpartition(".")[0]

    def _variables(self) -> dict[str, str]:
        variables = {
            "PATH": f"{UV_INSIDE}:/usr/local/bin:/usr/bin:/bin",
            "UV_CACHE_DIR": f"{INSIDE}/{self.wheels.relative_to(self.kit.cache.root)}",
            "UV_PYTHON_DOWNLOADS": "never",
            "PYTHONHASHSEED": "0",
            "HOME": "/tmp",  # noqa: S108  # the container's own, empty
        }
        # uv knows what it fetched by the index's address without its password, and nothing is fetched here.
        given = self.kit.runner.environ
        return variables | {name: without_passwords(given[name]) for name in INDEXES if name in given}

    def _found_here(self) -> list[Bind]:
        """Folders of wheels that the user's index settings name: the offline install looks there again."""
        named = re.split(r"[\s,]+", self.kit.runner.environ.get("UV_FIND_LINKS", ""))
        return [Bind(Path(each), each) for each in named if each.startswith("/") and Path(each).is_dir()]

    def _keep_compiled(self, env: Path, names: list[str]) -> None:
        """Links new .pyc into the wheels of uv's cache, so that the next environment has them without compiling."""
        packages = env / f"lib/python{self._minor}/site-packages"
        if not names:
            return
        owners = {top: archive for archive, tops in self._archives(packages) for top in tops}
        for name in names:
            archive = owners.get(name.split("/")[0] if not name.startswith("__pycache__/") else name)
            if archive:
                kept = archive / name
                try:
                    kept.parent.mkdir(exist_ok=True)
                    os.link(packages / name, kept)
                except (FileExistsError, FileNotFoundError):
                    continue  # another job was quicker, or the folder belongs to two packages

    def _archives(self, packages: Path) -> Iterator[tuple[Path, list[str]]]:
        """The unpacked wheels that this environment is linked from, each with what it has at the top (modules by their .pyc's name)."""
        linked = {(file.stat().st_dev, file.stat().st_ino) for file in packages.glob("*.dist-info/METADATA")}
        for metadata in self.wheels.glob("archive-v*/*/*.dist-info/METADATA"):
            if (metadata.stat().st_dev, metadata.stat().st_ino) in linked:
                archive = metadata.parent.parent
                tag = f"cpython-{self._minor.replace('.', '')}"
                tops = [each for each in archive.iterdir() if not each.name.endswith((".dist-info", ".data"))]
                yield archive, [f"__pycache__/{each.stem}.{tag}.pyc" if each.suffix == ".py" else each.name for each in tops]

    def _tidy(self, env: Path) -> None:
        """Takes away what would differ from one build to the next and nobody needs."""
        for pattern in (".lock", ".gitignore", "CACHEDIR.TAG", f"lib/python{self._minor}/site-packages/*.dist-info/uv_cache.json"):
            for file in env.glob(pattern):
                file.unlink()


def make_or_fetch(environments: Environments, lock: Lock, folder: Path, *, offline: bool) -> None:
    """Makes the environment from the cache; where a wheel is missing there, fetches first. Raises MlwfError."""
    mark = environments.wheels / f"{environments.kit.cache.key(lock.digest, environments.base.facts.architecture)}.fetched"
    if mark.exists():
        mark.touch()  # when these wheels were last used, for prune
        try:
            environments.make(lock, folder)
        except ProgramError as error:
            environments.kit.runner.note(str(error))
            mark.unlink(missing_ok=True)
            remove_tree(folder / ENV) if (folder / ENV).exists() else None
        else:
            return
    try:
        environments.fetch(lock, folder, offline=offline)
    except ProgramError as error:
        if not offline:
            raise
        raise MlwfError(
            _("Packages are missing in the cache, and --offline forbids to fetch them"),
            error.why,
            _("Run the same command with --fetch-only on a node with internet first."),
        ) from error
    mark.touch()
    environments.make(lock, folder)
