"""Tries an object store with somebody's key. The only file of the service that knows boto3.

Everything goes as S3-likes need it: path-style, checksums only where required, signed with the given region, and with short patience.
Which answer means what is in ``backend.adapters.s3_errors``.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mlwf.wire.trust import system_list

from backend.adapters.s3_bounds import Deadline, bound_answers
from backend.adapters.s3_errors import Target, from_answer, from_connection, not_s3, too_late
from backend.domain import Probe, Storage, StorageKey
from backend.errors import ServiceError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)
T = TypeVar("T")
CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 10
ATTEMPTS: Final = 2
PROBE_SECONDS: Final = 60.0
"""For a whole probe. A store needs a second or two, and a busy one some more."""
CLEAN_SECONDS: Final = 15.0
"""For what one that failed left behind."""
_BODY: Final = b"aihub looks whether this bucket can be used; this object may be removed\n"


class S3:
    """The port ``ObjectStore``. ``ca_file``: CA bundle for https; None: the operating system's. The timeouts are lowered by
    tests alone.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._ca_file = ca_file
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._probe_seconds = probe_seconds

    def probe(self, *, storage: Storage, key: StorageKey) -> Probe:
        """See the port. Listing comes first: its answer tells a wrong key, secret and bucket apart. Leaves nothing behind."""
        target = Target(storage=storage, access_key_id=key.access_key_id)
        with closing(Deadline()) as deadline:
            try:
                client = self._client(storage, key, deadline)
            except ValueError as error:  # boto3's word for an endpoint that is no address
                raise not_s3(target, "its address is not valid") from error
            trial = _Trial(client, target, deadline)
            try:
                with deadline.within(self._probe_seconds):
                    trial.run()
                    others = _other_buckets(client, storage.bucket)
            finally:
                with deadline.within(CLEAN_SECONDS):
                    trial.clean_up()
        return Probe(other_buckets=others)

    def _client(self, storage: Storage, key: StorageKey, deadline: Deadline) -> S3Client:
        # The account's own files are not read. Nor is AWS_PROFILE: a profile that it names would be looked for in them, and
        # that there is none would be an error.
        session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
        for name in ("config_file", "credentials_file"):
            session.set_config_variable(name, "/dev/null")
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=storage.endpoint_url,
            region_name=storage.region,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key.reveal(),
            verify=system_list() if self._ca_file is None else str(self._ca_file),
            config=Config(
                signature_version="s3v4",
                connect_timeout=self._connect_seconds,
                read_timeout=self._read_seconds,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]
                max_pool_connections=1,
            ),
        )
        bound_answers(client, deadline)
        return client


@dataclass
class _Trial:
    """One try of everything that a tracking server does, and what must be removed afterwards."""

    client: S3Client
    target: Target
    deadline: Deadline
    name: str = field(default_factory=lambda: f".aihub-probe-{secrets.token_hex(8)}")
    objects: list[str] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Each step fails with its own code."""
        self._do("list", self._list)
        self._do("write", self._write)
        self._do("read", self._read)
        self._do("upload in parts", self._upload)
        for key in tuple(self.objects):
            self._do("delete", lambda key=key: self._delete(key))  # type: ignore[misc]

    def clean_up(self) -> None:
        """Remove what a failure left. What cannot be removed is said in the log: the answer is the first failure."""
        for key, upload in self.uploads.items():
            self._try_to_remove(lambda key=key, upload=upload: self.client.abort_multipart_upload(**self._where(key), UploadId=upload))  # type: ignore[misc]
        for key in tuple(self.objects):
            self._try_to_remove(lambda key=key: self._delete(key))  # type: ignore[misc]

    def _do(self, action: str, step: Callable[[], T]) -> T:
        try:
            return step()
        except (ClientError, BotoCoreError, ServiceError) as error:
            if self.deadline.is_over:  # whatever was made of an answer that was cut off
                raise too_late(self.target) from error
            if isinstance(error, ClientError):
                raise from_answer(error.response, self.target, action) from error
            if isinstance(error, BotoCoreError):
                raise from_connection(error, self.target) from error
            raise

    def _list(self) -> None:
        prefix = f"{self.target.storage.prefix}/"
        answer = self.client.list_objects_v2(Bucket=self.target.storage.bucket, Prefix=prefix, MaxKeys=1)
        if "IsTruncated" not in answer:
            raise not_s3(self.target, "its answer to a request for a list is not one")

    def _write(self) -> None:
        key = f"{self.target.storage.prefix}/{self.name}"
        self.objects.append(key)
        self.client.put_object(**self._where(key), Body=_BODY)

    def _read(self) -> None:
        body = self.client.get_object(**self._where(self.objects[0]))["Body"]
        with body:
            if body.read(len(_BODY) + 1) != _BODY:
                raise not_s3(self.target, "it does not give back what was written")

    def _upload(self) -> None:
        key = f"{self.target.storage.prefix}/{self.name}-parts"
        upload = self.client.create_multipart_upload(**self._where(key))["UploadId"]
        self.uploads[key] = upload
        part = self.client.upload_part(**self._where(key), UploadId=upload, PartNumber=1, Body=_BODY)
        self.objects.append(key)
        parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
        self.client.complete_multipart_upload(**self._where(key), UploadId=upload, MultipartUpload=parts)  # type: ignore[arg-type]
        del self.uploads[key]

    def _delete(self, key: str) -> None:
        self.client.delete_object(**self._where(key))
        self.objects.remove(key)

    def _where(self, key: str) -> Any:
        return {"Bucket": self.target.storage.bucket, "Key": key}

    def _try_to_remove(self, remove: Callable[[], object]) -> None:
        try:
            remove()
        except (ClientError, BotoCoreError) as error:
            code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else type(error).__name__
            if code not in {"NoSuchBucket", "NoSuchKey", "NoSuchUpload"}:
                log.warning("%s of the probe may be left in bucket %s: %s", self.name, self.target.storage.bucket, code)


def _other_buckets(client: S3Client, bucket: str) -> int | None:
    """How many other buckets the key may list; None where it may not even ask, which is best, or got no answer, which is logged."""
    try:
        answer = client.list_buckets()
    except (ClientError, BotoCoreError) as error:
        said = error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else None
        if said != HTTPStatus.FORBIDDEN:
            log.warning("whether the key opens other buckets than %s is not known: %s", bucket, type(error).__name__)
        return None
    return sum(1 for each in answer.get("Buckets", []) if each.get("Name") != bucket)
