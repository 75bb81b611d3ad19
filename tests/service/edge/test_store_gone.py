"""The object store stops answering just when a server is created."""

import os

import pytest
from mlwf.client import OperationFailedError
from mlwf.secret import Secret

from tests.support.runtimes import service_on
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.timeout(400), pytest.mark.skipif(os.geteuid() != 0, reason="the caller's group is root's")]


def test_a_create_whose_store_does_not_answer_leaves_nothing_and_can_be_asked_again(own_s3_store: S3Store) -> None:
    owner = own_s3_store.owner
    wish = {"group": "root", "env_name": "wine", "bucket": own_s3_store.make_bucket(), "access_key_id": owner.access_key}
    wish |= {"secret_access_key": Secret(owner.secret_key)}
    with service_on(None, own_s3_store) as live, live.client() as client:
        own_s3_store.pause()
        with pytest.raises(OperationFailedError) as caught:
            client.wait(client.create(**wish), timeout=200)
        assert caught.value.problem.code == "storage_unreachable"
        assert "it did not answer in time" in str(caught.value)
        assert client.servers() == client.servers(deleted=True) == []
        assert not list((live.state / "servers").iterdir())
        own_s3_store.resume()
        client.wait(client.create(**wish), timeout=200)
        assert [server.env_name for server in client.servers()] == ["wine"]
