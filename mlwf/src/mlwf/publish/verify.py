"""Is a published package what its form says? Looked at from outside: no tracking server, and for web addresses no credentials."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urljoin

from mlwf.address import split_url, without_keys
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.looks import look
from mlwf.publish.form_check import Problem, problems
from mlwf.publish.form_file import MAX_BYTES, FormFile
from mlwf.publish.package import FORM, TARBALL, Content, Readable, check_digest, parse_form, read_tarball
from mlwf.publish.place import parse_place, s3_client, store_errors
from mlwf.publish.run import Reporter
from mlwf.transfer.http import RefusedError, Request, TransientError, byte_count, network_errors, opened, retried
from mlwf.transfer.session import environment_trust, plain_session


@dataclass(frozen=True)
class Verified:
    """What was found. `problems`: of the form, which does not make the package unusable."""

    form: FormFile
    content: Content
    problems: list[Problem]


class Reader:
    """The package's files at one place. Subclasses: a folder, a web address, a bucket."""

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[Readable, int]]:
        """The file and its size (0 where unknown). Raises MlwfError."""
        raise NotImplementedError


def verify(
    target: str,
    environ: Mapping[str, str],
    report: Reporter,
    *,
    endpoint_url: str | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Verified:
    """`target`: a folder, or the URL of the package's folder, tarball or form. Raises MlwfError when the package cannot be trusted."""
    reader = _reader(target, environ, endpoint_url, wait)
    with reader.open(FORM) as (file, _size):
        form = parse_form(_limited(file))
    with reader.open(TARBALL) as (file, size):
        report.begins(_("Reading {name}").format(name=TARBALL), size)
        content = read_tarball(file, report.moved)
    check_digest(form, content.sha256)
    return Verified(form, content, problems(form))


def _limited(file: Readable) -> bytes:
    content = b""
    while len(content) <= MAX_BYTES and (chunk := file.read(MAX_BYTES + 1 - len(content))):
        content += chunk
    return content


def _reader(target: str, environ: Mapping[str, str], endpoint_url: str | None, wait: Callable[[float], object]) -> Reader:
    scheme = split_url(target).scheme
    if scheme in {"http", "https", "s3"}:
        if "?" in target or "#" in target:
            raise WrongUseError(
                _("The address {url} has a query or a fragment").format(url=without_keys(target)),
                cure=_("Give the folder's address without it; what needs a key is read from s3://BUCKET/PREFIX/."),
            )
        for name in (TARBALL, FORM):
            target = target.removesuffix(name)
        folder = f"{target.rstrip('/')}/"
        return _Bucket(folder, environ, endpoint_url) if scheme == "s3" else _Web(folder, environ, wait)
    is_folder, why = look(Path(target).is_dir)
    if is_folder:
        return _Folder(Path(target))
    raise WrongUseError(
        _("{target} is neither a folder nor a URL").format(target=target),
        why,
        _("Give the folder of a package, or an https:// or s3:// URL."),
    )


class _Folder(Reader):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[Readable, int]]:
        try:
            file: BinaryIO = (self._folder / name).open("rb")
        except OSError as error:
            raise _absent(str(self._folder), name, error.strerror or "") from error
        with file:
            yield file, (self._folder / name).stat().st_size


class _Web(Reader):
    def __init__(self, folder: str, environ: Mapping[str, str], wait: Callable[[float], object]) -> None:
        self._folder = folder
        self._wait = wait
        self._session = plain_session(folder, environ, environment_trust(environ))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[Readable, int]]:
        request, shown = Request(self._folder + name, {}), without_keys(self._folder)
        try:
            with contextlib.ExitStack() as stack:
                response = retried(lambda: stack.enter_context(opened(self._session, request)), self._wait, attempts=3)
                length = response.headers.get("Content-Length", "")  # "5, 5" where it was sent twice
                yield _Body(response.raw), byte_count(length) or 0
        except RefusedError as error:
            leads = 300 <= error.status < 400 and error.location
            raise (_elsewhere(request.url, error) if leads else _absent(shown, name, str(error))) from error
        except TransientError as error:
            what = _("{source} could not be read").format(source=shown + name)
            raise MlwfError(what, str(error), _("Try again in a moment.") if error.reached else _check_address()) from error


class _Body:
    """A response's bytes; a connection that breaks off is an error, not the end."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw

    def read(self, size: int) -> bytes:
        with network_errors():
            return self._raw.read(size)


class _Bucket(Reader):
    def __init__(self, folder: str, environ: Mapping[str, str], endpoint_url: str | None) -> None:
        self._place = parse_place(folder, environ, endpoint_url)
        self._client = s3_client(self._place, environ)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[Readable, int]]:
        with store_errors(_("{url} cannot be read").format(url=self._place.s3_url(name))):
            found = self._client.get_object(Bucket=self._place.bucket, Key=self._place.key(name))
            yield cast("Readable", found["Body"]), found["ContentLength"]


def _elsewhere(url: str, error: RefusedError) -> MlwfError:
    """The address is another one's: https in place of http, say, or a login page's."""
    try:
        to = without_keys(urljoin(url, error.location))
    except ValueError:
        to = ""
    cure = _("Give the address to which it leads: {url}.").format(url=to) if to.isprintable() and to else _check_address()
    return MlwfError(_("{url} leads elsewhere, as a login page does").format(url=without_keys(url)), cure=cure)


def _absent(where: str, name: str, why: str) -> MlwfError:
    return MlwfError(
        _("There is no readable {name} at {where}").format(name=name, where=where),
        why,
        _check_address(),
    )


def _check_address() -> str:
    """The cure where nobody, or nothing, is at an address."""
    return _("Check the address, and that it was published.")
