"""A model package: MLmodel and what lies beside it, unpacked, and what it says of the environment that it wants."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.i18n import _
from mlwf.image.model.example import Example, find_example
from mlwf.image.model.progress import Progress, Silence
from mlwf.image.model.python_env import read_environment, read_mapping
from mlwf.image.model.requirements import STRICT, Policy, Requirements, shown
from mlwf.image.model.sources import fetch_files
from mlwf.settings import environment


@dataclass(frozen=True)
class ModelPackage:
    """What a package says. Nothing of it was run, and no model loaded.

    `python`: the exact version, "3.11.7", said by the file `python_origin`; `wanted`: its requirements, checked; `uv_lock`: the file, where
    there is one; `input_example`: what /invocations is asked with; `sha256`: of names and contents of all files; `name`: the model's id;
    `left_out`: packages of conda, which no image gets.
    """

    folder: Path
    python: str
    wanted: Requirements
    input_example: Example | None
    sha256: str
    name: str = ""
    python_origin: str = ""
    uv_lock: Path | None = None
    left_out: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What its user is told before the image is made. Whether the model works without that the proof tells: a base may have it, and
        pip's packages bring along much of what conda has packages for.
        """
        names = ", ".join(map(shown, self.left_out))[:400]
        told = _("Conda packages are not in the image: {names}. If the model needs them, use a base image that has them.")
        return told.format(names=names) if names else ""

    @property
    def requirements(self) -> tuple[str, ...]:
        """As lines of a requirements file, indexes first."""
        return self.wanted.lines


def fetch_package(
    source: str,
    into: Path,
    *,
    environ: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    checksum: str | None = None,
    policy: Policy = STRICT,
) -> ModelPackage:
    """Unpacks (or copies) the package into the new folder `into` and reads it. Raises MlwfError; nothing of it is left then.

    `source`: s3://…, https://…, a file, a folder, models:/NAME/VERSION; `checksum`: SHA-256 of the archive in hex.
    """
    fetch_files(source, into, environ=environment() if environ is None else environ, progress=progress or Silence(), checksum=checksum)
    try:
        return read_package(into, policy)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def read_package(folder: Path, policy: Policy = STRICT) -> ModelPackage:
    """What the unpacked package says. Raises MlwfError."""
    mlmodel = read_mapping(folder / "MLmodel")
    recorded = read_environment(folder, mlmodel, policy)
    return ModelPackage(
        folder=folder,
        python=recorded.python,
        wanted=recorded.requirements,
        input_example=find_example(folder, mlmodel),
        sha256=tree_digest(folder),
        name=next((each for each in (mlmodel.get("model_id"), mlmodel.get("model_uuid")) if each and isinstance(each, str)), ""),
        python_origin=recorded.origin,
        uv_lock=recorded.uv_lock,
        left_out=recorded.left_out,
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
