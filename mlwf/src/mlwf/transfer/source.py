"""Where files come from: the port of its adapters, mlwf.transfer.store, mlwf.export.server_source and mlwf.image.model.web."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

MAX_FILES = 1_000_000


@dataclass(frozen=True)
class RemoteFile:
    """One file of the model: its path in the model, its size in bytes where the source knows it, and the source's mark of its content."""

    path: str
    size: int | None
    etag: str = ""


class Source(Protocol):
    """Lists a model's files and reads them. `ranges`: whether a part of a file can be asked for; `workers`: how many readers it bears."""

    name: str
    ranges: bool
    workers: int

    def files(self) -> list[RemoteFile]:
        """Every file. Raises MlwfError."""

    def read(self, file: RemoteFile, offset: int, length: int | None) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes from `offset`, `length` of them (None: to the end). Raises TransientError or RefusedError."""
