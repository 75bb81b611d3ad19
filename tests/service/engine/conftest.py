import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.engine.support import Site


@pytest.fixture(autouse=True)
def umask_stays() -> Iterator[None]:
    """The keeper's script runs in the test's own process here, and sets it for good: files of later tests would be closed to others."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a fake runtime."""
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs")
    yield site
    site.registry.close()
    site.kick.close()
