"""One export, from the registry to the finished folder."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlwf import info
from mlwf.errors import MlwfError
from mlwf.export import card
from mlwf.export.api import RegistryError, TrackingApi
from mlwf.export.gzip_stream import ParallelGzip
from mlwf.export.registry import Location, ModelVersion, find
from mlwf.export.server_source import ServerSource
from mlwf.export.tarball import TarWriter, with_directories
from mlwf.i18n import _
from mlwf.transfer.download import Download
from mlwf.transfer.paths import check_tree
from mlwf.transfer.session import base_url, tracking_session
from mlwf.transfer.source import RemoteFile, Source
from mlwf.transfer.store import StoreError, StoreSource, endpoint_of
from mlwf.transfer.workspace import DIRECTORY_MODE, FILE_MODE, Workspace


@dataclass(frozen=True)
class Wanted:
    """What the user asked for. `through`: auto, server or store."""

    url: str
    name: str
    number: str | None
    alias: str | None
    output: Path
    through: str = "auto"


@dataclass(frozen=True)
class Exported:
    """What came of it. `through`: server or store; `because`: why it was not the store, where that was tried."""

    folder: Path
    version: str
    package: card.Package
    through: str
    because: str
    seconds: float


class Reporter(Protocol):
    """Told how it goes, partly from other threads."""

    def found(self, version: ModelVersion) -> None: ...

    def begins(self, files: int, size: int | None, through: str) -> None: ...

    def arrived(self, count: int) -> None: ...


def export(wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> Exported:
    """Makes the folder and answers what it holds. Raises MlwfError; nothing is left then, nor after an interrupt."""
    started = time.monotonic()
    api, version = _look_up(wanted, environ, report)
    with Workspace(wanted.output) as workspace, _disk_errors(wanted.output):
        source, files, because = _listed(wanted, api, version, environ)
        workspace.check_space(2 * sum(file.size or 0 for file in files))
        _tell(report, source, files)
        package = _fetch_and_pack(source, files, workspace.path, _seconds(version), report.arrived)
        _write(workspace.path / "info.yaml", info.dump(card.fill(version, package, _mlmodel(workspace.path / "artifacts"))))
        folder = workspace.publish()
    return Exported(folder, version.number, package, source.name, because, time.monotonic() - started)


def fetch_artifacts(wanted: Wanted, environ: Mapping[str, str], report: Reporter, into: Path) -> ModelVersion:
    """Downloads the model's files into the new folder `into`, without packing them. Raises MlwfError; a part may be left in `into` then."""
    api, version = _look_up(wanted, environ, report)
    with _disk_errors(into.parent):
        source, files, _because = _listed(wanted, api, version, environ)
        _tell(report, source, files)
        _make_folders(into, files)
        with Download(source, files, into, report.arrived) as download:
            download.finish()
    return version


def _look_up(wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> tuple[TrackingApi, ModelVersion]:
    url = base_url(wanted.url)
    api = TrackingApi(url, tracking_session(url, environ))
    version = find(api, wanted.name, number=wanted.number, alias=wanted.alias)
    report.found(version)
    return api, version


def _listed(wanted: Wanted, api: TrackingApi, version: ModelVersion, environ: Mapping[str, str]) -> tuple[Source, list[RemoteFile], str]:
    """The source, the model's files in it, checked, and why it is not the store."""
    source, files, because = _choose(wanted, api, version.location, environ)
    if not files:
        raise MlwfError(
            _("The model {name}, version {number}, has no files").format(name=version.name, number=version.number),
            cure=_("Log the model again, and register that."),
        )
    check_tree(file.path for file in files)
    return source, files, because


def _choose(wanted: Wanted, api: TrackingApi, location: Location, environ: Mapping[str, str]) -> tuple[Source, list[RemoteFile], str]:
    """The source to read from, its list of files, and why it is not the store."""
    told, because = _told(api), ""
    through_server = _place_in_server(location, told)
    if wanted.through != "server":
        try:
            store = _store(told, location, environ)
            files = store.files()
            if files or wanted.through == "store" or through_server is None:
                return store, files, ""
            because = _("the object store has nothing of the model")  # another store, perhaps
        except StoreError as error:
            if wanted.through == "store" or through_server is None:
                raise
            because = ": ".join(part for part in (error.what, error.why) if part)
    if through_server is None:
        raise MlwfError(
            _("This server's artifacts are not read through it"),
            _("they lie in {place}").format(place=f"s3://{location.bucket}/{location.path}"),
            _("Leave out --through server, and set AWS credentials that can read there."),
        )
    server = ServerSource(api, through_server)
    return server, server.files(), because


def _told(api: TrackingApi) -> Mapping[str, object]:
    """What a server of ours tells its users of its object store; of another, nothing."""
    try:
        return api.get_json("-/info")
    except RegistryError as error:
        if error.code not in {"NOT_MLFLOW", "ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"}:
            raise
    return {}


def _place_in_server(location: Location, told: Mapping[str, object]) -> str | None:
    """Where the server's own route has it: also where clients go to the object store themselves, below the server's own prefix."""
    if location.kind == "proxied":
        return location.path
    above = f"{told.get('prefix')}/" if told.get("prefix") else ""
    inside = bool(told.get("bucket")) and told.get("bucket") == location.bucket and location.path.startswith(above)
    return location.path.removeprefix(above) if inside else None


def _store(told: Mapping[str, object], location: Location, environ: Mapping[str, str]) -> StoreSource:
    """The object store behind the server, which a server of ours names to its users. Raises StoreError."""
    bucket, key = location.bucket, location.path
    if location.kind == "proxied":
        bucket = str(told.get("bucket") or "")
        key = f"{told.get('prefix')}/{location.path}" if told.get("prefix") else location.path
        if not bucket:
            raise StoreError(_("The tracking server does not report where its artifacts are stored"), cure=_("Use --through server."))
    region = told.get("region")
    return StoreSource(
        endpoint_url=endpoint_of(environ, told), region=str(region) if region else None, bucket=bucket, prefix=key, environ=environ
    )


def _fetch_and_pack(source: Source, files: Sequence[RemoteFile], folder: Path, mtime: int, arrived: Callable[[int], None]) -> card.Package:
    artifacts = folder / "artifacts"
    names = _make_folders(artifacts, files)
    ordered = {file.path: file for file in files}
    unpacked = 0
    with (
        _new_file(folder / "model.tar.gz") as descriptor,
        Download(source, [ordered[name] for name, is_folder in names if not is_folder], artifacts, arrived) as download,
        os.fdopen(os.dup(descriptor), "wb", buffering=0) as raw,
        ParallelGzip(raw) as packed,
    ):
        tar = TarWriter(packed, mtime=mtime)
        for name, is_folder in names:
            if is_folder:
                tar.add_directory(name)
            else:
                size = download.size(name)
                tar.add_file(name, size, download.chunks(name))
                unpacked += size
        tar.close()
    return card.Package(packed.size, packed.sha256, len(files), unpacked)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, FILE_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    with _new_file(path) as descriptor, os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
        file.write(text)


def _tell(report: Reporter, source: Source, files: Sequence[RemoteFile]) -> None:
    """How much comes, where the source knows it of each file, and from where."""
    sizes = [file.size for file in files if file.size is not None]
    report.begins(len(files), sum(sizes) if len(sizes) == len(files) else None, source.name)


def _make_folders(top: Path, files: Sequence[RemoteFile]) -> list[tuple[str, bool]]:
    """Makes `top`, and in it the folders of all files; answers what will be below it, as `with_directories` does."""
    names = list(with_directories([file.path for file in files]))
    for folder in (top, *(top / name for name, is_folder in names if is_folder)):
        folder.mkdir(0o700)
        folder.chmod(DIRECTORY_MODE)  # whatever the umask and the folder above say
    return names


def _mlmodel(artifacts: Path) -> bytes:
    try:
        with (artifacts / "MLmodel").open("rb") as file:
            return file.read(card.MAX_MLMODEL + 1)
    except (FileNotFoundError, IsADirectoryError):
        return b""


def _seconds(version: ModelVersion) -> int:
    try:
        seconds = int(version.version.get("creation_timestamp") or 0) // 1000
    except (TypeError, ValueError):
        return 0
    return min(max(seconds, 0), 0o77777777777)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Says what the operating system's errors mean for the user. Everything that reads the network has errors of its own."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise MlwfError(
            _("The export cannot be written to {folder}").format(folder=folder),
            error.strerror or str(error),
            _("Free some space, or choose another place with --output-dir.") if full else _("Check the folder and its file system."),
        ) from error
