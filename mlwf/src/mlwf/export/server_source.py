"""A model's files by the tracking server's own artifact API."""

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlparse, urlunparse

import requests

from mlwf.errors import MlwfError
from mlwf.export.api import RegistryError, TrackingApi
from mlwf.i18n import _
from mlwf.transfer.http import RefusedError, Request, body, byte_count, opened
from mlwf.transfer.paths import check_path
from mlwf.transfer.source import MAX_FILES, RemoteFile

MAX_DEPTH = 64
FETCH_SECONDS = 3660.0
"""The server says nothing before it has the whole file from the object store, and goes on fetching for who has given up: each further try
would take its room and the store's time once more. So its nginx is to give up first, which it does after an hour.
"""


class ServerSource:
    """Files through the tracking server (`mlflow-artifacts:`). Whole files only: MLflow's route streams them from the start."""

    name = "server"
    ranges = False
    workers = 8

    def __init__(self, api: TrackingApi, root: str) -> None:
        self._api = api
        self._session: requests.Session = api.session
        self._root = root

    def files(self) -> list[RemoteFile]:
        found: list[RemoteFile] = []
        folders = [""]
        self._check_reachable("")
        while folders:
            folder = folders.pop()
            if folder.count("/") > MAX_DEPTH or len(found) + len(folders) > MAX_FILES:
                raise MlwfError(_("The model has too many files or folders"), cure=_("Log the model again with fewer files."))
            for entry in self._list(folder):
                path = check_path(f"{folder}/{entry.get('path')}".lstrip("/") if folder else str(entry.get("path") or ""))
                self._check_reachable(path)
                if entry.get("is_dir"):
                    folders.append(path)
                else:
                    found.append(RemoteFile(path, _size(entry.get("file_size"))))
        return found

    def _check_reachable(self, path: str) -> None:
        """Raises MlwfError for what MLflow lists, and takes for another when it is asked for: in such a folder it finds nothing."""
        full = self._full(path)
        if "#" in full or urlunparse(urlparse(unquote(full))) != full:
            raise MlwfError(
                _("The tracking server cannot give {path} of the model").format(path=repr(path or full)),
                _("MLflow misreads such a name: one with '#', one with '%' and two digits, or one that ends with ';' or '?'"),
                _("Set AWS credentials that can read the bucket: the files then come straight from the object store."),
            )

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            listed = self._api.get_json("api/2.0/mlflow-artifacts/artifacts", path=self._full(folder)).get("files") or []
        except RegistryError as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise
        return [entry for entry in listed if isinstance(entry, dict)]

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int, length: int | None) -> Iterator[Iterator[bytes]]:
        if offset or length is not None:
            raise ValueError("the server's route reads whole files only")
        path = quote(self._full(file.path), safe="/")
        request = Request(f"{self._api.base}/api/2.0/mlflow-artifacts/artifacts/{path}", {}, read_seconds=FETCH_SECONDS)
        with opened(self._session, request) as response:
            announced = byte_count(response.headers.get("Content-Length", ""))
            if file.size is not None and announced not in {None, file.size}:
                raise RefusedError(_("{path} has a different size from the one listed").format(path=file.path))
            yield body(response)


def _size(value: Any) -> int | None:
    try:
        return max(int(value), 0)
    except (TypeError, ValueError):
        return None
