"""What a box answers where the object store has no room for it, and where their clocks differ."""

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from tests.support.box import Box
from tests.support.ceph import Ceph
from tracking_server.mlflow_process.failures import explain


@pytest.mark.parametrize(
    ("code", "http", "status", "said"),
    [
        ("QuotaExceeded", 403, 507, "no more room"),  # Ceph's
        ("XMinioStorageFull", 507, 507, "no more room"),
        ("XMinioAdminBucketQuotaExceeded", 400, 507, "no more room"),
        ("AccessDenied", 403, 424, "register working keys"),
        ("RequestTimeTooSkewed", 403, 424, "clock"),  # SeaweedFS, Ceph and Amazon alike
        ("SlowDown", 503, 503, "try again later"),
    ],
)
def test_each_refusal_has_its_status(code: str, http: int, status: int, said: str) -> None:
    answer = explain(ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": http}}, "PutObject"))  # type: ignore[typeddict-item]
    assert answer is not None
    assert (answer[0], code in answer[1]["message"], said in answer[1]["message"]) == (status, True, True)


@pytest.mark.heavy
@pytest.mark.box
def test_a_quota_that_is_used_up_is_no_reason_to_try_again(own_box: Callable[..., Box], ceph: Ceph) -> None:
    keys = ceph.user("used-up")
    ceph.client(keys).create_bucket(Bucket="used-up-bucket")
    ceph.set_quota("used-up", megabytes=1)
    ceph.client(keys).put_object(Bucket="used-up-bucket", Key="big", Body=b"x" * (1 << 20))
    box = own_box(idle_seconds=0, bucket="used-up-bucket", endpoint_url=ceph.endpoint_url)
    box.write_credentials(keys.access_key, keys.secret_key)
    box.start()
    for size in (1, 20 << 20):  # at once, and in parts
        answer = box.request("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x", data=b"x" * size)
        assert (answer.status_code, answer.json()["error_code"]) == (507, "RESOURCE_EXHAUSTED"), answer.text
        assert "QuotaExceeded" in answer.json()["message"]
