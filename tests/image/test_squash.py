"""What mksquashfs packs: all of it, or nothing. By the real one, as another account, for which root's files are not to be read."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image import sif
from mlwf.image.base.converted import BaseFacts, Unpacked, pack_base
from mlwf.image.process import Runner
from mlwf.image.squash import Squash
from mlwf.image.tool import Squasher

from tests.support.account import ACCOUNT, account, folder_of

SQUASH = Squash(Squasher(Path("/usr/bin/mksquashfs"), "", "gzip"), 1, 64)
FACTS = BaseFacts("base", "sha256:" + "1" * 64, "amd64", "2.36", {})
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """The account's, with a tree to pack."""
    with folder_of(ACCOUNT) as place:
        with account(ACCOUNT):
            (place / "tree/below").mkdir(parents=True)
            (place / "tree/below/file").write_text("content")
            (place / "tree/below/file").chmod(0o640)
        yield place


def listed(file: Path, offset: int) -> dict[str, str]:
    """The paths in it, with their modes."""
    told = subprocess.run(["unsquashfs", "-o", str(offset), "-lls", file], check=True, capture_output=True, text=True).stdout
    lines = [line.partition(" -> ")[0].split() for line in told.splitlines() if "squashfs-root/" in line]
    return {words[-1].removeprefix("squashfs-root/"): words[0] for words in lines}


@pytest.mark.parametrize("shut", ["below", "below/file"])
def test_what_cannot_be_read_is_no_image(folder: Path, shut: str) -> None:
    """mksquashfs by itself leaves such a folder out, makes an empty file of such a one, and ends well."""
    runner, tree, cannot = Runner({"PATH": os.environ["PATH"]}), folder / "tree", rf"cannot be packed: .*{shut}"
    with account(ACCOUNT):
        SQUASH.create(runner, tree, folder / "whole", offset=4096)
        (tree / shut).chmod(0)
        with pytest.raises(MlwfError, match=cannot):
            SQUASH.create(runner, tree, folder / "made", offset=4096)
        with pytest.raises(MlwfError, match=cannot):
            SQUASH.append(runner, tree, folder / "whole", offset=4096)


def test_a_base_is_packed_whole_whatever_the_modes_of_its_files_are(folder: Path) -> None:
    """Of a squashfs without a SIF around it, a tool that does not run as root unpacks what it cannot read then, such as /etc/shadow."""
    tree, target = folder / "tree", folder / "base.sif"
    with account(ACCOUNT):
        (tree / ".singularity.d").mkdir()
        (tree / "shadow").write_text("x")
        (tree / "link").symlink_to("below")
        (tree / "shadow").chmod(0)
        (tree / "below").chmod(0o100)
        pack_base(SQUASH, Runner({"PATH": os.environ["PATH"]}), Unpacked(tree, FACTS, 0.0), target)
    found = listed(target, sif.read_partition(target).offset)
    told = {name: found.get(name) for name in ("shadow", "below", "below/file", "link")}
    assert told == {"shadow": "-r--------", "below": "dr-x------", "below/file": "-rw-r-----", "link": "lrwxrwxrwx"}
