from collections.abc import Iterator

import pytest

from tests.mlwf.tracking import Tracking
from tests.support.box import environment, make_box
from tests.support.s3 import S3Store


@pytest.fixture(scope="module")
def sleepy(s3_store: S3Store) -> Iterator[Tracking]:
    """A real box that falls asleep between the notebook's cells."""
    settings = {"bucket": s3_store.make_bucket(), "endpoint_url": s3_store.endpoint_url, "region": s3_store.region, "idle_seconds": 1}
    box = make_box(environment(), **settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    yield Tracking(box, s3_store)
    box.remove()
