"""Fixtures of the edge's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.edge.admin import Admin
from tests.service.edge.world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.registry.close()


@pytest.fixture
def admin(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Admin:
    monkeypatch.setattr("backend.serving.wiring.make_directory", lambda _settings: world.directory)
    return Admin(world, tmp_path)
