"""Downloads are bounded like uploads: MLflow fetches a whole object into a temporary file before it sends the first byte.

A server sends single files: of a folder MLflow would first fetch every file below it, and then have nothing that it can send. A job may
want a whole folder, whose files are bounded one by one, and lie where those that came before them count.
"""

from __future__ import annotations

import functools
import posixpath
from typing import Any

from tracking_server.mlflow_process.spool import NoRoomError, Spool

_FOLDER = "This is a folder, and a server sends files only: list it, and fetch its files one by one."


def install(spool: Spool) -> None:
    """Into this process's MLflow. One more small request to the object store for each download buys the size beforehand."""
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]

    download_file = S3ArtifactRepository._download_file  # noqa: SLF001  # MLflow's versions are pinned

    @functools.wraps(download_file)
    def download_bounded(self: Any, remote_file_path: str, local_path: Any) -> Any:
        size = _object_size(self, remote_file_path)
        if not spool.promise(size):
            raise NoRoomError(spool.words(size))
        try:
            return download_file(self, remote_file_path, local_path)
        finally:
            spool.keep(size)

    def download_one(self: Any, artifact_path: str, dst_path: str) -> str:
        """What MLflow's own does with a file, on this thread: what goes wrong comes out as it is, and is explained (`failures`)."""
        if not artifact_path or self._is_directory(artifact_path):
            raise MlflowException.invalid_parameter_value(_FOLDER)
        place: str = self._create_download_destination(artifact_path, dst_path)
        self._download_file(artifact_path, place)
        return place

    S3ArtifactRepository._download_file = download_bounded  # noqa: SLF001  # as above
    S3ArtifactRepository.download_artifacts = download_one


def take_folders() -> None:
    """In this process, which is a job's and serves nobody."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    S3ArtifactRepository.download_artifacts = ArtifactRepository.download_artifacts


def _object_size(repository: Any, path: str) -> int:
    """Bytes. What is wrong with the object, or with the store, is said as the download itself would say it."""
    bucket, root = repository.parse_s3_compliant_uri(repository.artifact_uri)
    head = repository._get_s3_client().head_object(Bucket=bucket, Key=posixpath.join(root, path))  # noqa: SLF001  # as above
    return int(head["ContentLength"])
