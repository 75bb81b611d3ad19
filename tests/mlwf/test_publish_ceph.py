"""mlwf publish on Ceph's gateway: ACLs that count, policies, and a bucket that is full."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from mlwf.publish.upload import PART

from tests.mlwf.publishing import make_package
from tests.support.ceph import Ceph

pytestmark = pytest.mark.heavy
Mlwf = Callable[..., int]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "package")


def keys(ceph: Ceph, user: str = "owner") -> dict[str, str]:
    who = ceph.user(user)
    return {"MLFLOW_S3_ENDPOINT_URL": ceph.endpoint_url, "AWS_ACCESS_KEY_ID": who.access_key, "AWS_SECRET_ACCESS_KEY": who.secret_key}


def status(ceph: Ceph, bucket: str, name: str) -> int:
    return requests.get(f"{ceph.endpoint_url}/{bucket}/{name}", timeout=10).status_code


def test_access_is_set_and_proven(ceph: Ceph, package: Path, mlwf: Mlwf) -> None:
    bucket = ceph.make_bucket()
    assert mlwf("publish", str(package), f"s3://{bucket}/m/", "--acl", "authenticated-read", env=keys(ceph)) == 0
    assert status(ceph, bucket, "m/model.tar.gz") == 403
    other = ceph.client(ceph.user("stranger"))
    assert other.get_object(Bucket=bucket, Key="m/model.tar.gz")["ContentLength"] > 0
    assert mlwf("publish", str(package), f"s3://{bucket}/m/", "--acl", "public-read", env=keys(ceph)) == 0
    assert [status(ceph, bucket, f"m/{name}") for name in ("model.tar.gz", "info.yaml", "README.md")] == [200, 200, 200]
    url = f"{ceph.endpoint_url}/{bucket}/m/"
    assert f"- {url}model.tar.gz" in (package / "info.yaml").read_text("utf-8")
    assert mlwf("verify", url) == 0


def test_public_by_policy_leaves_other_statements(ceph: Ceph, package: Path, mlwf: Mlwf) -> None:
    bucket = ceph.make_bucket()
    before = ceph.client().get_bucket_policy(Bucket=bucket)["Policy"]
    for _again in range(2):
        assert mlwf("publish", str(package), f"s3://{bucket}/m/", "--by-policy", env=keys(ceph)) == 0
    policy = ceph.client().get_bucket_policy(Bucket=bucket)["Policy"]
    assert before.count("user/reader") == policy.count("user/reader") == 1
    assert policy.count("MlwfPublish") == 1
    assert status(ceph, bucket, "m/model.tar.gz") == 200
    ceph.client().put_object(Bucket=bucket, Key="other", Body=b"x")
    assert status(ceph, bucket, "other") == 403


def test_a_full_bucket_is_said_and_nothing_is_left(ceph: Ceph, tmp_path: Path, mlwf: Mlwf, capsys: pytest.CaptureFixture[str]) -> None:
    full = ceph.client(ceph.user("full"))
    full.create_bucket(Bucket="full-bucket")
    ceph.set_quota("full", megabytes=1)
    full.put_object(Bucket="full-bucket", Key="what fills it", Body=b"x" * (1 << 20))
    package = make_package(tmp_path / "large", weights=os.urandom(3 * PART))
    assert mlwf("publish", str(package), "s3://full-bucket/m/", env=keys(ceph, "full")) == 1
    assert "the bucket is full" in capsys.readouterr().err
    assert not full.list_multipart_uploads(Bucket="full-bucket").get("Uploads")
    assert [each["Key"] for each in full.list_objects_v2(Bucket="full-bucket")["Contents"]] == ["what fills it"]


def test_the_right_that_is_lacking_is_named(ceph: Ceph, tmp_path: Path, mlwf: Mlwf, capsys: pytest.CaptureFixture[str]) -> None:
    """Who may list, read and write was told to ask for just that, which is not enough for parts, ACLs and policies."""
    bucket, writer = ceph.make_bucket(), ceph.user("writer")
    resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    may = ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    statement = {"Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{writer.name}"]}, "Action": may, "Resource": resource}
    ceph.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    large, small = make_package(tmp_path / "large", weights=os.urandom(2 * PART)), make_package(tmp_path / "small")
    assert mlwf("publish", str(large), f"s3://{bucket}/m/", env=keys(ceph, "writer")) == 1
    assert "your key may not do that. Ask the bucket's owner for s3:ListBucketMultipartUploads, " in capsys.readouterr().err
    assert mlwf("publish", str(small), f"s3://{bucket}/m/", "--by-policy", env=keys(ceph, "writer")) == 1
    assert "Ask the bucket's owner for s3:GetBucketPolicy, s3:PutBucketPolicy there" in capsys.readouterr().err
    assert mlwf("publish", str(small), f"s3://{bucket}/own/", env=keys(ceph)) == 0
    capsys.readouterr()
    blocked = {"BlockPublicAcls": True, "BlockPublicPolicy": True}
    ceph.client().put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocked)  # type: ignore[arg-type]
    for way in (("--by-policy",), ("--acl", "public-read")):
        assert mlwf("publish", str(small), f"s3://{bucket}/own/", *way, env=keys(ceph)) == 1
        assert "whether the bucket may be opened at all (Block Public Access)" in capsys.readouterr().err
