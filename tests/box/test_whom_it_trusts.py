"""Whom MLflow believes about an object store's certificate: `s3_ca_file`, else whom the operating system believes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlwf.wire import trust

from tests.box.parts import settings
from tests.support.box import Box
from tests.support.s3 import S3Store
from tests.support.tls import Authority, in_front_of
from tracking_server.layout import Box as Layout
from tracking_server.mlflow_process import environment
from tracking_server.mlflow_process.plan import Plan

KEYS = {"webhook_secret_encryption_key": "a", "crypto_kek_passphrase": "b", "flask_secret_key": "c"}
LIST = next((Path(path) for path in environment.SYSTEM_LISTS if Path(path).is_file()), None)
"""Of this machine."""


def trusted(folder: Path, **changes: object) -> str | None:
    return environment.variables(Plan(Layout(folder), settings(**changes), KEYS, "")).get("AWS_CA_BUNDLE")


def test_the_first_list_that_there_is_unless_a_file_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, of_the_site = tmp_path / "first", tmp_path / "second", tmp_path / "site.pem"
    monkeypatch.setattr(environment, "SYSTEM_LISTS", (str(first), str(second)))
    assert trusted(tmp_path) is None, "boto3 takes its own where the system has none"
    second.touch()
    assert trusted(tmp_path) == str(second)
    first.touch()
    assert trusted(tmp_path) == str(first)
    assert trusted(tmp_path, s3_ca_file=str(of_the_site)) == str(of_the_site)


def test_the_service_looks_in_the_same_places() -> None:
    assert trust.SYSTEM_LISTS == environment.SYSTEM_LISTS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def endpoint_url(s3_store: S3Store, authority: Authority) -> Iterator[str]:
    """A store whose certificate is of an authority that this machine does not know."""
    with in_front_of(s3_store.endpoint_url, authority) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.mark.box
@pytest.mark.skipif(os.geteuid() != 0 or LIST is None, reason="a machine's own list is replaced, as its root can for one process")
def test_a_machine_that_knows_the_sites_authority_needs_no_setting(
    own_box: Callable[..., Box], s3_store: S3Store, authority: Authority, endpoint_url: str, tmp_path: Path
) -> None:
    """As after `update-ca-certificates`."""
    assert LIST is not None
    both = tmp_path / "list.pem"
    both.write_text(LIST.read_text() + authority.ca_file.read_text())
    box = own_box(bucket=s3_store.make_bucket(), endpoint_url=endpoint_url, region=s3_store.region)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.within = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(both), str(LIST))
    box.start()
    run = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/a.bin"
    answer = box.request("PUT", path, data=b"trusted")
    assert answer.status_code == 200, f"{answer.text}\n{box.last_words()}"
    assert box.request("GET", path).content == b"trusted"
