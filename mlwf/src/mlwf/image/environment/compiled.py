"""The .pyc of an environment: compiled by the base's own Python, which may lie, and so kept for this base alone.

The base sees the packages read-only. What it writes is taken by names that were made up here, one flat folder of regular files.
"""

import contextlib
import functools
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.file_server import link, rename
from mlwf.i18n import _
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import remove_tree
from mlwf.image.environment.pythons import Python
from mlwf.image.kit import Kit
from mlwf.image.tool import Bind

SOURCES, COMPILED = "/mlwf-sources", "/mlwf-compiled"
LIST, PYCACHE = "list", "__pycache__"
# Each .pyc names the file where it will be in the image, and is never checked against it. Before 3.11 a set of constants is written in
# the order of its hashes: they are the same each time. That -I, which keeps the base's PYTHON… out, would not let be said: it starts twice.
COMPILE = """
import concurrent.futures, os, py_compile, sys
sources, into, final, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def compiled(line):
    key, _space, name = line.partition(" ")
    try:
        py_compile.compile(sources + "/" + name, cfile=into + "/" + key, dfile=final + "/" + name, doraise=True, quiet=2,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except OSError:
        raise
    except Exception:
        pass  # templates and sources for another Python are no failure

def main():
    with open(into + "/list", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().split("\\0")[:-1]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        for _done in pool.map(compiled, lines, chunksize=32):
            pass

if __name__ == "__main__":
    if sys.flags.isolated:
        rest = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        os.execve(sys.executable, [sys.executable, "-s", "-S", "-B", *sys.argv], {**rest, "PYTHONHASHSEED": "0"})
    main()
"""


@dataclass(frozen=True)
class Compiler:
    """Compiles environments for one base and one Python."""

    kit: Kit
    base: ComingBase
    python: Python

    @functools.cached_property
    def kept(self) -> Path:
        """What programs of this base have compiled: no other base gets to run it."""
        facts = self.base.facts
        python = self.python
        made_by = (COMPILE, facts.source, facts.digest, facts.architecture, python.version, python.inside, python.origin)
        return self.kit.cache.root / "compiled" / self.kit.cache.key(*made_by)

    def compile(self, packages: Path, final: str, work: Path) -> None:
        """Puts a .pyc beside every source below `packages`, which is `final` in the image. `work`: a new folder. Raises ProgramError."""
        missing = {key: name for key, name in self._keyed(packages) if not self._take(key, self._pyc(packages, name))}
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.kept)  # when it was last used, for prune
        if missing:
            work.mkdir(0o700)
            try:
                self._run(packages, final, work, missing)
                for key, name in missing.items():
                    self._keep(work / key, key, self._pyc(packages, name))
            finally:
                remove_tree(work)

    def _keyed(self, packages: Path) -> Iterator[tuple[str, str]]:
        """The sources without a .pyc by their names below `packages`, each with the name of all that its .pyc is made of."""
        for name in self._sources(packages):
            with io.FileIO(f"{packages}/{name}") as source:
                yield hashlib.sha256(os.fsencode(name) + b"\0" + source.read()).hexdigest(), name

    def _place(self, key: str) -> str:
        return f"{self.kept}/{key[:2]}/{key}"

    def _take(self, key: str, pyc: str) -> bool:
        """Whether it is known already what becomes of this source: a .pyc, or nothing (an empty file)."""
        kept = self._place(key)
        try:
            if os.lstat(kept).st_size:
                _beside(kept, pyc)
        except FileNotFoundError:
            return False
        return True

    def _run(self, packages: Path, final: str, work: Path, missing: Mapping[str, str]) -> None:
        listed = b"".join(key.encode() + b" " + os.fsencode(name) + b"\0" for key, name in missing.items())
        (work / LIST).write_bytes(listed)
        (work / "compile.py").write_text(COMPILE)
        command = [self.python.inside, "-I", "-S", "-B", f"{COMPILED}/compile.py", SOURCES, COMPILED, final, str(self.kit.processors)]
        binds = [Bind(packages, SOURCES), Bind(work, COMPILED, writable=True), *self.python.binds()]
        what = _("The model's packages cannot be compiled")
        cure = _("Run it again where there is more memory; if it happens again, use a base image whose Python {version} works.")
        cure = cure.format(version=self.python.version)
        self.kit.tool.run(self.kit.runner, self.base.made().file, command, what, binds=binds, cure=cure)

    def _keep(self, made: Path, key: str, pyc: str) -> None:
        """Moves what the base wrote to its place, and remembers it."""
        kept = Path(self._place(key))
        kept.parent.mkdir(0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another job was quicker
            if not _is_file(made):
                kept.touch(0o600, exist_ok=False)
                return
            Path(pyc).parent.mkdir(exist_ok=True)
            made.chmod(0o644)
            rename(made, Path(pyc))
            with contextlib.suppress(OSError):  # no hard links: it is compiled again the next time
                os.link(pyc, kept)

    def _sources(self, packages: Path) -> Iterator[str]:
        """Every source that has no .pyc, in the same order everywhere."""
        for folder, folders, names in os.walk(packages):
            there = {each.name for each in Path(folder, PYCACHE).iterdir()} if PYCACHE in folders else set()
            # Their own tests stay as they are: nobody imports them, and they are a quarter to a half of pandas, SciPy and their like.
            folders[:] = sorted(each for each in folders if each not in {"tests", PYCACHE})
            below = folder[len(f"{packages}/") :]
            for name in sorted(names):
                if name.endswith(".py") and self._named(name) not in there:
                    yield f"{below}/{name}" if below else name

    def _named(self, source: str) -> str:
        return f"{source.removesuffix('.py')}.cpython-{self.python.minor.replace('.', '')}.pyc"

    def _pyc(self, packages: Path, name: str) -> str:
        below, _slash, source = f"{packages}/{name}".rpartition("/")
        return f"{below}/{PYCACHE}/{self._named(source)}"


def _beside(kept: str, pyc: str) -> None:
    """Gives a source its .pyc: a hard link where that is possible. Raises FileNotFoundError when it is not kept any more."""
    try:
        link(kept, pyc)
    except FileNotFoundError:
        folder = Path(pyc).parent
        if folder.exists():
            raise
        folder.mkdir()
        _beside(kept, pyc)
    except OSError:  # no hard links, or too many of them
        shutil.copyfile(kept, pyc)


def _is_file(path: Path) -> bool:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size > 0
