"""Environments made by the real uv; the base's Python is this one, run here instead of in a container."""

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import Cache
from mlwf.image.environment.compiled import COMPILE, COMPILED, SOURCES
from mlwf.image.environment.install import Environments, make_or_fetch
from mlwf.image.environment.lock import Lock
from mlwf.image.environment.pythons import Python
from mlwf.image.environment.uv_program import uv_version
from mlwf.image.kit import Kit
from mlwf.image.process import ProgramError, Runner
from mlwf.image.tool import Bind

from tests.image.index import Index

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSION = ".".join(map(str, sys.version_info[:3]))
Serve = Callable[[Index], Index]


class Here:
    """Runs what would run in the container on this machine, with the folders under their names here. `calls`: how often."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Bind]] = []

    def run(self, runner: Runner, _image: Path, command: Sequence[str], what: str, *, binds: Sequence[Bind], cure: str) -> str:
        self.calls.append(binds)
        places = {bind.inside: str(bind.outside) for bind in binds}
        folders = [os.fspath(place) for place in (SOURCES, COMPILED)]
        argv = [next((word.replace(each, places[each]) for each in folders if word.startswith(each)), word) for word in command]
        return runner.run(argv, what, cure=cure)


class Ground:
    """A cache, an index with one package, and bases whose Pythons are programs of this machine."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index, self.log, self.tool = folder, index, io.BytesIO(), Here()
        self.cache = Cache(folder / "cache")
        self.cache.root.mkdir()
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "UV_DEFAULT_INDEX": index.url}
        self.kit = Kit(self.tool, Runner(environ, self.log), SimpleNamespace(processors=1), self.cache, None)  # type: ignore[arg-type]

    def make(
        self, name: str, *, program: str | Path = sys.executable, digest: str = "sha256:one", version: str = VERSION,
        lock: Lock | None = None, offline: bool = False,
    ) -> Path:  # fmt: skip
        """The environment's site-packages."""
        facts = SimpleNamespace(source="base", digest=digest, glibc="2.36", architecture="amd64")
        base = ComingBase(facts, lambda: SimpleNamespace(file=Path("base.sif")))  # type: ignore[arg-type, return-value]
        layer = self.cache.root / "work" / name / "mlwf"
        layer.mkdir(parents=True)
        python = Python(version, str(program), None, "base")
        make_or_fetch(Environments(self.kit, base, python), lock or self.lock(), layer, offline=offline)
        return layer / f"env/lib/python{python.minor}/site-packages"

    def lock(self) -> Lock:
        wheel = next(name for name in self.index.files if name.startswith("top"))
        return Lock(f"top==1.0 --hash=sha256:{hashlib.sha256(self.index.files[wheel]).hexdigest()}\n", VERSION)

    def program(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o755)
        return file


@pytest.fixture
def ground(tmp_path: Path, serve_index: Serve) -> Ground:
    more = {"top-1.0.data/headers/top.h": "int top;\n", "top-1.0.dist-info/entry_points.txt": "[console_scripts]\ntop = top:main\n"}
    return Ground(tmp_path, serve_index(Index().add("top", "1.0", more=more)))


def pyc(packages: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(packages / "top/__init__.py")))


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def test_what_a_base_has_compiled_is_kept_for_that_base_alone(ground: Ground) -> None:
    packages = ground.make("one")
    made = pyc(packages).read_bytes()
    assert made[4:8] == b"\1\0\0\0", "unchecked"
    assert f"/mlwf/env/lib/python{HERE}/site-packages/top/__init__.py".encode() in made
    assert len(ground.tool.calls) == 1
    assert pyc(ground.make("two")).read_bytes() == made
    assert len(ground.tool.calls) == 1, "nothing is left to compile"
    assert pyc(ground.make("three", digest="sha256:other")).read_bytes() == made
    assert len(ground.tool.calls) == 2
    assert not list((ground.cache.root / "wheels").rglob("*.pyc"))


def test_a_base_sees_no_wheel_that_it_can_write(ground: Ground) -> None:
    packages = ground.make("one")
    (binds,) = ground.tool.calls
    assert {(bind.outside, bind.writable) for bind in binds} == {(packages, False), (packages.parents[3].parent / "compiled", True)}


def test_what_a_lying_base_writes_leads_nowhere(ground: Ground) -> None:
    secret = ground.folder / "secret.pyc"
    secret.write_text("of the user")
    lies = ground.program(
        "lies",
        f'#!/bin/sh\nset -e\nfor word; do case "$word" in */compiled) into=$word;; esac; done\n'
        f'while read -r key _name; do ln -s {secret} "$into/$key"; done < "$into/list"\n'
        f'ln -s {ground.folder} "$into/__pycache__"\necho "../../../../secret.pyc"\n',
    )
    ground.make("honest")
    before = everything(ground.folder)
    packages = ground.make("lied", program=lies, digest="sha256:lies")
    assert not pyc(packages).exists()
    after = everything(ground.folder)
    assert {path: after[path] for path in before} == before
    added = [path.relative_to(ground.cache.root).parts for path in after.keys() - before.keys()]
    assert {parts[0] for parts in added if not parts[2].startswith("interpreter-")} <= {"work", "compiled"}, "uv remembers who ran it"
    assert pyc(ground.make("again")).stat().st_size > 100


def test_a_compilation_that_fails_is_told_as_such_each_time_and_fetches_nothing(ground: Ground) -> None:
    ground.make("honest")
    asked = len(ground.index.asked)
    fails = ground.program("fails", "#!/bin/sh\necho no memory >&2\nexit 1\n")
    for number in range(2):
        with pytest.raises(ProgramError, match=r"packages cannot be compiled: no memory\. Run it again .*base image whose Python"):
            ground.make(f"failed-{number}", program=fails, digest="sha256:fails")
    assert len(ground.index.asked) == asked
    assert not list((ground.cache.root / "work").glob("*/compiled"))


@pytest.mark.parametrize("only", ["a source package", "a wheel for a newer glibc"])
def test_a_package_without_a_wheel_in_a_lock_that_is_taken_as_it_is(tmp_path: Path, serve_index: Serve, only: str) -> None:
    """Nothing was resolved before. With the index in the cache, without network, --fetch-only would not help either."""
    index = Index()
    if only == "a source package":
        index.add_sdist("top", "1.0", {"PKG-INFO": "Metadata-Version: 2.1\nName: top\nVersion: 1.0\n"})
    else:
        index.add("top", "1.0", tag=f"cp{HERE.replace('.', '')}-none-manylinux_2_99_x86_64")
    ground = Ground(tmp_path, serve_index(index))
    (name,) = index.files
    lock = Lock(f"top==1.0 --hash=sha256:{index.sha256(name)}\n", VERSION)
    for offline in (False, True):
        with pytest.raises(
            ProgramError, match=r"cannot be fetched: .*top.* take a newer base, or allow its build with --allow-source-builds"
        ):
            ground.make(f"offline-{offline}", lock=lock, offline=offline)


def test_an_environment_is_that_of_the_bases_python_whatever_runs_uv(ground: Ground) -> None:
    nothing = ground.program("python3.99", "#!/bin/sh\nexit 0\n")
    packages = ground.make("other", program=nothing, version="3.99.7")
    env = packages.parents[2]
    assert (packages / "top/__init__.py").is_file()
    assert sorted(each.name for each in (env / "lib").iterdir()) == ["python3.99"]
    assert {each.name: str(each.readlink()) for each in (env / "bin").iterdir() if each.is_symlink()} == {
        "python": str(nothing), "python3": "python", "python3.99": "python",
    }  # fmt: skip
    settings = (env / "pyvenv.cfg").read_text()
    assert f"home = {ground.folder}\n" in settings
    assert "version_info = 3.99.7\n" in settings
    assert f"uv = {uv_version()}\n" in settings, "what the image is told to be made with"
    texts = [path.read_text() for path in env.rglob("*") if path.is_file()]
    assert not [text for text in texts if f"python{HERE}" in text or sys.prefix in text]
    assert (env / "include/site/python3.99/top/top.h").is_file()
    assert "../../../include/site/python3.99/top/top.h," in (packages / "top-1.0.dist-info/RECORD").read_text()
    assert "$(realpath" in (env / "bin/top").read_text()


def runs(program: str) -> bool:
    return bool(shutil.which(program)) and not subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode


# Before 3.11 a set of constants had another order in each process.
PYTHONS = [sys.executable, *filter(runs, ("python3.8", "python3.9", "python3.10"))]


@pytest.mark.parametrize("program", PYTHONS)
def test_the_same_source_is_the_same_bytes_whatever_the_base_wishes(tmp_path: Path, program: str) -> None:
    words = ", ".join(repr(f"word-{number}") for number in range(20))
    (tmp_path / "module.py").write_text(f'"""Kept."""\ndef known(word):\n    return word in {{{words}}}\n')
    (tmp_path / "compile.py").write_text(COMPILE)
    os.mkfifo(tmp_path / "list")
    made = set()
    for seed in ("1", "2"):
        process = subprocess.Popen(
            [program, "-I", "-S", "-B", tmp_path / "compile.py", tmp_path, tmp_path, "/final", "1"],
            env={**os.environ, "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": seed},
        )
        with (tmp_path / "list").open("w") as listed:  # is open when it is read: the work begins
            given = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
            listed.write("key module.py\0")
        assert process.wait(60) == 0
        assert [each for each in given if each.startswith("PYTHON")] == ["PYTHONHASHSEED=0"]
        made.add((tmp_path / "key").read_bytes())
    assert len(made) == 1
    assert b"Kept." in made.pop()
