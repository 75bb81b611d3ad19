"""An image that was built with the site's own authority, and no setting: its servers trust a store of that authority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.engine.secure_site import new_authority, secure_site, sent_and_fetched
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.s3 import S3Store
from tests.support.tls import Authority

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
OWN_IMAGE = "aihub-of-the-site:{version}"
# As tracking_server/Dockerfile does it with SITE_CA, without the minutes that a whole build takes.
DOCKERFILE = """
FROM {image}
USER 0:0
COPY site.crt /usr/local/share/ca-certificates/site-store.crt
RUN update-ca-certificates
USER 65534:65534
"""


@pytest.fixture
def authority() -> Iterator[Authority]:
    with new_authority() as made:
        yield made


@pytest.fixture
def image(docker: Docker, authority: Authority, tmp_path: Path) -> Iterator[str]:
    """The name of an image whose list knows the authority, as one that was built with it as SITE_CA."""
    tag, text = OWN_IMAGE.format(version=MLFLOW_VERSION), DOCKERFILE.format(image=docker.box_image(MLFLOW_VERSION))
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / "site.crt").write_text(authority.ca_file.read_text())
    docker.run("build", "--quiet", "--tag", tag, str(tmp_path))
    yield OWN_IMAGE
    docker.run("rmi", tag)


def test_without_a_ca_file_the_images_list_counts(docker: Docker, s3_store: S3Store, authority: Authority, image: str):
    with secure_site(docker, s3_store, authority, image=image) as site:
        assert site.settings.s3_ca_file is None
        assert sent_and_fetched(site) == b"over TLS"
