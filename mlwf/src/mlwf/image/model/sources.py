"""Where a model package comes from: a file, a folder, the object store, the web, or a tracking server's registry."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlwf.address import split_url, without_keys
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.image.model.progress import Progress
from mlwf.image.model.unpack import BadPackageError, copy_folder, unpack
from mlwf.looks import look
from mlwf.transfer.workspace import check_space, visible

if TYPE_CHECKING:
    # What speaks over a network is imported where it is used: a package on the disk and a cached image shall not wait for it.
    from mlwf.transfer.source import RemoteFile, Source
    from mlwf.transfer.store import StoreSource

CHECKSUM = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
REMOTE = frozenset({"s3", "https", "http", "models"})
# What a Mac puts beside a folder that it packs.
OF_A_MAC = re.compile(r"\._.*|\.DS_Store|__MACOSX")
FORMS = "s3://BUCKET/PATH/model.tar.gz, https://…/model.tar.gz, PATH/model.tar.gz, MLWFExportModel_…/, models:/NAME/VERSION, …@ALIAS"


def fetch_files(source: str, into: Path, *, environ: Mapping[str, str], progress: Progress, checksum: str | None = None) -> None:
    """Puts the files of the package into the new folder `into`. `checksum`: SHA-256 of the archive, in hex.

    Nothing is left on a failure. Raises WrongUseError for what is no source, MlwfError for one that cannot be used.
    """
    wanted = _checksum(checksum)
    try:
        _fetch(source, into, environ, progress, wanted)
        _lift(into)
    except OSError as error:
        _forget(into)
        raise MlwfError(
            _("The model package {source} cannot be unpacked").format(source=_shown(source)),
            error.strerror or str(error),
            _("Check the path, and the space and permissions of {folder}.").format(folder=visible(into)),
        ) from error
    except BaseException:
        _forget(into)
        raise


def check_source(source: str, checksum: str | None = None) -> None:
    """Refuses what is no package's address, and a file that is not there, before anything is fetched. Raises WrongUseError."""
    _checksum(checksum)
    scheme = _scheme(source)
    if scheme in {"", "file"}:
        _existing(source)
    elif scheme not in REMOTE:
        raise _no_package(source)
    elif scheme == "models":
        _no_checksum(checksum)


def is_remote(source: str) -> bool:
    """Whether it must be fetched over a network."""
    return _scheme(source) in REMOTE


def fetch_archive(source: str, archive: Path, *, environ: Mapping[str, str], progress: Progress, checked: bool = False) -> None:
    """Puts a remote package into the new file `archive`, as it is; of a registered model a tar of its files.

    `checked`: who will unpack it knows its SHA-256. Raises WrongUseError for what is no source, MlwfError for one that cannot be used.
    """
    if _scheme(source) == "models":
        from mlwf.image.model.registry import pack_registered

        pack_registered(source, archive, environ, progress)
        return
    from mlwf.image.model.download import coming, download_into

    remote, file = _remote(source, environ, checked=checked)
    check_space(archive.parent, file.size or 0, _("Free some with 'mlwf cache prune', or choose another place with MLWF_CACHE."))
    progress.begins(file.size)
    with download_into(archive, remote, file, progress.arrived) as download:
        for _chunk in coming(download, archive.name, _shown(source)):
            pass


def _scheme(source: str) -> str:
    """Empty for a path, which may have a colon, too: of what is there."""
    named = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source) and not os.path.lexists(source)
    return source.partition(":")[0].lower() if named else ""


def _no_package(source: str) -> WrongUseError:
    return WrongUseError(_("{source} is not a model package").format(source=repr(source)), cure=_forms())


def _existing(source: str) -> Path:
    path = Path(source.removeprefix("file://"))
    there, why = look(lambda: path.is_dir() or path.is_file())
    if not there:
        raise WrongUseError(_("There is no model package {source}").format(source=path), why, _forms())
    return path


def _fetch(source: str, into: Path, environ: Mapping[str, str], progress: Progress, checksum: str) -> None:
    scheme = _scheme(source)
    if scheme == "models":
        from mlwf.image.model.registry import fetch_registered

        _no_checksum(checksum)
        fetch_registered(source, into, environ, progress)
    elif scheme in REMOTE:
        remote, file = _remote(source, environ, checked=bool(checksum))
        _stream(remote, file, into, progress, checksum=checksum, shown=_shown(source))
    elif scheme in {"", "file"}:
        _local(_existing(source), into, progress, checksum)
    else:
        raise _no_package(source)


def _local(path: Path, into: Path, progress: Progress, checksum: str) -> None:
    if path.is_dir():
        _no_checksum(checksum)
        folder = path if (path / "MLmodel").is_file() else path / "artifacts"
        if not (folder / "MLmodel").is_file():
            raise MlwfError(_("{folder} holds no model: there is no MLmodel in it").format(folder=path), cure=_forms())
        if into.resolve().is_relative_to(folder.resolve()):
            raise WrongUseError(
                _("The image would be made in the model's own folder {folder}").format(folder=folder),
                _("it would become a part of the model"),
                _("Name another one with --output-dir."),
            )
        progress.begins(None)
        copy_folder(folder, into, on_bytes=progress.arrived)
    else:
        progress.begins(path.stat().st_size)
        with path.open("rb", buffering=0) as file:
            _unpack_checked(lambda: iter(lambda: file.read(1 << 20), b""), into, checksum, progress.arrived)


def _remote(source: str, environ: Mapping[str, str], *, checked: bool) -> tuple[Source, RemoteFile]:
    """The archive that an s3:// or web address names."""
    if _scheme(source) == "s3":
        return _stored(source, environ)
    from mlwf.image.model.web import WebSource

    web = WebSource(source, environ, checked=checked)
    return web, web.look()


def _stored(source: str, environ: Mapping[str, str]) -> tuple[StoreSource, RemoteFile]:
    """The object that an s3:// address names."""
    from mlwf.transfer.store import StoreSource, endpoint_of

    parts = split_url(source)
    key = parts.path.lstrip("/")
    if not parts.netloc or not key or key.endswith("/") or "@" in parts.netloc or parts.query or parts.fragment:
        raise WrongUseError(_("{source} is not the address of an object").format(source=_shown(source)), cure=_forms())
    folder, _slash, name = key.rpartition("/")
    store = StoreSource(endpoint_url=endpoint_of(environ, {}), region=None, bucket=parts.netloc, prefix=folder, environ=environ)
    return store, store.look(name)


def _stream(source: Source, file: RemoteFile, into: Path, progress: Progress, *, checksum: str, shown: str) -> None:
    """Downloads in several parts at once, and unpacks what has come while the rest is coming."""
    from mlwf.image.model.download import coming, download_into

    folder = into.parent / f".{into.name}.{secrets.token_hex(4)}.partial"
    folder.mkdir(0o700)
    archive = folder / "model.tar.gz"
    try:
        check_space(into.parent, file.size or 0, _("Free some, or choose another place with --output-dir."))
        progress.begins(file.size)
        with download_into(archive, source, file, progress.arrived) as download:
            _unpack_checked(lambda: coming(download, archive.name, shown), into, checksum)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack_checked(
    chunks: Callable[[], Iterator[bytes]], into: Path, checksum: str, on_bytes: Callable[[int], object] = lambda _count: None
) -> None:
    reader = _Reader(chunks(), on_bytes)
    unpack(reader, into)  # type: ignore[arg-type]  # a raw stream that is only read
    if checksum and reader.sha256 != checksum:
        raise BadPackageError(_("its SHA-256 is {found}, not {wanted}").format(found=reader.sha256, wanted=checksum))


class _Reader(io.RawIOBase):
    """Chunks as a stream, summed up on their way."""

    def __init__(self, chunks: Iterator[bytes], on_bytes: Callable[[int], object]) -> None:
        super().__init__()
        self._chunks = chunks
        self._on_bytes = on_bytes
        self._rest = memoryview(b"")
        self._sum = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            chunk = next(self._chunks, b"")
            self._sum.update(chunk)
            self._on_bytes(len(chunk))
            self._rest = memoryview(chunk)
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


def _lift(into: Path) -> None:
    """Where all is in one folder, as some people pack, that folder is the package."""
    if (into / "MLmodel").exists():
        return
    entries = [each for each in into.iterdir() if not OF_A_MAC.fullmatch(each.name)]
    if len(entries) == 1 and (entries[0] / "MLmodel").is_file():
        aside = into.with_name(f".{into.name}.{secrets.token_hex(4)}.lifted")
        entries[0].rename(aside)
        shutil.rmtree(into)
        aside.rename(into)
        return
    raise BadPackageError(_("there is no MLmodel in it"))


def _checksum(text: str | None) -> str:
    if not text:
        return ""
    found = CHECKSUM.fullmatch(text.strip())
    if not found:
        raise WrongUseError(_("The checksum is not a SHA-256"), cure=_("Give 64 hexadecimal digits, as sha256sum prints them."))
    return found[1].lower()


def _no_checksum(checksum: str | None) -> None:
    if checksum:
        raise WrongUseError(_("A checksum belongs to an archive, and this package is not one"), cure=_("Leave out the checksum."))


def _forms() -> str:
    return _("A model package is one of: {forms}.").format(forms=FORMS)


def _shown(source: str) -> str:
    """The source without a query (a signed address is a key) and without a password."""
    return without_keys(source) if "://" in source else source


def _forget(into: Path) -> None:
    for left in (into, *into.parent.glob(f".{into.name}.*.lifted")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
