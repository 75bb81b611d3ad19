"""Downloads are bounded like uploads: MLflow fetches a whole object into a temporary file before it sends the first byte."""

from __future__ import annotations

import functools
import posixpath
from typing import Any

from tracking_server.mlflow_process.spool import NoRoomError, Spool


def install(spool: Spool) -> None:
    """Into this process's MLflow. One more small request to the object store for each download buys the size beforehand."""
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]

    download = S3ArtifactRepository.download_artifacts

    @functools.wraps(download)
    def download_bounded(self: Any, artifact_path: str, *arguments: Any, **options: Any) -> Any:
        size = _object_size(self, artifact_path)
        if not spool.promise(size):
            raise NoRoomError(spool.words(size))
        try:
            return download(self, artifact_path, *arguments, **options)
        finally:
            spool.keep(size)

    S3ArtifactRepository.download_artifacts = download_bounded


def _object_size(repository: Any, path: str) -> int:
    """Bytes; 0 for what is no single object: MLflow itself then says what is wrong, or fetches a folder's files."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, root = repository.parse_s3_compliant_uri(repository.artifact_uri)
    try:
        head = repository._get_s3_client().head_object(Bucket=bucket, Key=posixpath.join(root, path))  # noqa: SLF001  # pinned
    except (ClientError, BotoCoreError):
        return 0
    return int(head["ContentLength"])
