"""An exported package on this disk, or one that somebody published: its form, its tarball, and whether they belong together."""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from isal import igzip

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.publish.form_check import Problem, problems
from mlwf.publish.form_file import MAX_BYTES, FormFile
from mlwf.transfer.paths import check_path
from mlwf.transfer.tar_stream import DAMAGE, TarStream, entries, exactly, is_file

TARBALL, FORM, CARD = "model.tar.gz", "info.yaml", "README.md"
CHUNK = 1 << 20
RECORDED = re.compile(r"^\|\s*SHA-256 of model\.tar\.gz\s*\|\s*([0-9a-f]{64})\s*\|", re.MULTILINE)


class InvalidFormError(MlwfError):
    """The form cannot be published; `problems` says why, line by line."""

    def __init__(self, found: list[Problem]) -> None:
        super().__init__(
            _("info.yaml cannot be published as it is ({count} to correct)").format(count=len(found)),
            cure=_("Correct these lines, and run it again."),
        )
        self.problems = found


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Package:
    """A folder of `mlwf_export_model`, fit to be published. `sha256`: of the tarball, found to be the recorded one."""

    folder: Path
    form: FormFile
    size: int
    sha256: str

    @property
    def tarball(self) -> Path:
        return self.folder / TARBALL


def open_package(folder: Path, on_bytes: Callable[[int], None] = lambda _count: None) -> Package:
    """Read the form and the tarball. Raises InvalidFormError, or MlwfError for a tarball that is not the exported one."""
    try:
        with (folder / FORM).open("rb") as file:
            form = parse_form(file.read(MAX_BYTES + 1))
        with (folder / TARBALL).open("rb") as file:
            size, digest = _digest(file, on_bytes)
    except OSError as error:
        raise MlwfError(
            _("{folder} is not a package").format(folder=folder),
            f"{Path(error.filename or folder).name}: {error.strerror}",
            _("Name a folder that mlwf_export_model made."),
        ) from error
    check_form(form)
    check_digest(form, digest)
    return Package(folder, form, size, digest)


def parse_form(content: bytes) -> FormFile:
    """The form. Raises MlwfError for what is none."""
    return FormFile(text_of(FORM, content))


def text_of(name: str, content: bytes) -> str:
    """The text of a file of which MAX_BYTES + 1 bytes were read. Raises MlwfError for what is too long, or no text."""
    if len(content) > MAX_BYTES:
        raise MlwfError(_("{name} is larger than a megabyte").format(name=name), cure=_("Put long texts into files of their own."))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MlwfError(_("{name} is not UTF-8 text").format(name=name), cure=_("Save it as UTF-8.")) from error


def check_form(form: FormFile) -> None:
    found = problems(form)
    if found:
        raise InvalidFormError(found)


def recorded_digest(form: FormFile) -> str | None:
    """The tarball's SHA-256 as the export wrote it into AdditionalInfo."""
    text = form.info.get("AdditionalInfo")
    # Never as a text what is none: a few lines of YAML can be gigabytes, written out.
    found = RECORDED.search(text) if isinstance(text, str) else None
    return found[1] if found else None


def check_digest(form: FormFile, digest: str) -> None:
    """Raises MlwfError unless the tarball is the one that the form describes."""
    recorded = recorded_digest(form)
    if recorded is None:
        raise MlwfError(
            _("AdditionalInfo of info.yaml does not say the SHA-256 of model.tar.gz any more"),
            cure=_("Put this line back into its table: {line}").format(line=f"| SHA-256 of model.tar.gz | {digest} |"),
        )
    if recorded != digest:
        raise MlwfError(
            _("model.tar.gz was changed after the export"),
            _("its SHA-256 is {found}, info.yaml says {recorded}").format(found=digest, recorded=recorded),
            _("Export the model again."),
        )


def _digest(file: BinaryIO, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        on_bytes(len(chunk))
    return size, digest.hexdigest()


class _Hashed(io.RawIOBase):
    """Passes bytes on and remembers their digest and number."""

    def __init__(self, source: Readable, on_bytes: Callable[[int], None]) -> None:
        super().__init__()
        self._source = source
        self._on_bytes = on_bytes
        self.digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self.digest.update(data)
        self.size += len(data)
        self._on_bytes(len(data))
        return len(data)


@dataclass(frozen=True)
class Content:
    """What a tarball was found to hold."""

    size: int
    sha256: str
    files: int
    unpacked: int


def read_tarball(source: Readable, on_bytes: Callable[[int], None] = lambda _count: None) -> Content:
    """Read a tarball to its end and unpack nothing. Raises MlwfError when it is broken, or no model package."""
    hashed = _Hashed(source, on_bytes)
    files, unpacked = set(), 0
    try:
        stream = TarStream(igzip.IGzipFile(fileobj=hashed, mode="rb"))  # type: ignore[no-untyped-call]
        for entry in entries(stream):
            if not (entry.isdir() or is_file(entry)):
                raise _bad(_("{name} is neither a file nor a folder").format(name=entry.name))
            name = entry.name if entry.name in {".", ""} else check_path(entry.name.removeprefix("./").rstrip("/"))
            if not entry.isdir():
                files.add(name)
                unpacked += sum(map(len, exactly(stream.content, entry.size)))
        while hashed.read(CHUNK):
            pass
    except DAMAGE as error:
        raise _bad(str(error) or type(error).__name__) from error
    if "MLmodel" not in files:
        raise _bad(_("there is no MLmodel in it"))
    return Content(hashed.size, hashed.digest.hexdigest(), len(files), unpacked)


def _bad(why: str) -> MlwfError:
    return MlwfError(_("model.tar.gz is not a model package"), why, _("Export the model again."))
