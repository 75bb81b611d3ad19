import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mlwf.cli import main as cli

from tests.mlwf.creating import QUICKLY
from tests.mlwf.fake_service import FakeService, start_fake_service
from tests.mlwf.models import Models
from tests.mlwf.publishing import Cli, Shell, make_package
from tests.mlwf.tracking import PlainServer, Tracking, start_plain_server
from tests.support.apptainer import Ground, apptainer_ground
from tests.support.box import environment, make_box
from tests.support.s3 import S3Store
from tests.support.singularity import singularity_ground


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = start_fake_service()
    yield fake
    fake.stop()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, proxy, or home of the developer's gets into a test."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture
def mlwf(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `mlwf ARGS` in this process against the fake service and answers the exit status."""

    def run(*args: str, env: Mapping[str, str] | None = None) -> int:
        monkeypatch.setenv("MLWF_SERVICE", service.address)
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        return cli.run(args)

    return run


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "MLWFExportModel_20260401120000")


@pytest.fixture
def sh(s3_store: S3Store, mlwf: Cli, capsys: pytest.CaptureFixture[str]) -> Shell:
    owner = s3_store.owner
    keys = {"AWS_ACCESS_KEY_ID": owner.access_key, "AWS_SECRET_ACCESS_KEY": owner.secret_key}
    return Shell(s3_store, {"MLFLOW_S3_ENDPOINT_URL": s3_store.endpoint_url, **keys}, mlwf, capsys)


@pytest.fixture(scope="session")
def tracking(s3_store: S3Store) -> Iterator[Tracking]:
    """A real box whose artifacts are in the real S3 store."""
    settings = {"bucket": s3_store.make_bucket(), "endpoint_url": s3_store.endpoint_url, "region": s3_store.region, "idle_seconds": 0}
    box = make_box(environment(), **settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    yield Tracking(box, s3_store)
    box.remove()


@pytest.fixture(scope="session")
def plain_server() -> Iterator[PlainServer]:
    """MLflow's own server, which knows nothing of ours."""
    server = start_plain_server(environment())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """A container tool (MLWF_TEST_TOOL: apptainer or singularity), a user with an empty cache, and a base image; for heavy tests."""
    with singularity_ground() if os.environ.get("MLWF_TEST_TOOL") == "singularity" else apptainer_ground() as made:
        yield made


@pytest.fixture(scope="session")
def models(ground: Ground) -> Models:
    return Models(environment(), ground)


@pytest.fixture(scope="session")
def plain_sif(ground: Ground) -> Path:
    """The base image as the tool's own SIF, unsigned, in the user's home."""
    file = ground.home / "plain.sif"
    built = ground.run([ground.tool, "build", *QUICKLY[ground.tool], file, f"docker-archive:{ground.base}"], seconds=400)
    assert built.returncode == 0, built.stderr
    return file
