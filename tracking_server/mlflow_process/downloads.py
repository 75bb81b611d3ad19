"""Downloads are bounded like uploads: MLflow fetches a whole object into a temporary file before it sends the first byte.

A server sends single files: of a folder MLflow would first fetch every file below it, and then have nothing that it can send. A job may
want a whole folder, whose files are bounded one by one, and lie where those that came before them count.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from typing import Any

from tracking_server.mlflow_process.spool import NoRoomError, Spool

_FOLDER = "This is a folder, and a server sends files only: list it, and fetch its files one by one."


# Pieces of 256 KB of one download that wait to be written, besides one of each of boto3's ten connections. By its own hundred it is 28 MB.
_UNWRITTEN = 16


class Share:
    """What was promised for one download, which shrinks as its file grows: the bytes count in the folder then."""

    def __init__(self, spool: Spool, size: int) -> None:
        self._spool = spool
        self._size = self._left = size

    def written(self, length: int) -> None:
        """So long is the file by now."""
        left = max(0, self._size - length)
        self._spool.keep(self._left - left)
        self._left = left

    def end(self) -> None:
        """What has not come will not."""
        self.written(self._size)


class Arriving:
    """The file of one download, as boto3 writes it. What boto3 itself tells to have come is in memory still, and would count nowhere."""

    def __init__(self, file: FileIO, share: Share) -> None:
        self._file = file
        self._share = share

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int) -> None:
        self._file.seek(offset)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._share.written(os.fstat(self._file.fileno()).st_size)


@contextmanager
def arriving(path: Path, spool: Spool, size: int) -> Iterator[Arriving]:
    """The new file for a download of `size` bytes, for which room is held; of one that fails nothing is left. Raises NoRoomError."""
    if not spool.promise(size):
        raise NoRoomError(spool.words(size))
    share = Share(spool, size)
    try:
        with path.open("wb", buffering=0) as file:
            yield Arriving(file, share)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        share.end()


def install(spool: Spool) -> None:
    """Into this process's MLflow. One more small request to the object store for each download buys the size beforehand."""
    from boto3.exceptions import RetriesExceededError
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import ClientError
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]
    from s3transfer.exceptions import RetriesExceededError as S3TransferRetriesExceededError

    config = TransferConfig(max_io_queue=_UNWRITTEN)

    def download_bounded(self: Any, remote_file_path: str, local_path: Any) -> None:
        """MLflow's own, which writes the file itself."""
        bucket, root = self.parse_s3_compliant_uri(self.artifact_uri)
        client, key = self._get_s3_client(), posixpath.join(root, remote_file_path)
        # What is wrong with the object, or with the store, is said here as the download itself would say it.
        size = int(client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        with arriving(Path(local_path), spool, size) as file:
            try:
                client.download_fileobj(bucket, key, file, ExtraArgs=self._bucket_owner_params or None, Config=config)
            except S3TransferRetriesExceededError as error:  # boto3 gives it a name of its own where it writes the file
                raise RetriesExceededError(error.last_exception) from error  # type: ignore[arg-type]  # as boto3 itself does

    def download_one(self: Any, artifact_path: str, dst_path: str) -> str:
        """What MLflow's own does with a file, on this thread: what goes wrong comes out as it is, and is explained (`failures`)."""
        if not artifact_path:
            raise MlflowException.invalid_parameter_value(_FOLDER)
        place: str = self._create_download_destination(artifact_path, dst_path)
        try:
            self._download_file(artifact_path, place)
        except ClientError as error:
            if _is_unsaid(error) and self._is_directory(artifact_path):
                raise MlflowException.invalid_parameter_value(_FOLDER) from error
            raise
        return place

    S3ArtifactRepository._download_file = download_bounded  # noqa: SLF001  # MLflow's versions are pinned
    S3ArtifactRepository.download_artifacts = download_one


def _is_unsaid(error: Any) -> bool:
    """Whether the store has not said why: its answer to a HEAD has no words. Then a list tells whether it is a folder, or has them (a clock
    that is wrong is no wrong key). MLflow would list first, which in a bucket of many objects takes longer than all else.
    """
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return bool(error.operation_name == "HeadObject" and status < HTTPStatus.INTERNAL_SERVER_ERROR)


def take_folders() -> None:
    """In this process, which is a job's and serves nobody."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    S3ArtifactRepository.download_artifacts = ArtifactRepository.download_artifacts
