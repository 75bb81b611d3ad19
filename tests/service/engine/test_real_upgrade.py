"""One server goes from a real MLflow to a real newer one and back, while clients write to it: on the process runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.runtimes.proctable import guard_pid
from tests.service.engine.contract_upgrade import MISLABELLED, Before, UpgradeContract, something_is_in
from tests.service.engine.real_site import running_site
from tests.service.engine.support import install_version
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, environment
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def envs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both versions, and one that is not what it says."""
    folder = tmp_path_factory.mktemp("envs")
    for version in (OLDEST_VERSION, MLFLOW_VERSION):
        (folder / f"mlflow-{version}").symlink_to(environment(version))
    python = environment(MLFLOW_VERSION) / "bin" / "python"
    install_version(folder, MISLABELLED, python=f'#!/bin/sh\nexec {python} "$@"\n')
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, s3_store: S3Store, envs: Path) -> Iterator[Before]:
    home = tmp_path_factory.mktemp("upgrade") / "state"
    with running_site(home, s3_store, envs=envs, version=OLDEST_VERSION) as site:
        yield something_is_in(site, lambda: guard_pid(site.boxes.directory(site.one().id)))


class TestUpgrade(UpgradeContract):
    pass
