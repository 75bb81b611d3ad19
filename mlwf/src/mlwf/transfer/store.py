"""Files straight from the S3 object store, with the caller's own AWS credentials.

The requests are signed here and sent by requests: a boto3 client costs a second to make ready and a millisecond for each small file,
and we only list and read.
"""

import contextlib
import hashlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from mlwf.address import split_url
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.transfer.http import NO_SUCH_RANGE, RefusedError, Request, TransientError, body, byte_count, opened, retried, whole
from mlwf.transfer.paths import check_path
from mlwf.transfer.session import environment_trust, existing, plain_session
from mlwf.transfer.source import MAX_FILES, RemoteFile

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
MAX_LIST = 64 << 20
"""Bytes of one page of a list, which has a thousand objects: a tracking server may name any address as its store."""
EMPTY = hashlib.sha256(b"").hexdigest()
NO_XML = (ET.ParseError, ValueError, LookupError)
"""What expat raises, the last two for encodings: of many bytes (Shift_JIS), and unknown ones."""


class StoreError(MlwfError):
    """The object store cannot be used with the caller's credentials."""


class Signer:
    """Signs GET requests with the caller's credentials, as the AWS tools find them. Raises StoreError where there are none."""

    def __init__(self, region: str) -> None:
        with settings_errors():
            session = botocore.session.Session()
        credentials = credentials_of(session)
        if credentials is None:
            raise StoreError(
                _("There are no AWS credentials"),
                cure=_("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of ~/.aws/credentials."),
            )
        self._credentials = credentials
        self._region = region

    def headers(self, url: str, extra: Mapping[str, str]) -> dict[str, str]:
        request = AWSRequest(method="GET", url=url, headers={"X-Amz-Content-SHA256": EMPTY, **extra})
        with settings_errors():
            credentials = self._credentials.get_frozen_credentials()
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        return dict(request.headers.items())


def credentials_of(session: botocore.session.Session) -> Credentials | None:
    """The caller's credentials, got already, so that what cannot be got is said here; None where there are none. Raises StoreError."""
    with settings_errors():
        # Not asked: the cloud's metadata address, which on other networks only costs seconds.
        session.get_component("credential_provider").remove("iam-role")
        credentials = session.get_credentials()
        kept = credentials and credentials.get_frozen_credentials()
    for name, value in zip(NAMES, kept or (), strict=False):
        if value and not (value.isascii() and value.isprintable()):
            raise StoreError(
                _("The AWS credentials cannot be used"),
                _("{name} contains a character that no key can contain").format(name=name),
                _("Set it again: such a character comes from a file with Windows line endings, or from copying."),
            )
    return credentials


@contextlib.contextmanager
def settings_errors() -> Iterator[None]:
    """Turns what botocore raises over the caller's AWS settings into StoreError."""
    what, words = (
        _("The AWS credentials cannot be used"),
        _("Correct or unset the AWS settings that it names (AWS_PROFILE, AWS_ACCESS_KEY_ID …)."),
    )
    try:
        yield
    except (BotoCoreError, ClientError) as error:  # the latter where a role is asked for
        raise StoreError(what, str(error), words) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # It hands on what it meets: a program or a file that is not there, an answer that is no JSON, a text where a section belongs.
        cure = _("Correct the AWS settings: the variables AWS_… and ~/.aws/config, and what they run or read (credential_process …).")
        raise StoreError(what, str(error), cure) from error


class StoreSource:
    """One prefix of one bucket, by path-style addresses."""

    name = "store"
    ranges = True
    workers = 8

    def __init__(
        self,
        *,
        endpoint_url: str,
        region: str | None,
        bucket: str,
        prefix: str,
        environ: Mapping[str, str],
    ) -> None:
        if split_url(endpoint_url).scheme not in {"http", "https"}:
            raise StoreError(_("The object store's endpoint is not an http or https URL"), cure=_("Correct MLFLOW_S3_ENDPOINT_URL."))
        self._signer = Signer(region or region_of(environ, {}))
        self._session: requests.Session = store_session(endpoint_url, environ)
        self._bucket_url = f"{endpoint_url.rstrip('/')}/{quote(bucket, safe='')}"
        self._place = f"s3://{bucket}/{prefix}"
        self._prefix = f"{prefix}/" if prefix else ""

    def files(self) -> list[RemoteFile]:
        """Every object under the prefix, and proof that one of them can be read. Raises StoreError."""
        try:
            found = [entry for page in self._pages() for entry in page]
            if found:
                self._probe(min(found, key=lambda file: file.size or 0))
        except (TransientError, RefusedError) as error:
            raise self._error(error) from error
        return found

    def look(self, path: str) -> RemoteFile:
        """One object, without listing anything: a key that may only read objects is enough. Raises StoreError."""
        url = self._url(path)

        def ask() -> RemoteFile:
            with opened(self._session, Request(url, self._signer.headers(url, {"Range": "bytes=0-0"}))) as response:
                said = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
                size = byte_count(said)
                if size is None:
                    raise RefusedError(_("it does not say how large the object is"))
                return RemoteFile(path, size, response.headers.get("ETag", ""))

        try:
            return retried(ask, time.sleep, attempts=3)
        except (TransientError, RefusedError) as error:
            raise self._error(error) from error

    @contextlib.contextmanager
    def read(self, file: RemoteFile, offset: int, length: int | None) -> Iterator[Iterator[bytes]]:
        extra = {"If-Match": file.etag} if file.etag else {}
        if length is not None and length != file.size:
            extra["Range"] = f"bytes={offset}-{offset + length - 1}"
        url = self._url(file.path)
        with opened(self._session, Request(url, self._signer.headers(url, extra))) as response:
            if ("Range" in extra) != (response.status_code == 206) or (file.etag and response.headers.get("ETag", file.etag) != file.etag):
                raise RefusedError(_("{path} is not the object that was listed").format(path=file.path))
            yield body(response)

    def _url(self, path: str) -> str:
        return f"{self._bucket_url}/{quote(self._prefix + path, safe='/~')}"

    def _probe(self, file: RemoteFile) -> None:
        def read() -> None:
            with self.read(file, 0, min(file.size or 0, 1) or None) as chunks:
                for _chunk in chunks:
                    break

        retried(read, time.sleep, attempts=3)

    def _pages(self) -> Iterator[list[RemoteFile]]:
        token, count = "", 0
        while True:
            query = {"list-type": "2", "prefix": self._prefix} | ({"continuation-token": token} if token else {})
            url = f"{self._bucket_url}?{urlencode(sorted(query.items()), quote_via=quote)}"
            page = retried(lambda url=url: self._xml(url), time.sleep, attempts=3)  # type: ignore[misc]
            files = [file for entry in page.iterfind("{*}Contents") if (file := self._file(entry))]
            count += len(files)
            if count > MAX_FILES:
                raise StoreError(_("{place} has too many objects").format(place=self._place))
            yield files
            token = page.findtext("{*}NextContinuationToken") or ""
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return

    def _xml(self, url: str) -> ET.Element:
        with opened(self._session, Request(url, self._signer.headers(url, {}))) as response:
            text = whole(response, MAX_LIST)
        try:
            return ET.fromstring(text)  # noqa: S314  # expat bounds entity expansion; the store is the one that the caller has keys for
        except NO_XML as error:
            raise RefusedError(_("its list of objects is not XML")) from error

    def _file(self, entry: ET.Element) -> RemoteFile | None:
        path = (entry.findtext("{*}Key") or "").removeprefix(self._prefix)
        size = byte_count(entry.findtext("{*}Size") or "0")
        if size is None:
            raise RefusedError(_("it does not say how large the object is"))
        if not path or (path.endswith("/") and size == 0):
            return None  # a folder's mark, as some tools make it
        return RemoteFile(check_path(path), size, entry.findtext("{*}ETag") or "")

    def _error(self, error: Exception) -> StoreError:
        what, cure = (
            _("{place} cannot be read").format(place=self._place),
            _("Check AWS_ACCESS_KEY_ID or AWS_PROFILE, and MLFLOW_S3_ENDPOINT_URL."),
        )
        status = error.status if isinstance(error, RefusedError) else 0
        blamed = key_trouble(_code(error.body)) if isinstance(error, RefusedError) else None
        if blamed:
            return StoreError(what, *blamed)
        if status == 403:
            cure = _("Check AWS_ACCESS_KEY_ID or AWS_PROFILE, or ask the bucket's owner for s3:ListBucket and s3:GetObject there.")
            return StoreError(what, _("your key may not read it"), cure)
        if status == NO_SUCH_RANGE:
            return StoreError(what, _("the object is empty"), _("Check the address, and that it was uploaded whole."))
        return StoreError(what, _("there is no such bucket or object") if status == 404 else str(error), cure)


def store_session(url: str, environ: Mapping[str, str], profile: str | None = None) -> requests.Session:
    """A session without credentials for an address of the object store. Raises MlwfError when a setting cannot be used."""
    return plain_session(url, environ, store_trust(environ, profile))


def store_trust(environ: Mapping[str, str], profile: str | None = None) -> bool | str | None:
    """Who vouches for the store's certificate: nobody (False), a file of the environment or the profile, or who does for others (None).

    `profile`: instead of the one that the environment names. Raises MlwfError.
    """
    try:
        trust = environment_trust(environ)
        if trust is not None:
            return trust
        with settings_errors():
            path = botocore.session.Session(profile=profile).get_config_variable("ca_bundle")
        return existing(path, "ca_bundle") if path else None
    except WrongUseError:
        raise
    except MlwfError as error:
        raise StoreError(error.what, error.why, error.cure) from error


def key_trouble(code: str) -> tuple[str, str] | None:
    """Why, and the cure, of a refusal (the store's code) with which rights have nothing to do."""
    elsewhere = (
        _("the bucket is in another region"),
        _("Set AWS_REGION to it (where a tracking server tells the region, its owner must); the endpoint must be that region's, too."),
    )
    return {
        "InvalidAccessKeyId": (_("the store does not know your key"), _("Check AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN and the endpoint.")),
        "ExpiredToken": (_("your temporary key has expired"), _("Get a new one, with its AWS_SESSION_TOKEN.")),
        "InvalidToken": (_("the session token is not your key's"), _("Correct AWS_SESSION_TOKEN, or unset it.")),
        "SignatureDoesNotMatch": (_("the secret of your key is wrong"), _("Check AWS_SECRET_ACCESS_KEY.")),
        "RequestTimeTooSkewed": (_("this machine's clock is wrong"), _("Ask the admins to set it.")),
        **dict.fromkeys(("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"), elsewhere),
    }.get(code)


def _code(refusal: Any) -> str:
    """A store's own word for what it refused; empty for what is no document of a store."""
    try:
        return ET.fromstring(refusal or b"").findtext("{*}Code") or ""  # noqa: S314  # as for its lists
    except NO_XML:
        return ""


def endpoint_of(environ: Mapping[str, str], info: Mapping[str, Any], profile: str | None = None) -> str:
    """The store's address: what the caller's environment says, else what the tracking server says of its own, else the profile, else AWS.

    `profile`: instead of the one that the environment names. Raises StoreError.
    """
    if environ.get("MLFLOW_S3_ENDPOINT_URL"):
        return environ["MLFLOW_S3_ENDPOINT_URL"]
    with settings_errors():
        session = botocore.session.Session(profile=profile)
        heeded = not session.get_config_variable("ignore_configured_endpoint_urls")
        named = heeded and ConfiguredEndpointProvider({}, {}, "s3", environ).provide()
        configured = heeded and ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3", {}).provide()
    return str(named or info.get("endpoint_url") or configured or f"https://s3.{region_of(environ, info, profile)}.amazonaws.com")


def region_of(environ: Mapping[str, str], info: Mapping[str, Any], profile: str | None = None) -> str:
    """The store's region: what the tracking server says, else the environment, else the profile. Raises StoreError."""
    named = info.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    with settings_errors():
        return str(named or botocore.session.Session(profile=profile).get_config_variable("region") or "us-east-1")
