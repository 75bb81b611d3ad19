"""The object store behind the server, tried with the caller's own key: one small object of a random name, removed again."""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterator, Mapping

from botocore.exceptions import BotoCoreError, ClientError

from mlwf.doctor.findings import Check, Failed, Noted
from mlwf.doctor.server_checks import Server
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.publish.place import Place, s3_client, store_errors
from mlwf.publish.upload import Store
from mlwf.transfer.store import endpoint_of

PART = b"x"


class Bucket:
    """The server's bucket. Who has no key needs none where artifacts go through the server."""

    def __init__(self, server: Server, environ: Mapping[str, str]) -> None:
        self._server = server
        self._environ = environ
        self._name = f".mlwf-doctor/{os.uname().nodename}-{secrets.token_hex(8)}"

    def checks(self) -> list[Check]:
        return [
            Check("bucket", _("Bucket: list and read"), self._guarded(self._read)),
            Check("bucket-write", _("Bucket: write and delete"), self._guarded(self._write)),
            Check("bucket-parts", _("Bucket: upload in parts"), self._guarded(self._parts)),
        ]

    @functools.cached_property
    def _store(self) -> Store:
        told = self._server.info
        if not told.get("bucket"):
            raise Noted(_("the server is not one of this service's, and does not report its storage"))
        place = Place(str(told["bucket"]), f"{told['prefix']}/", endpoint_of(self._environ, told).rstrip("/"))
        return Store(s3_client(place, self._environ, region=told.get("region")), place)

    def _guarded(self, check: Callable[[], str]) -> Callable[[], str]:
        """Where artifacts go through the server, what one's own key may not do is only worth knowing."""

        def run() -> str:
            try:
                return check()
            except MlwfError as error:
                if self._needs_key():
                    raise
                reason = ": ".join(part for part in (error.what, error.why) if part)
                raise Noted(_("{reason}. Not needed: artifacts go through the server").format(reason=reason)) from error

        return self._server.if_reached(run)

    def _needs_key(self) -> bool:
        try:
            return self._server.info.get("artifact_access") == "direct"
        except (MlwfError, Noted):
            return True

    def _read(self) -> str:
        store = self._store
        with store_errors(_("{place} cannot be listed").format(place=store.place.s3_url())):
            found = store.client.list_objects_v2(Bucket=store.place.bucket, Prefix=store.place.prefix, MaxKeys=1).get("Contents", [])
            for each in found:
                self._read_one(each["Key"])
        return f"{store.place.s3_url()} ({store.place.endpoint_url})"

    def _read_one(self, key: str) -> None:
        try:
            # No range: an empty object has none.
            with contextlib.closing(self._store.client.get_object(Bucket=self._store.place.bucket, Key=key)["Body"]) as body:
                body.read(1)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":  # gone since it was listed, as what the check beside this one writes
                raise

    def _write(self) -> str:
        store = self._store
        where = {"Bucket": store.place.bucket, "Key": store.place.key(self._name)}
        with store_errors(_("{place} cannot be written").format(place=store.place.s3_url())):
            store.client.put_object(**where, Body=PART)  # type: ignore[arg-type]
            try:
                content = store.client.get_object(**where)["Body"].read()  # type: ignore[arg-type]
            finally:
                store.client.delete_object(**where)  # type: ignore[arg-type]
        if content != PART:
            raise Failed(_("what is read back differs from what was written"), cure=_("Ask the store's admins."))
        return _("written, read and deleted")

    def _parts(self) -> str:
        store = self._store
        where = {"Bucket": store.place.bucket, "Key": store.place.key(f"{self._name}.parts")}
        with store_errors(_("{place} does not accept uploads in parts").format(place=store.place.s3_url())):
            upload = store.client.create_multipart_upload(**where)["UploadId"]  # type: ignore[arg-type]
            with self._aborted(store, where | {"UploadId": upload}):
                store.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=PART)  # type: ignore[arg-type]
        return _("begun, one part sent, aborted")

    @staticmethod
    @contextlib.contextmanager
    def _aborted(store: Store, where: Mapping[str, str]) -> Iterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(ClientError, BotoCoreError):  # the part's own failure is what is told
                store.client.abort_multipart_upload(**where)  # type: ignore[arg-type]
