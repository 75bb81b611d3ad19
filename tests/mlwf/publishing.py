"""Packages to publish, and `mlwf` as their owner runs it."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlwf import info
from tests.support.s3 import S3Store

Cli = Callable[..., int]


def make_package(folder: Path, *, weights: bytes = b"w" * 1000, **changes: Any) -> Path:
    """A package as mlwf_export_model makes it, with everything filled that a human must fill."""
    folder.mkdir(mode=0o750)
    with tarfile.open(folder / "model.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, content in {"MLmodel": b"flavors: {}\n", "data/weights.bin": weights}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha256((folder / "model.tar.gz").read_bytes()).hexdigest()
    form = info.empty() | {
        "Name": "wine",
        "Description": "Predicts the quality of red wine from eleven measurements of it.",
        "Version": "2",
    }
    form |= {
        "Keywords": ["wine", "regression"],
        "AdditionalInfo": f"### Package\n\n| | |\n|---|---|\n| SHA-256 of model.tar.gz | {digest} |",
    }
    form["Creator"] |= {"Name": "Alice", "ContactPoint": {"Email": "alice@example.org", "URL": ""}}
    form["License"]["Name"] = "CC-BY-4.0"
    form["UsageInfo"] = "Load it:\n\n```python\nimport mlflow\n```"
    (folder / "info.yaml").write_text(info.dump(form | changes), "utf-8")
    return folder


@dataclass
class Shell:
    """`mlwf …` in this process, with the keys of the store's owner."""

    store: S3Store
    environ: dict[str, str]
    cli: Cli
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *argv: str | Path, **env: str) -> int:
        status = self.cli(*map(str, argv), env={**self.environ, **env})
        said = self.capsys.readouterr()
        self.out, self.err = said.out, said.err
        return status
