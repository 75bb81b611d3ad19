"""One file into one object: in parts, side by side, taken up again where an earlier run was interrupted."""

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mlwf.i18n import _
from mlwf.publish.place import Place, StoreRefusedError, error_code, lasting, store_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MB = 1 << 20
PART = 16 * MB
MAX_PARTS = 9000
THREADS = 4
DIGEST = "sha256"
GONE, TAKEN = "NoSuchUpload", "PreconditionFailed"


@dataclass(frozen=True)
class Local:
    """A file to publish. `sha256` in hex."""

    path: Path
    size: int
    sha256: str
    media_type: str


@dataclass(frozen=True)
class Store:
    client: "S3Client"
    place: Place


def published(store: Store, name: str) -> tuple[int, str] | None:
    """Size and SHA-256 (empty where the store does not tell) of what lies there; None where nothing does."""
    with store_errors(_("{url} cannot be looked at").format(url=store.place.s3_url(name))):
        try:
            head = store.client.head_object(Bucket=store.place.bucket, Key=store.place.key(name))
        except ClientError as error:
            if error_code(error) in {"404", "NoSuchKey", "NotFound"}:
                return None
            raise _told(store, name, error) from error
    return head["ContentLength"], head.get("Metadata", {}).get(DIGEST, "")


def _told(store: Store, name: str, refusal: ClientError) -> ClientError:
    """What HEAD was refused, with the store's own word for why, for which only the answer to GET has room."""
    if error_code(refusal) in {"301", "400", "403"}:
        try:
            store.client.get_object(Bucket=store.place.bucket, Key=store.place.key(name), Range="bytes=0-0")["Body"].close()
        except ClientError as error:
            return error if str(error.response["ResponseMetadata"]["HTTPStatusCode"]) == error_code(refusal) else refusal
    return refusal


def is_published(store: Store, name: str, local: Local) -> bool:
    """Whether just this content lies there; read as a whole where the store keeps no digest of ours."""
    found = published(store, name)
    if found is None or found[0] != local.size:
        return False
    if found[1]:
        return found[1] == local.sha256
    digest = hashlib.sha256()
    with store_errors(_("{url} cannot be read").format(url=store.place.s3_url(name))):
        body = store.client.get_object(Bucket=store.place.bucket, Key=store.place.key(name))["Body"]
        for chunk in body.iter_chunks(MB):
            digest.update(chunk)
    return digest.hexdigest() == local.sha256


def unfinished(store: Store, name: str) -> list[str]:
    """Ids of uploads of this object that were begun and not ended, the newest first."""
    found = []
    pages = store.client.get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=store.place.bucket, Prefix=store.place.key(name)):
        found += [(each["Initiated"], each["UploadId"]) for each in page.get("Uploads", ()) if each["Key"] == store.place.key(name)]
    return [upload_id for _begun, upload_id in sorted(found, reverse=True)]


def abort(store: Store, name: str, upload_id: str) -> None:
    """Remove an upload's parts; one that is gone is fine."""
    try:
        store.client.abort_multipart_upload(Bucket=store.place.bucket, Key=store.place.key(name), UploadId=upload_id)
    except ClientError as error:
        if error_code(error) not in {GONE, "404"}:
            raise


def abort_unfinished(store: Store, name: str) -> int:
    """Remove the parts of all unfinished uploads of this object, which are charged. Answers how many there were."""
    with store_errors(_("Unfinished uploads cannot be removed from {url}").format(url=store.place.s3_url())):
        found = unfinished(store, name)
        for upload_id in found:
            abort(store, name, upload_id)
    return len(found)


def _taken_up(store: Store, name: str, local: Local) -> tuple[str, dict[int, str]]:
    """The newest unfinished upload of this file, with the ETags of its parts by number; nothing where there is none.

    The store does not tell of which file an upload is: the last of its parts says so, since another version may begin alike.
    """
    for upload_id in unfinished(store, name):
        where = {"Bucket": store.place.bucket, "Key": store.place.key(name), "UploadId": upload_id}
        pages = store.client.get_paginator("list_parts").paginate(**where)  # type: ignore[arg-type]
        there = {each["PartNumber"]: each["ETag"] for page in pages for each in page.get("Parts", ())}
        last = next((part for part in _parts(local.size) if there and part[0] == max(there)), None)
        if last and _is_part(there[last[0]], _content(local, *last[1:])):
            return upload_id, there
    return "", {}


def _content(local: Local, offset: int, length: int) -> bytes:
    with local.path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _is_part(etag: str, content: bytes) -> bool:
    """A part's ETag is its MD5; where a store has another rule, the part is sent again."""
    return etag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


class Upload:
    """One upload, told to `on_bytes` as it goes. `new`: only where nothing lies yet, if another one comes first, too."""

    def __init__(self, store: Store, name: str, local: Local, on_bytes: Callable[[int], None], *, new: bool = False) -> None:
        self._store = store
        self._name = name
        self._local = local
        self._on_bytes = on_bytes
        self._new = new
        self._object: dict[str, Any] = {"Bucket": store.place.bucket, "Key": store.place.key(name)}
        self._facts: dict[str, Any] = {"ContentType": local.media_type, "Metadata": {DIGEST: local.sha256}}
        self._upload_id = ""
        self._there: dict[int, str] = {}

    def run(self) -> None:
        """Upload, and make sure that it arrived. An interrupted upload's parts stay for the next run; what the store refuses for good
        is removed again. Raises StoreRefusedError.
        """
        with store_errors(_("{name} cannot be uploaded to {url}").format(name=self._name, url=self._store.place.s3_url())):
            if self._local.size <= PART:
                self._at_once()
            else:
                self._in_parts()
            arrived = published(self._store, self._name)
            if self._there and arrived and arrived[1] not in {"", self._local.sha256}:
                # Taken up from a file that is the same as far as it was sent: the object carries the digest of that one.
                self._in_parts(anew=True)
                arrived = published(self._store, self._name)
        if arrived is None or arrived[0] != self._local.size:
            cure = _("Run it again; if it goes on, ask the store's admins.")
            raise StoreRefusedError(_("{name} did not arrive whole").format(name=self._name), "", cure, lasting=False)

    def _at_once(self) -> None:
        content = self._local.path.read_bytes()
        whole = {**self._object, **self._facts, "Body": content, "ContentMD5": _md5(content)}
        try:
            self._ending(partial(self._store.client.put_object, **whole), new=self._new)
        except ClientError as error:
            self._unless_it_is_there(error)
        self._on_bytes(self._local.size)

    def _in_parts(self, *, anew: bool = False) -> None:
        self._upload_id, self._there = ("", {}) if anew else _taken_up(self._store, self._name, self._local)
        if not self._upload_id:
            self._upload_id = self._store.client.create_multipart_upload(**self._object, **self._facts)["UploadId"]
        try:
            etags = self._send_parts()
            parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
            whole = {**self._object, "UploadId": self._upload_id, "MultipartUpload": {"Parts": parts}}
            self._ending(partial(self._store.client.complete_multipart_upload, **whole), new=self._new and not anew)
        except ClientError as error:
            if lasting(error):
                with contextlib.suppress(ClientError):  # a key without that right: what broke the upload is to be told
                    abort(self._store, self._name, self._upload_id)
            self._unless_it_is_there(error)
        for other in unfinished(self._store, self._name):
            abort(self._store, self._name, other)

    @staticmethod
    def _ending(write: Callable[..., object], *, new: bool) -> None:
        """What makes the object appear. A store that knows no condition is asked without."""
        try:
            write(**({"IfNoneMatch": "*"} if new else {}))
        except ClientError as error:
            if not new or error_code(error) != "NotImplemented":
                raise
            write()

    def _unless_it_is_there(self, error: ClientError) -> None:
        """Raises the error, unless just this is there: by a try of this run whose answer was lost, or by another run of the same."""
        if error_code(error) not in {GONE, TAKEN} or not is_published(self._store, self._name, self._local):
            raise error

    def _send_parts(self) -> dict[int, str]:
        """Send every part that is not there yet with just this content; answers the ETags by number."""
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="upload")
        try:
            sending = [pool.submit(self._send, *part) for part in _parts(self._local.size)]
            finished, _rest = wait(sending, return_when=FIRST_EXCEPTION)
            failed = next((error for each in finished if (error := each.exception())), None)
            if failed:
                raise failed
            return dict(each.result() for each in sending)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _send(self, number: int, offset: int, length: int) -> tuple[int, str]:
        content = _content(self._local, offset, length)
        etag = self._there.get(number, "")
        if not _is_part(etag, content):
            where = self._object | {"UploadId": self._upload_id, "PartNumber": number}
            etag = self._store.client.upload_part(**where, Body=content, ContentMD5=_md5(content))["ETag"]
        self._on_bytes(length)
        return number, etag


def _parts(size: int) -> Iterator[tuple[int, int, int]]:
    """Number, offset and length of each part; the same for the same size, so that a later run finds them again."""
    length = max(PART, -(-size // MAX_PARTS // MB) * MB)
    for number, offset in enumerate(range(0, size, length), 1):
        yield number, offset, min(length, size - offset)


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
