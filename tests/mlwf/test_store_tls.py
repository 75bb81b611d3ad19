"""MLFLOW_S3_IGNORE_TLS, AWS_CA_BUNDLE and a profile's ca_bundle mean the same for all that asks the object store, and for MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlwf.errors import MlwfError, WrongUseError
from mlwf.transfer.session import tracking_session
from mlwf.transfer.store import StoreSource

from tests.mlwf.publishing import Shell
from tests.support.s3 import S3Store
from tests.support.tls import Authority, in_front_of

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS")


@dataclass
class SecureStore:
    """The store behind a certificate that nobody trusts unasked."""

    url: str
    authority: Authority


@pytest.fixture
def secure_store(s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecureStore]:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    authority = Authority(tmp_path / "ca")
    with in_front_of(s3_store.endpoint_url, authority) as port:
        yield SecureStore(f"https://127.0.0.1:{port}", authority)


def published(secure: SecureStore, package: Path, sh: Shell, **trust: str) -> tuple[str, list[int]]:
    """What `mlwf publish` to a new bucket, and `mlwf verify` of the bucket's and of the web's address end with; and where it lies."""
    bucket = sh.store.make_bucket()
    trust = {"MLFLOW_S3_ENDPOINT_URL": secure.url, **trust}
    ended = [sh("publish", package, f"s3://{bucket}/m/", "--by-policy", **trust)]
    ended += [sh("verify", url, **trust) for url in (f"s3://{bucket}/m/", f"{secure.url}/{bucket}/m/")]
    return bucket, ended


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_a_certificate_is_not_checked_by_any_command(value: str, secure_store: SecureStore, package: Path, sh: Shell) -> None:
    bucket, ended = published(secure_store, package, sh, MLFLOW_S3_IGNORE_TLS=value)
    assert ended == [0, 0, 0], sh.err
    source = {"endpoint_url": secure_store.url, "region": sh.store.region, "bucket": bucket, "prefix": "m"}
    assert len(StoreSource(**source, environ={"MLFLOW_S3_IGNORE_TLS": value}).files()) == 3


@pytest.mark.parametrize("value", ["", "0", "False"])
def test_a_certificate_is_checked_by_every_command(value: str, secure_store: SecureStore, package: Path, sh: Shell) -> None:
    _bucket, ended = published(secure_store, package, sh, MLFLOW_S3_IGNORE_TLS=value)
    assert ended == [1, 1, 1]
    assert "certificate" in sh.err.lower()
    _bucket, ended = published(secure_store, package, sh, MLFLOW_S3_IGNORE_TLS=value, AWS_CA_BUNDLE=str(secure_store.authority.ca_file))
    assert ended == [0, 0, 0], sh.err


def site_profile(secure: SecureStore, store: S3Store, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`site` is a profile with the store's keys and that bundle."""
    file, owner = secure.authority.folder / "aws", store.owner
    lines = {"ca_bundle": bundle, "aws_access_key_id": owner.access_key, "aws_secret_access_key": owner.secret_key}
    file.write_text("[profile site]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))


def test_whom_a_profile_trusts_every_command_trusts(
    secure_store: SecureStore, package: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at who can read it, too, which failed when all was uploaded. Of a web address, which may be anybody's, it says nothing."""
    site_profile(secure_store, sh.store, secure_store.authority.ca_file, monkeypatch)
    url = f"s3://{sh.store.make_bucket()}/m/"
    for way in ("--by-policy", "--acl=private", None):
        options = ["--profile", "site", *([way] if way else [])]
        assert sh("publish", package, f"{url}{way}/", *options, MLFLOW_S3_ENDPOINT_URL=secure_store.url) == 0, sh.err
    bucket, ended = published(secure_store, package, sh, AWS_PROFILE="site")
    assert ended == [0, 0, 1], sh.err
    source = {"endpoint_url": secure_store.url, "region": sh.store.region, "bucket": bucket, "prefix": "m"}
    assert len(StoreSource(**source, environ={}).files()) == 3


def test_who_checks_no_certificate_needs_nobody_who_vouches_for_it(
    secure_store: SecureStore, package: Path, sh: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_profile(secure_store, sh.store, tmp_path / "gone.pem", monkeypatch)
    bucket, ended = published(secure_store, package, sh, AWS_PROFILE="site", MLFLOW_S3_IGNORE_TLS="true")
    assert ended == [0, 0, 0], sh.err
    source = {"endpoint_url": secure_store.url, "region": sh.store.region, "bucket": bucket, "prefix": "m"}
    for more in ({}, {"AWS_CA_BUNDLE": str(tmp_path / "gone.pem")}):
        assert len(StoreSource(**source, environ={"MLFLOW_S3_IGNORE_TLS": "true", **more}).files()) == 3


@pytest.mark.parametrize("value", ["yes", "on", "2"])
def test_a_value_that_mlflow_refuses_is_refused(value: str, secure_store: SecureStore, package: Path, sh: Shell) -> None:
    _bucket, ended = published(secure_store, package, sh, MLFLOW_S3_IGNORE_TLS=value)
    assert ended == [2, 2, 2]
    assert "MLFLOW_S3_IGNORE_TLS cannot be used" in sh.err
    source = {"endpoint_url": secure_store.url, "region": sh.store.region, "bucket": "b", "prefix": "m"}
    with pytest.raises(WrongUseError, match="MLFLOW_S3_IGNORE_TLS cannot be used"):
        StoreSource(**source, environ={"MLFLOW_S3_IGNORE_TLS": value})
    with pytest.raises(MlwfError, match="MLFLOW_TRACKING_INSECURE_TLS cannot be used"):
        tracking_session("https://h/mlflow", {"MLFLOW_TRACKING_INSECURE_TLS": value})
