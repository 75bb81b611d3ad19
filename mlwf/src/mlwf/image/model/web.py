"""A model package from the web: redirects followed with care, parts asked for where the server gives them."""

import contextlib
import ipaddress
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin

import requests

from mlwf.address import split_url, without_keys
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.transfer.http import NO_SUCH_RANGE, RefusedError, Request, TransientError, body, byte_count, opened, retried
from mlwf.transfer.session import plain_session
from mlwf.transfer.source import RemoteFile

MAX_HOPS = 6


class WebSource:
    """One file at an https address. `checked`: its SHA-256 is known, so that plain http will do."""

    name = "web"
    workers = 4

    def __init__(self, url: str, environ: Mapping[str, str], *, checked: bool) -> None:
        self._url = url
        self._environ = environ
        self._checked = checked
        self._check(url)
        self._session: requests.Session = plain_session(url, environ)
        self.ranges = False

    def look(self) -> RemoteFile:
        """Finds where the file is, how large, and whether parts can be asked for. Raises MlwfError."""
        try:
            return self._look()
        except (TransientError, RefusedError) as error:
            status = error.status if isinstance(error, RefusedError) else 0
            why = {
                401: _("it asks for a login, and this command has none"),
                403: _("it may not be read without a login"),
                404: _("there is no such file"),
                NO_SUCH_RANGE: _("the file is empty"),
            }.get(status, str(error))
            raise MlwfError(
                _("{source} could not be read").format(source=without_keys(self._url)), why, _("Check the address, or download it by hand.")
            ) from error

    def _look(self) -> RemoteFile:
        for _hop in range(MAX_HOPS):
            try:
                return retried(self._first, time.sleep, attempts=4)
            except RefusedError as error:
                if not (300 <= error.status < 400 and error.location):
                    raise
                self._url = _next(self._url, error.location)
                self._check(self._url)
                self._session = plain_session(self._url, self._environ)
        raise RefusedError(_("it keeps leading on to another address"))

    def _first(self) -> RemoteFile:
        with opened(self._session, Request(self._url, {"Range": "bytes=0-0"})) as response:
            tag = response.headers.get("ETag", "")
            strong = tag if not tag.startswith("W/") else ""
            total = byte_count(response.headers.get("Content-Range", "").rpartition("/")[2])
            # Without a mark of its content, parts of two different files could be put together.
            self.ranges = response.status_code == 206 and total is not None and bool(strong)
            length = byte_count(response.headers.get("Content-Length", "")) if response.status_code == 200 else None
            return RemoteFile("model.tar.gz", length if total is None else total, strong)

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int, length: int | None) -> Iterator[Iterator[bytes]]:
        headers = {}
        if length is not None:
            headers = {"Range": f"bytes={offset}-{offset + length - 1}", "If-Match": file.etag}
        with opened(self._session, Request(self._url, headers)) as response:
            if (length is not None) != (response.status_code == 206):
                raise RefusedError(_("it answers with a different part from the one asked for"))
            if file.etag and response.headers.get("ETag", file.etag) != file.etag:
                raise RefusedError(_("{path} changed while it was read").format(path=file.path))
            yield body(response)

    def files(self) -> list[RemoteFile]:
        return [self.look()]

    def _check(self, url: str) -> None:
        """Raises WrongUseError for an address that is not to be used."""
        parts = split_url(url)
        if parts.username or parts.password:
            raise WrongUseError(
                _("The address of the model package holds a user name or password, which others could read"),
                cure=_("Download it by hand, or use s3:// with your keys."),
            )
        if not parts.hostname or parts.scheme not in {"https", "http"}:
            raise WrongUseError(_("{source} is not a web address").format(source=without_keys(url)), cure=_("Write https://HOST/PATH."))
        if parts.scheme == "http" and not self._checked and not _is_loopback(parts.hostname):
            raise WrongUseError(
                _("{source} could be changed on its way (plain http)").format(source=without_keys(url)),
                cure=_("Use https, or give the archive's SHA-256 with --model-pkg-sha256."),
            )


def _next(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # refused like any other that is no web address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
