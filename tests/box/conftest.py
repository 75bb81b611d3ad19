"""A running box for most tests, one of its own for those that break it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box, environment, make_box
from tests.support.s3 import S3Store


@pytest.fixture(scope="session")
def box_environment() -> Path:
    return environment()


@pytest.fixture(scope="session")
def store_settings(s3_store: S3Store) -> dict[str, Any]:
    return {"bucket": s3_store.make_bucket(), "endpoint_url": s3_store.endpoint_url, "region": s3_store.region}


@pytest.fixture(scope="session")
def box(box_environment: Path, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Box]:
    """One box for the whole run, awake, with a real object store: make your own experiments and leave the rest as it is."""
    box = make_box(box_environment, cost=10, allow_gateway=False, idle_seconds=0, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    box.wait_state("awake")
    yield box
    box.remove()


@pytest.fixture
def own_box(request: pytest.FixtureRequest, box_environment: Path) -> Iterator[Callable[..., Box]]:
    """Makes boxes for this test alone, not started; without an object store unless settings name one. See `tests.support.box.STARTERS`."""
    boxes: list[Box] = []
    spawned = getattr(request, "param", "child") == "spawner"

    def make(**settings: Any) -> Box:
        boxes.append(make_box(box_environment, **settings))
        boxes[-1].spawned = spawned
        return boxes[-1]

    yield make
    for box in boxes:
        box.remove()
