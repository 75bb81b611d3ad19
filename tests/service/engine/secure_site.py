"""A site in containers whose object store has a certificate of an authority that this machine does not know."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlwf.secret import Secret

from backend.adapters.s3 import S3
from backend.domain import StorageKey
from backend.wishes.values import CreateWish
from tests.service.engine.docker_site import DockerSite, docker_site, state_folder
from tests.service.engine.support import GROUP
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.docker_service import reachable_by_https
from tests.support.s3 import S3Store
from tests.support.tls import Authority


@contextlib.contextmanager
def new_authority() -> Iterator[Authority]:
    """In a folder that the service's account may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="ca-", dir="/tmp") as name:
        yield Authority(Path(name))


@contextlib.contextmanager
def secure_site(docker: Docker, s3_store: S3Store, authority: Authority, **choices: Any) -> Iterator[DockerSite]:
    """Its one server has its artifacts in a store whose certificate is of that authority, which the service's own look at it knows."""
    bucket, owner = s3_store.make_bucket(), s3_store.owner
    with (
        state_folder() as home,
        reachable_by_https(docker, s3_store, authority) as endpoint_url,
        docker_site(
            docker,
            home,
            real_store=S3(ca_file=authority.ca_file),
            region=s3_store.region,
            egress=(endpoint_url.removeprefix("https://"),),
            **choices,
        ) as site,
    ):
        wish = CreateWish(
            group=GROUP.name,
            env_name="wine",
            bucket=bucket,
            key=StorageKey(access_key_id=owner.access_key, secret_access_key=Secret(owner.secret_key)),
            endpoint_url=endpoint_url,
            mlflow_version=MLFLOW_VERSION,
        )
        site.make(wish)
        yield site


def sent_and_fetched(site: DockerSite) -> bytes:
    """An artifact that went to the store and came back."""
    run = site.call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/notes.bin"
    sent = site.request("PUT", path, data=b"over TLS")
    assert sent.status_code == 200, sent.text
    return site.request("GET", path).content
