"""A box and the export with Ceph's gateway as the object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.exporting import arguments, files_of, members, run, the_package
from tests.mlwf.tracking import MLMODEL, Tracking
from tests.support.box import environment, make_box
from tests.support.ceph import Ceph

pytestmark = pytest.mark.heavy

# More than one part of a parallel download.
FILES = {"MLmodel": MLMODEL, "data/with space & plus+.txt": "日本".encode(), "weights.bin": bytes(range(256)) * (40 << 12)}


@pytest.fixture(scope="module")
def on_ceph(ceph: Ceph) -> Iterator[Tracking]:
    box = make_box(environment(), bucket=ceph.make_bucket(), endpoint_url=ceph.endpoint_url, region=ceph.region, idle_seconds=0)
    box.write_credentials(ceph.owner.access_key, ceph.owner.secret_key)
    box.start()
    tracking = Tracking(box, ceph)
    tracking.register("wine", FILES)
    yield tracking
    box.remove()


@pytest.mark.parametrize("way", ["store", "server"])
def test_export(on_ceph: Tracking, way: str, tmp_path: Path) -> None:
    done = run(tmp_path / "w", on_ceph.environ, *arguments(on_ceph.url, "wine", "--through", way))
    assert done.returncode == 0, done.stderr
    package = the_package(tmp_path / "w")
    assert files_of(package / "artifacts") == FILES == members(package)


def test_an_upload_through_the_server_arrives_whole(on_ceph: Tracking) -> None:
    content = bytes(range(256)) * (24 << 12)
    run_id = on_ceph.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    done = on_ceph.box.request("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/big.bin", data=content)
    assert done.status_code == 200, done.text
    settings = on_ceph.box.settings
    key = f"{settings['prefix']}/0/{run_id}/artifacts/big.bin"
    assert on_ceph.store.client().get_object(Bucket=settings["bucket"], Key=key)["Body"].read() == content
