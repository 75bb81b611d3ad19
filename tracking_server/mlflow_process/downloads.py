"""Downloads are bounded like uploads: MLflow fetches a whole object into a temporary file before it sends the first byte.

A server sends single files: of a folder MLflow would first fetch every file below it, and then have nothing that it can send. A job may
want a whole folder, whose files are bounded one by one, and lie where those that came before them count.
"""

from __future__ import annotations

import posixpath
import threading
from typing import Any

from tracking_server.mlflow_process.spool import NoRoomError, Spool

_FOLDER = "This is a folder, and a server sends files only: list it, and fetch its files one by one."


class Share:
    """What was promised for one download, which shrinks as its bytes arrive: they lie in the folder then, and count there."""

    def __init__(self, spool: Spool, size: int) -> None:
        self._spool = spool
        self._left = size
        self._lock = threading.Lock()  # an object's parts are fetched side by side

    def arrived(self, size: int) -> None:
        """Less than nothing where a part is fetched once more."""
        with self._lock:
            taken = min(size, self._left)
            self._left -= taken
        self._spool.keep(taken)

    def end(self) -> None:
        """What has not come will not."""
        self.arrived(self._left)


def install(spool: Spool) -> None:
    """Into this process's MLflow. One more small request to the object store for each download buys the size beforehand."""
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]

    def download_bounded(self: Any, remote_file_path: str, local_path: Any) -> None:
        """MLflow's own, which has no place for the callback."""
        bucket, root = self.parse_s3_compliant_uri(self.artifact_uri)
        client, key = self._get_s3_client(), posixpath.join(root, remote_file_path)
        # What is wrong with the object, or with the store, is said here as the download itself would say it.
        size = int(client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        if not spool.promise(size):
            raise NoRoomError(spool.words(size))
        share = Share(spool, size)
        try:
            client.download_file(bucket, key, local_path, ExtraArgs=self._bucket_owner_params or None, Callback=share.arrived)
        finally:
            share.end()

    def download_one(self: Any, artifact_path: str, dst_path: str) -> str:
        """What MLflow's own does with a file, on this thread: what goes wrong comes out as it is, and is explained (`failures`)."""
        if not artifact_path or self._is_directory(artifact_path):
            raise MlflowException.invalid_parameter_value(_FOLDER)
        place: str = self._create_download_destination(artifact_path, dst_path)
        self._download_file(artifact_path, place)
        return place

    S3ArtifactRepository._download_file = download_bounded  # noqa: SLF001  # MLflow's versions are pinned
    S3ArtifactRepository.download_artifacts = download_one


def take_folders() -> None:
    """In this process, which is a job's and serves nobody."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    S3ArtifactRepository.download_artifacts = ArtifactRepository.download_artifacts
