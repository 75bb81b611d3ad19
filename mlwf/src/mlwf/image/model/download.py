"""An archive that comes over a network in several parts at once, read while it comes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.transfer.download import Download
from mlwf.transfer.source import RemoteFile, Source


def download_into(archive: Path, source: Source, file: RemoteFile, on_bytes: Callable[[int], None]) -> Download:
    """What fetches `file` into the new file `archive`, as a context."""
    return Download(_Renamed(source, file), [RemoteFile(archive.name, file.size, file.etag)], archive.parent, on_bytes)


def coming(download: Download, path: str, shown: str) -> Iterator[bytes]:
    """The bytes as they land; what broke the download is told in the words of this command."""
    try:
        yield from download.chunks(path)
    except MlwfError as error:
        raise MlwfError(_("{source} could not be read").format(source=shown), error.why, _("Try again.")) from error


class _Renamed:
    """A source whose one file has another name here: a name that the archive's server chose is not used on the disk."""

    def __init__(self, source: Source, file: RemoteFile) -> None:
        self.name, self.ranges, self.workers = source.name, source.ranges, source.workers
        self._source = source
        self._file = file

    def files(self) -> list[RemoteFile]:
        return [self._file]

    def read(self, file: RemoteFile, offset: int, length: int | None) -> contextlib.AbstractContextManager[Iterator[bytes]]:  # noqa: ARG002
        return self._source.read(self._file, offset, length)
