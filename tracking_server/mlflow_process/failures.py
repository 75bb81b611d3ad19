"""What MLflow would answer with a bare 500: a full disk, an object store that refuses or is gone, what we refuse to do."""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tracking_server.mlflow_process.compressed import UnpackError
from tracking_server.mlflow_process.outwards import AddressError
from tracking_server.mlflow_process.spool import NO_ROOM, NoRoomError, when_again

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GONE = ("404", "NoSuchKey", "NotFound")
_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401", "NoSuchBucket")
# These and the clock's as backend.adapters.s3_errors has them, which is not here.
_NO_ROOM = ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507")
_TOO_LONG = "KeyTooLongError"
_CLOCK = ("RequestTimeTooSkewed", "RequestExpired")
# 424: MLflow's clients ask again for minutes after a 502 or 503, and then say neither why nor the cure.
_NOT_BY_WAITING = 424
_SHORTER = (
    "A name in this artifact's path is too long: a file or folder has 255 bytes at most, the whole path what the object store allows, "
    "often 1024 bytes with what stands before it (a Japanese letter is 3): choose shorter names."
)
Answer = tuple[int, dict[str, str]]
_UNFORESEEN = "MLflow failed at this: its log on the server says why, at this answer's X-Request-Id. Ask the server's administrator."
_LAST: Answer = (500, {"error_code": "INTERNAL_ERROR", "message": _UNFORESEEN})


def explain(error: BaseException) -> Answer | None:
    """Status and MLflow's error document; None for what is not one of these failures."""
    if isinstance(error, NoRoomError) or (isinstance(error, OSError) and error.errno in _FULL):
        message = str(error) if isinstance(error, NoRoomError) else NO_ROOM
        return 507, {"error_code": "RESOURCE_EXHAUSTED", "message": message}
    if (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG) or _store_code(error) == _TOO_LONG:
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": _SHORTER}
    if isinstance(error, UnpackError):
        return error.status, {"error_code": "INVALID_PARAMETER_VALUE", "message": str(error)}
    refused = next((each for each in _with_causes(error) if isinstance(each, AddressError)), None)
    if refused is not None:
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": str(refused)}
    return _store_failure(error)


def _store_failure(error: BaseException) -> Answer | None:
    code = _store_code(error)
    if code is None:
        return None
    if code in _GONE:
        return 404, {
            "error_code": "RESOURCE_DOES_NOT_EXIST",
            "message": "The artifact does not exist: look at the run's list of artifacts.",
        }
    if code in _DENIED:
        message = f"The object store refuses the server's key or bucket ({code}): the server's owner should register working keys."
        return _NOT_BY_WAITING, {"error_code": "INVALID_STATE", "message": message}
    if code in _NO_ROOM:
        message = f"The object store has no more room for this server ({code}): remove something there, or ask those who run it for more."
        return 507, {"error_code": "RESOURCE_EXHAUSTED", "message": message}
    if code in _CLOCK:
        message = f"The object store's clock and the server's differ ({code}): ask the server's administrator to set it."
        return _NOT_BY_WAITING, {"error_code": "INVALID_STATE", "message": message}
    message = f"The object store does not answer as it should ({code or 'no connection'}): try again later."
    return 503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message}


def _store_code(error: BaseException) -> str | None:
    """The object store's error code, also of an error that wraps one; "" for no connection; None when it is no such error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    ours = False
    for each in _with_causes(error):
        if isinstance(each, ClientError):
            return str(each.response.get("Error", {}).get("Code", ""))
        ours = ours or isinstance(each, (Boto3Error, BotoCoreError))
    return "" if ours else None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def install(asgi: Any, wsgi: Any) -> None:
    """Into MLflow's two applications."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from fastapi.responses import JSONResponse  # type: ignore[import-not-found]  # in the box's environment only
    from flask import jsonify

    async def asgi_answer(_request: Any, error: Exception) -> Any:
        found = explain(error)
        if found is None:
            raise error
        return JSONResponse(status_code=found[0], content=found[1], headers=when_again(found[1]["message"]))

    def wsgi_answer(error: Exception) -> Any:
        found = explain(error)
        if found is None:
            raise error
        return jsonify(found[1]), found[0], when_again(found[1]["message"])

    async def asgi_last_answer(_request: Any, error: Exception) -> Any:
        status, document = explain(error) or _LAST
        return JSONResponse(status_code=status, content=document, headers=when_again(document["message"]))

    def wsgi_last_answer(_error: Exception) -> Any:
        return jsonify(_LAST[1]), _LAST[0]

    _tell_of_the_store()
    asgi.add_exception_handler(Exception, asgi_last_answer)
    wsgi.register_error_handler(500, wsgi_last_answer)
    for kind in (OSError, NoRoomError, UnpackError, Boto3Error, BotoCoreError, ClientError):
        asgi.add_exception_handler(kind, asgi_answer)
        wsgi.register_error_handler(kind, wsgi_answer)


def _tell_of_the_store() -> None:
    """MLflow answers 401 or 403 where the object store refuses the server's own key: its clients would look for a wrong password. So when
    it lists, and when it signs an address for a download in parts.
    """
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]

    pages = S3ArtifactRepository._iterate_s3_paginated_results  # noqa: SLF001  # MLflow's versions are pinned
    signed = S3ArtifactRepository.get_download_presigned_url

    @functools.wraps(pages)
    def pages_or_the_stores_word(self: Any, *where: Any, **more: Any) -> Iterator[Any]:
        with _the_stores_word():
            yield from pages(self, *where, **more)

    @functools.wraps(signed)
    def signed_or_the_stores_word(self: Any, *where: Any, **more: Any) -> Any:
        with _the_stores_word():
            return signed(self, *where, **more)

    S3ArtifactRepository._iterate_s3_paginated_results = pages_or_the_stores_word  # noqa: SLF001  # as above
    S3ArtifactRepository.get_download_presigned_url = signed_or_the_stores_word


@contextmanager
def _the_stores_word() -> Iterator[None]:
    from botocore.exceptions import ClientError
    from mlflow.exceptions import MlflowException  # type: ignore[import-not-found]

    try:
        yield
    except MlflowException as error:
        if isinstance(error.__context__, ClientError):
            raise error.__context__ from None
        raise
