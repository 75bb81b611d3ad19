from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.engine.support import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a fake runtime."""
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs")
    yield site
    site.registry.close()
    site.kick.close()
