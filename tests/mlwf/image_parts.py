"""Stand-ins for what an image is made with, and the command that makes it."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from mlwf.cli.create_image import command
from mlwf.image.model.package import ModelPackage
from mlwf.image.model.requirements import Requirements


def fake_tool(folder: Path, name: str, said: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{said}'\n")
    file.chmod(0o755)


def model(folder: Path) -> ModelPackage:
    return ModelPackage(folder=folder, python="3.11.7", wanted=Requirements(()), input_example=None, sha256="")


def run_command(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> tuple[int, str, str]:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("MLWF_CACHE", str(folder / "cache"))
    done = CliRunner().invoke(command, [*options, "--output-dir", str(folder)], prog_name="mlwf_create_image")
    return done.exit_code, done.stdout, done.stderr
