"""The object store's probe against Ceph's gateway, which is closest to what sites run."""

from dataclasses import replace

import pytest

from backend.adapters.s3 import S3
from tests.service.edge.probing import failure, key, storage
from tests.support.ceph import Ceph

pytestmark = pytest.mark.heavy


def test_a_good_key_and_nothing_is_left(ceph: Ceph) -> None:
    bucket = ceph.make_bucket()
    others = len(ceph.client().list_buckets()["Buckets"]) - 1
    assert S3().probe(storage=storage(ceph.endpoint_url, bucket), key=key(ceph.owner)).other_buckets == others
    assert ceph.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert not ceph.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_each_mistake_has_its_code(ceph: Ceph) -> None:
    bucket, url, owner = ceph.make_bucket(), ceph.endpoint_url, ceph.owner
    assert failure(storage(url, bucket), key(replace(owner, access_key="AKNOBODYKNOWSIT"))).code == "storage_key_unknown"
    assert failure(storage(url, bucket), key(replace(owner, secret_key="not-the-secret"))).code == "storage_secret_wrong"
    assert failure(storage(url, "no-such-bucket-here"), key(owner)).code == "storage_bucket_missing"


def test_what_the_key_may_not_do_is_named(ceph: Ceph) -> None:
    bucket = ceph.make_bucket()
    reader = failure(storage(ceph.endpoint_url, bucket), key(ceph.reader))
    assert (reader.code, reader.params["action"]) == ("storage_forbidden", "write")
    stranger = failure(storage(ceph.endpoint_url, bucket), key(ceph.user("stranger")))
    assert stranger.code == "storage_forbidden"


def test_a_full_quota_is_said(ceph: Ceph) -> None:
    poor = ceph.user("poor")
    ceph.client(poor).create_bucket(Bucket="poor-bucket")
    ceph.set_quota("poor", megabytes=1)
    ceph.client(poor).put_object(Bucket="poor-bucket", Key="big", Body=b"x" * (1 << 20))
    assert failure(storage(ceph.endpoint_url, "poor-bucket"), key(poor)).code == "storage_full"
