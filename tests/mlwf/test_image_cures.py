"""What to do about a program that failed: each step of an image has its own cure."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image.base.converted import _probe
from mlwf.image.process import ProgramError, Runner
from mlwf.image.squash import Squash
from mlwf.image.tool import ContainerTool, Squasher

RUNNER = Runner({"PATH": "/usr/bin:/bin"})


def failing(folder: Path, said: str) -> Path:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("FATAL: While performing build: conveyor failed to get: loading index: not a docker archive", "what 'docker save' wrote"),
        ("ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded", "user.max_user_namespaces"),
        ("FATAL: could not unshare: operation not permitted", "mlwf doctor"),
    ],
)
def test_a_base_that_cannot_be_unpacked(tmp_path: Path, said: str, helps: str) -> None:
    tool = ContainerTool(failing(tmp_path, said), "apptainer", "1.4.5")
    with pytest.raises(ProgramError, match="cannot be unpacked") as caught:
        tool.build_sandbox(RUNNER, "x", tmp_path / "root", shown="base.tar", tmpdir=tmp_path)
    assert helps in caught.value.cure


def test_a_base_without_a_shell(tmp_path: Path) -> None:
    tool = ContainerTool(failing(tmp_path, "FATAL: stat /bin/sh: no such file or directory"), "apptainer", "1.4.5")
    kit = SimpleNamespace(tool=tool, runner=RUNNER)
    with pytest.raises(ProgramError, match=r"cannot be run: .*\. Use a base image for .* that has /bin/sh"):
        _probe(kit, tmp_path, "base", "sha256:1")  # type: ignore[arg-type]


def test_an_image_that_cannot_be_packed(tmp_path: Path) -> None:
    squash = Squash(Squasher(failing(tmp_path, "it crashed"), "4.5.1", "gzip"), 1, 64)
    with pytest.raises(ProgramError, match=r"cannot be packed: it crashed\. .*more memory.* squashfs-tools \(4\.5\.1\)"):
        squash.create(RUNNER, tmp_path, tmp_path / "made", offset=0)
