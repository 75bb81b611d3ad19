"""Model packages as MLflow writes them, and as an enemy would."""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlwf.image.cache import Cache
from mlwf.image.environment.lock import BasePlatform, Lock, make_lock
from mlwf.image.model.package import read_package
from mlwf.image.model.requirements import Policy
from mlwf.image.process import Runner

from tests.image.index import Index, Serving

DEBIAN = BasePlatform("2.36", "amd64")
MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.skops
    python_version: 3.11.7
  sklearn:
    sklearn_version: 1.9.1
mlflow_version: 3.17.2
model_uuid: m-0123456789abcdef
saved_input_example_info:
  artifact_path: input_example.json
  serving_input_path: serving_input_example.json
  type: dataframe
"""
PYTHON_ENV = """\
python: 3.11.7
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel
dependencies:
- -r requirements.txt
"""
CONDA = """\
channels:
- conda-forge
dependencies:
- python=3.11.7
- pip<=23.2.1
- pip:
  - mlflow==3.17.2
  - numpy==2.4.0
name: mlflow-env
"""
FILES = {
    "MLmodel": MLMODEL,
    "python_env.yaml": PYTHON_ENV,
    "conda.yaml": CONDA,
    # As MLflow writes it: without a newline at its end.
    "requirements.txt": "mlflow==3.17.2\nnumpy==2.4.0",
    "model.skops": "weights",
    "input_example.json": "{}",
    "serving_input_example.json": '{"dataframe_split": {}}',
    "code/predict.py": "def predict(): ...\n",
}


def package_files(changes: Mapping[str, str | None] | None = None) -> dict[str, bytes]:
    """The files of a package; `changes` replaces some, adds some, and with None leaves some away."""
    merged: dict[str, str | None] = {**FILES, **(changes or {})}
    return {name: text.encode() for name, text in merged.items() if text is not None}


def packed(files: Mapping[str, bytes], *entries: tarfile.TarInfo, prefix: str = "") -> bytes:
    """A .tar.gz of the files, and of further bare entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"\0" * entry.size))
    return out.getvalue()


def file_of(folder: Path, content: str = "content", name: str = "made") -> Path:
    made = folder / name
    made.write_text(content)
    return made


@dataclass
class Locking:
    """Makes locks for packages; everything that uv wrote and said is in `folder`."""

    folder: Path
    environ: Mapping[str, str]

    def lock(
        self, package: Path, policy: Policy | None = None, *, platform: BasePlatform = DEBIAN, offline: bool = False, **more: bool
    ) -> Lock:
        work = Path(tempfile.mkdtemp(dir=self.folder))
        allowed = policy or Policy()
        with (self.folder / "build.log").open("ab") as log:
            return make_lock(
                read_package(package, allowed), "3.11.7", platform, runner=Runner(self.environ, log), cache=self.folder / "uv", folder=work,
                policy=allowed, offline=offline, **more,
            )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open({"MLWF_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A package as a folder."""

    def make(changes: Mapping[str, str | None] | None = None, name: str = "package") -> Path:
        for path, content in package_files(changes).items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return tmp_path / name

    return make


@pytest.fixture
def serve_index() -> Iterator[Callable[[Index], Index]]:
    """Serves indexes on loopback until the test's end."""
    running: list[Serving] = []

    def serve(index: Index) -> Index:
        running.append(Serving(index))
        return index

    yield serve
    for each in running:
        each.stop()


@pytest.fixture
def locking(tmp_path: Path) -> Callable[[Index], Locking]:
    def make(index: Index, url: str = "") -> Locking:
        folder = tmp_path / "locking"
        folder.mkdir(exist_ok=True)
        return Locking(folder, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": url or index.url})

    return make
