"""mlwf publish by two at the same moment, to one place."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from mlwf.publish import run
from mlwf.publish.package import TARBALL
from mlwf.publish.place import s3_client
from mlwf.publish.upload import DIGEST, PART
from urllib3 import HTTPResponse

from tests.mlwf.publishing import Shell, make_package

SIZES = {"PutObject": 1000, "CompleteMultipartUpload": PART + 1}
"""What makes the tarball appear, by the size of what is in it."""


@pytest.fixture(params=SIZES)
def ends_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ours(ends_by: str, tmp_path: Path) -> Path:
    return make_package(tmp_path / "ours", weights=os.urandom(SIZES[ends_by]))


def watch(monkeypatch: pytest.MonkeyPatch, event: str, handler: Callable[..., Any]) -> None:
    """What the command's own client tells when it is about to do that."""

    def watched(*given: Any, **more: Any) -> Any:
        client = s3_client(*given, **more)
        client.meta.events.register(event, handler)
        return client

    monkeypatch.setattr(run, "s3_client", watched)


def test_another_package_that_came_first_is_not_overwritten(ends_by: str, ours: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came after the look that found nothing there, and before ours had arrived."""
    bucket, client = sh.store.make_bucket(), sh.store.client()

    def first(**_event: Any) -> None:
        client.put_object(Bucket=bucket, Key=f"m/{TARBALL}", Body=b"other")

    watch(monkeypatch, f"before-call.s3.{ends_by}", first)
    assert sh("publish", ours, f"s3://{bucket}/m/") == 1
    assert "another package was published there meanwhile. Publish under another prefix" in sh.err
    assert client.get_object(Bucket=bucket, Key=f"m/{TARBALL}")["Body"].read() == b"other"
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    monkeypatch.undo()
    assert sh("publish", ours, f"s3://{bucket}/m/", "--replace") == 0


def test_the_same_package_that_came_first_is_published(ends_by: str, ours: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a try whose answer was lost look."""
    bucket, client = sh.store.make_bucket(), sh.store.client()
    content = (ours / TARBALL).read_bytes()
    facts = {"Bucket": bucket, "Key": f"m/{TARBALL}", "Body": content}

    def first(params: dict[str, Any], **_event: Any) -> None:
        if params["url_path"].endswith(TARBALL):
            client.put_object(**facts)

    watch(monkeypatch, f"before-call.s3.{ends_by}", first)
    assert sh("publish", ours, f"s3://{bucket}/m/") == 0
    assert client.get_object(Bucket=bucket, Key=f"m/{TARBALL}")["Metadata"].get(DIGEST) is None, "it is the first one's"


def test_a_store_that_knows_no_condition_is_asked_without(ends_by: str, ours: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions: list[bool] = []

    def refuse(request: AWSPreparedRequest, **_event: Any) -> AWSResponse | None:
        conditions.append("If-None-Match" in request.headers)
        if not conditions[-1]:
            return None
        raw = io.BytesIO(b"<Error><Code>NotImplemented</Code><Message>m</Message></Error>")
        return AWSResponse(request.url, 501, HeadersDict({}), HTTPResponse(raw, preload_content=False))

    watch(monkeypatch, f"before-send.s3.{ends_by}", refuse)
    assert sh("publish", ours, f"s3://{sh.store.make_bucket()}/m/") == 0
    assert conditions[:2] == [True, False]
