"""What lies below a folder that is closed to this user: Python's own looks, such as `Path.is_dir`, raise an error there."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlwf.cli.create_image import command
from mlwf.errors import MlwfError
from mlwf.image.tempspace import find_tempspace, sweep_tempspace
from mlwf.publish.verify import verify
from mlwf.transfer.session import plain_session
from mlwf.transfer.workspace import Workspace
from mlwf.wire.connection import connection

from tests.mlwf.image_parts import fake_tool
from tests.support.account import service_account

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class Silent:
    def begins(self, what: str, size: int) -> None: ...

    def moved(self, count: int) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is open to all, with what an image is made with, and one in it that is not: `closed`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fake_tool(folder, "apptainer", "apptainer version 1.4.5")
        fake_tool(folder, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
        (folder / "closed/layout").mkdir(parents=True)
        for file in ("model.tar.gz", "mountinfo", "locked.sif", "closed/model.tar.gz", "closed/base.sif"):
            (folder / file).touch()
        (folder / "locked.sif").chmod(0)
        (folder / "closed").chmod(0o700)
        folder.chmod(0o777)
        monkeypatch.setenv("PATH", name)
        monkeypatch.setenv("MLWF_CACHE", f"{name}/cache")
        yield folder


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--model-pkg-url", "closed/model.tar.gz", "There is no model package closed/model.tar.gz: Permission denied. A model package is"),
        ("--model-pkg-url", "closed/exported", "There is no model package closed/exported: Permission denied."),
        ("--model-pkg-url", "x" * 300, f"There is no model package {'x' * 300}: File name too long."),
        ("--output-dir", "closed/out", "No folder can be made in closed/out: Permission denied. Change to a folder of yours"),
        (
            "--base-container-url",
            "closed/base.sif",
            "closed/base.sif cannot be opened: Permission denied. Check the permissions of the file",
        ),
        (
            "--base-container-url",
            "docker-archive:closed/base.tar:name:1",
            "docker-archive:closed/base.tar:name:1 cannot be opened: Permission",
        ),
        ("--base-container-url", "oci:closed/layout", "The base image oci:closed/layout cannot be opened: Permission denied."),
        ("--base-container-url", "locked.sif", "The base image locked.sif cannot be opened: Permission denied."),
    ],
)
def test_it_is_told_and_is_no_fault_of_the_tool(here: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, told: str) -> None:
    """Nor is it the image that cannot be written."""
    monkeypatch.chdir(here)
    usual = {"--model-pkg-url": "model.tar.gz", "--base-container-url": "docker://python", "--output-dir": "."}
    with service_account():
        done = CliRunner().invoke(command, [word for given in (usual | {option: value}).items() for word in given])
    assert told in " ".join(done.stderr.split())


def test_what_is_verified_and_what_settings_name(here: Path) -> None:
    closed = str(here / "closed/there")
    with service_account():
        with pytest.raises(MlwfError, match=r"/closed/there is neither a folder nor a URL: Permission denied\."):
            verify(closed, {}, Silent())
        with pytest.raises(MlwfError, match=r"REQUESTS_CA_BUNDLE names .*/closed/there, which does not exist: Permission denied\."):
            plain_session("https://127.0.0.1:9", {"REQUESTS_CA_BUNDLE": closed})
        with pytest.raises(MlwfError, match=r"There is no CA file .*/closed/there: Permission denied\."):
            connection({"MLWF_SERVICE": "https://127.0.0.1:9", "MLWF_CA_FILE": closed}, site_file=here / "none")


def test_an_exports_folder_below_it(here: Path) -> None:
    told = r"^No folder can be made in .*/closed/out: Permission denied\."
    with service_account(), pytest.raises(MlwfError, match=told), Workspace(here / "closed/out"):
        pytest.fail("it is closed")


def test_a_temporary_folder_below_it_is_not_the_end(here: Path) -> None:
    """The next place was not tried."""
    environ = {"SLURM_TMPDIR": str(here / "closed/job"), "TMPDIR": str(here)}
    with service_account():
        sweep_tempspace(environ, None)
        assert find_tempspace(environ, None, 1, mounts=here / "mountinfo") == here
        with pytest.raises(MlwfError, match=r"closed/job \(--tmpdir\): Permission denied\."):
            find_tempspace({}, here / "closed/job", 1)
