"""Tries of an object store, and how they fail."""

import pytest
from mlwf.secret import Secret

from backend.adapters.s3 import S3
from backend.domain import Storage, StorageKey
from backend.errors import ServiceError
from demo.store import StoreUser


def storage(endpoint: str | None, bucket: str = "some-bucket") -> Storage:
    return Storage(bucket=bucket, prefix="mlflow/k3v9x2m7q4ab", endpoint_url=endpoint, region="us-east-1")


def key(user: StoreUser | None = None) -> StorageKey:
    if user is None:
        return StorageKey(access_key_id="AKSOMEBODY", secret_access_key=Secret("hidden-secret"))
    return StorageKey(access_key_id=user.access_key, secret_access_key=Secret(user.secret_key))


def failure(where: Storage, who: StorageKey, store: S3 | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        (store or S3(connect_seconds=2, read_seconds=2)).probe(storage=where, key=who)
    error = caught.value
    assert who.secret_access_key.reveal() not in f"{error} {error.params}"
    return error
