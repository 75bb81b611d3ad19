"""One publication: check, upload, prove; a second run of the same changes nothing."""

import contextlib
import datetime as dt
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mlwf.errors import MlwfError, WrongUseError
from mlwf.file_server import rename
from mlwf.i18n import _
from mlwf.publish import access as reading
from mlwf.publish import upload as up
from mlwf.publish.access import Access
from mlwf.publish.application import application
from mlwf.publish.form_file import MAX_BYTES
from mlwf.publish.model_card import is_ours, model_card
from mlwf.publish.package import CARD, FORM, TARBALL, Package, open_package, text_of
from mlwf.publish.place import Place, s3_client

MEDIA_TYPES = {TARBALL: "application/gzip", FORM: "application/yaml", CARD: "text/markdown; charset=utf-8"}


@dataclass(frozen=True)
class Wanted:
    """What the user asked for. `access` None: as the bucket has it. `replace`: another package may lie there."""

    folder: Path
    place: Place
    profile: str | None = None
    access: Access | None = None
    by_policy: bool = False
    replace: bool = False


@dataclass
class Published:
    """What came of it. `uploaded` and `unchanged`: names of the package's files; `public`: anyone can read them."""

    urls: list[str]
    public: bool
    text: str
    uploaded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


class Reporter(Protocol):
    """Told how it goes, partly from other threads."""

    def begins(self, what: str, size: int) -> None: ...

    def moved(self, count: int) -> None: ...


def publish(wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> Published:
    """Raises InvalidFormError for a form that is not complete, WrongUseError, StoreRefusedError, MlwfError."""
    if wanted.by_policy:
        _check_bounds(wanted.place)
    with _disk_errors(wanted.folder):
        return _published(wanted, environ, report)


def _published(wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> Published:
    tarball = wanted.folder / TARBALL
    report.begins(_("Checking {name}").format(name=TARBALL), tarball.stat().st_size if tarball.exists() else 0)
    package = open_package(wanted.folder, report.moved)
    publication = _Publication(wanted, environ, report)
    _check_folder(wanted.folder)
    for name in (FORM, CARD):
        publication.check(name)
    publication.bring(TARBALL, up.Local(package.tarball, package.size, package.sha256, MEDIA_TYPES[TARBALL]))
    result = publication.result
    result.public = publication.open_up(TARBALL)
    result.urls = [wanted.place.web_url(TARBALL) if result.public else wanted.place.s3_url(TARBALL)]
    _fill(package, result.urls)
    _write_card(package)
    for name in (FORM, CARD):
        publication.bring(name, _local(wanted.folder / name), checked=True)
        publication.open_up(name)
    result.text = application(package.form.info, result.urls)
    return result


def withdraw_parts(wanted: Wanted, environ: Mapping[str, str]) -> int:
    """Remove what interrupted uploads left in the bucket. Answers how many there were."""
    store = up.Store(s3_client(wanted.place, environ, wanted.profile), wanted.place)
    return up.abort_unfinished(store, TARBALL)


class _Publication:
    """One package on its way to one place."""

    def __init__(self, wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> None:
        self._wanted = wanted
        self._environ = environ
        self._report = report
        self._store = up.Store(s3_client(wanted.place, environ, wanted.profile), wanted.place)
        self.result = Published([], public=False, text="")

    def check(self, name: str) -> None:
        """Raises MlwfError where something else lies that was not published from here: a human may have written it there."""
        there, local = up.published(self._store, name), self._wanted.folder / name
        if self._wanted.replace or there is None or there[1] or (local.exists() and up.is_published(self._store, name, _local(local))):
            return
        raise MlwfError(
            _("There is already another file at {url}").format(url=self._wanted.place.s3_url(name)),
            _("it was not put there by mlwf publish"),
            _("Publish under another prefix, such as one that ends with the version, or add --replace."),
        )

    def bring(self, name: str, local: up.Local, *, checked: bool = False) -> None:
        """Upload unless just this lies there. What was `checked` may be replaced, as an earlier publication's form and card."""
        if up.is_published(self._store, name, local):
            self.result.unchanged.append(name)
            return
        new = not checked and not self._wanted.replace
        if new and up.published(self._store, name) is not None:
            raise MlwfError(
                _("There is already another package at {url}").format(url=self._wanted.place.s3_url(name)),
                cure=_("Publish under another prefix, such as one that ends with the version, or add --replace."),
            )
        self._report.begins(_("Uploading {name}").format(name=name), local.size)
        up.Upload(self._store, name, local, self._report.moved, new=new).run()
        self.result.uploaded.append(name)

    def open_up(self, name: str) -> bool:
        """Set and prove who may read it; answers whether that is everybody."""
        wanted, url = self._wanted, self._wanted.place.web_url(name)
        if wanted.access is None and not wanted.by_policy:
            return reading.anyone_can_read(url, self._environ, wanted.profile)
        if wanted.by_policy:
            reading.open_by_policy(self._store, name, self._environ, wanted.profile)
        elif wanted.access is not None:
            reading.set_acl(self._store, name, wanted.access)
            reading.prove(url, wanted.access, self._environ, wanted.profile, by_policy=False)
        return wanted.by_policy or wanted.access == "public-read"


def _fill(package: Package, urls: list[str]) -> None:
    """ContentURL and the dates; the file is replaced only where that changed something."""
    form, now = package.form, dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    changed = form.put(("Distribution", "ContentURL"), urls)
    for key in ("DatePublished", "DateModified", "DateCreated"):
        if not form.info.get(key):
            changed = form.put((key,), now) or changed
    if changed:
        _replace(package.folder / FORM, form.text)


def _write_card(package: Package) -> None:
    """The card beside the form; one that a human wrote or edited stays."""
    path, text = package.folder / CARD, model_card(package.form.info)
    there = _card(package.folder)
    if there is None or (there != text and is_ours(there)):
        _replace(path, text)


def _card(folder: Path) -> str | None:
    """The card that is there. Raises MlwfError where it is no text."""
    if not (folder / CARD).exists():
        return None
    with (folder / CARD).open("rb") as file:
        return text_of(CARD, file.read(MAX_BYTES + 1))


def _check_folder(folder: Path) -> None:
    """Raises MlwfError where the form or the card could not be written later: before anything is uploaded."""
    try:
        _card(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MlwfError(
            _("{folder} cannot be published from").format(folder=folder),
            error.strerror or str(error),
            _("Copy the package to a folder of yours: info.yaml and README.md are written in it."),
        ) from error


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Says what the operating system's errors mean for the user. Everything that reads the network has errors of its own."""
    try:
        yield
    except OSError as error:
        cure = _("Check the folder and its file system.")
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            cure = _("Free some space there, and run it again: nothing is uploaded twice.")
        raise MlwfError(_("{folder} cannot be published from").format(folder=folder), error.strerror or str(error), cure) from error


def _check_bounds(place: Place) -> None:
    """Raises WrongUseError where a policy for the prefix would open more than the package."""
    if not place.prefix:
        raise WrongUseError(
            _("--by-policy would make the whole bucket {bucket} public").format(bucket=place.bucket),
            cure=_("Give a prefix of its own: s3://BUCKET/PREFIX/."),
        )
    if set("*?$") & set(place.prefix):
        raise WrongUseError(
            _("In a bucket's policy, the prefix {prefix} means others too").format(prefix=place.prefix),
            cure=_("Give a prefix without '*', '?' and '$'."),
        )


def _replace(path: Path, text: str) -> None:
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o640)
        rename(Path(part), path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _local(path: Path) -> up.Local:
    content = path.read_bytes()
    return up.Local(path, len(content), hashlib.sha256(content).hexdigest(), MEDIA_TYPES[path.name])
