"""A model package: MLmodel and what lies beside it, unpacked, and what it says of the environment that it wants."""

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _

PYTHON = re.compile(r"3\.[0-9]{1,2}\.[0-9]{1,2}")
MAX_FILE = 8 << 20
MAX_UNPACKED = 1 << 40


@dataclass(frozen=True)
class ModelPackage:
    """`python`: the exact version; `requirements`: lines as the model recorded them; `sha256`: of names and contents of all files."""

    folder: Path
    python: str
    requirements: tuple[str, ...]
    flavors: tuple[str, ...]
    input_example: Path | None
    needs_gpu: bool
    sha256: str
    name: str = ""


def fetch_package(source: str, into: Path) -> ModelPackage:
    """Unpacks (or copies) the package into the new folder `into` and reads it. Raises MlwfError."""
    path = Path(source)
    if path.is_dir():
        inner = path / "artifacts"
        shutil.copytree(inner if inner.is_dir() else path, into, symlinks=False)
    elif path.is_file():
        _unpack(path, into)
    else:
        raise WrongUseError(
            _("There is no model package {source}").format(source=source),
            cure=_("Name a model.tar.gz, or a folder that mlwf_export_model made."),
        )
    return read_package(into)


def read_package(folder: Path) -> ModelPackage:
    """What the unpacked package says. Raises MlwfError."""
    mlmodel = _mapping(folder / "MLmodel")
    flavors = mlmodel.get("flavors")
    if not isinstance(flavors, dict) or "python_function" not in flavors:
        raise MlwfError(
            _("This model cannot be served by mlflow"),
            _("its MLmodel has no python_function flavor"),
            _("Log it with mlflow's log_model of its library, or as a pyfunc."),
        )
    example = mlmodel.get("saved_input_example_info")
    named = example.get("serving_input_path") or example.get("artifact_path") if isinstance(example, dict) else None
    return ModelPackage(
        folder,
        _python(folder, flavors["python_function"]),
        _requirements(folder),
        tuple(sorted(map(str, flavors))),
        _inside(folder, str(named)) if named else None,
        False,
        tree_digest(folder),
        str(mlmodel.get("model_id") or mlmodel.get("model_uuid") or ""),
    )


def tree_digest(folder: Path) -> str:
    """One SHA-256 for names and contents of all files."""
    digests = []
    for file in _files(folder):
        with file.open("rb") as content:
            digests.append([str(file.relative_to(folder)), hashlib.file_digest(content, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(digests, ensure_ascii=False).encode("utf-8", "surrogateescape")).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(where, name)


def _unpack(archive: Path, into: Path) -> None:
    into.mkdir(0o750)
    try:
        with tarfile.open(archive) as packed:
            total = 0
            for member in packed:
                total += member.size
                _check_member(member, total)
                packed.extract(member, into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MlwfError(
            _("The model package {file} cannot be unpacked").format(file=archive),
            _("it is damaged, or holds what a model package must not ({kind}: {detail})").format(kind=type(error).__name__, detail=error),
            _("Make it with mlwf_export_model."),
        ) from error


def _check_member(member: tarfile.TarInfo, total: int) -> None:
    if total > MAX_UNPACKED or not (member.isreg() or member.isdir()) or Path(member.name).is_absolute():
        raise tarfile.TarError(member.name)


def _python(folder: Path, pyfunc: object) -> str:
    candidates: list[object] = []
    if (folder / "python_env.yaml").is_file():
        candidates.append(_mapping(folder / "python_env.yaml").get("python"))
    if isinstance(pyfunc, dict):
        candidates.append(pyfunc.get("python_version"))
    for candidate in candidates:
        if candidate and PYTHON.fullmatch(str(candidate)):
            return str(candidate)
    raise MlwfError(
        _("The model does not say its Python version"), cure=_("Log it again with a current mlflow, which writes python_env.yaml.")
    )


def _requirements(folder: Path) -> tuple[str, ...]:
    try:
        text = (folder / "requirements.txt").read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MlwfError(_("The model's requirements.txt cannot be read"), cure=_("Log the model again with a current mlflow.")) from error
    lines = [line.strip() for line in text.splitlines()]
    wanted = tuple(line for line in lines if line and not line.startswith("#"))
    for line in wanted:
        if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w, .-]*\])?\s*([=<>!~;(]|$)", line) or "@" in line.split(";")[0]:
            raise MlwfError(
                _("The model asks for what is not installed from a package index: {line}").format(line=repr(line)[:120]),
                cure=_("Log the model with plain requirements (NAME==VERSION)."),
            )
    return wanted


def _inside(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None


def _mapping(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as content:
            data = yaml.safe_load(content.read(MAX_FILE))
    except (OSError, yaml.YAMLError) as error:
        raise MlwfError(
            _("{file} of the model package cannot be read").format(file=file.name), cure=_("Make the package with mlwf_export_model.")
        ) from error
    if not isinstance(data, dict):
        raise MlwfError(
            _("{file} of the model package cannot be read").format(file=file.name), cure=_("Make the package with mlwf_export_model.")
        )
    return data
