"""Running mlwf_export_model as a user does: its own process, its own folder."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROGRAM = Path(sys.executable).parent / "mlwf_export_model"


def arguments(url: str, name: str, *more: str) -> list[str]:
    version = () if "--model-alias" in more else ("--model-version", "1")
    return [str(PROGRAM), "--model-registry-url", url, "--model-name", name, *version, *more]


def surroundings(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **environ}


def run(folder: Path, environ: Mapping[str, str], *argv: str, umask: int = 0o022) -> "subprocess.CompletedProcess[str]":
    """Runs it in `folder`, which is also the home."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        argv, cwd=folder, env=surroundings(folder, environ), capture_output=True, text=True, timeout=120, check=False, umask=umask
    )


def the_package(folder: Path) -> Path:
    (found,) = folder.glob("MLWFExportModel_*")
    return found


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if "MLWFExportModel" in path.name]


def members(package: Path) -> dict[str, bytes]:
    """The regular files in model.tar.gz."""
    with tarfile.open(package / "model.tar.gz") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}  # type: ignore[union-attr]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def info_of(package: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((package / "info.yaml").read_text("utf-8"))
    return content
