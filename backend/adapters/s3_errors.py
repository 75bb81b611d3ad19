"""What the answers and silences of an object store mean. Vendors' errors end here and become ours."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mlwf.wire.system_error import causes

from backend.domain import Storage
from backend.errors import ServiceError
from backend.i18n import Told

_CODES: Final[dict[str, frozenset[str]]] = {
    "storage_key_unknown": frozenset({"InvalidAccessKeyId", "InvalidAccessKey", "NoSuchUser"}),
    "storage_secret_wrong": frozenset({"SignatureDoesNotMatch", "SignatureDoesNotMatchException"}),
    "storage_bucket_missing": frozenset({"NoSuchBucket", "InvalidBucketName"}),
    "storage_clock": frozenset({"RequestTimeTooSkewed", "RequestExpired"}),
    "storage_region_wrong": frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}),
    "storage_full": frozenset(
        {"QuotaExceeded", "EntityTooLarge", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
    ),
}
"""Our code to the stores' own."""
_BUSY: Final = frozenset({"SlowDown", "ServiceUnavailable", "InternalError"})
_AMAZON: Final = "Amazon S3"
_LATE: Final = "it did not answer in time"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was tried, for the messages."""

    storage: Storage
    access_key_id: str

    @property
    def endpoint(self) -> str:
        """The store's name for people."""
        return self.storage.endpoint_url or _AMAZON

    @property
    def params(self) -> dict[str, str]:
        """What the messages name."""
        storage = self.storage
        return {"bucket": storage.bucket, "region": storage.region, "endpoint": self.endpoint, "access_key_id": self.access_key_id}


def from_answer(answer: Mapping[str, Any], target: Target, action: str) -> ServiceError:
    """An error that the store itself answered."""
    error = answer.get("Error", {})
    code = str(error.get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    ours = next((each for each, theirs in _CODES.items() if code in theirs), None)
    if ours is None and str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-type", "")).startswith("text/html"):
        return not_s3(target, "it answers with a web page")
    if ours is None and status == 403 and code and not code.isdigit():
        ours = "storage_forbidden"
    return _by_status(code, status, target) if ours is None else ServiceError(ours, **target.params, action=action, why=_word(code))


def _by_status(code: str, status: int, target: Target) -> ServiceError:
    """S3 names each of its errors; what answers without a name, or with the status as its name, is something else."""
    if status >= 500 or code in _BUSY:
        return ServiceError("storage_unreachable", endpoint=target.endpoint, why=Told("it answers with status {status}", status=status))
    if not code or code.isdigit():
        return not_s3(target, Told("it answers with status {status} and no error of S3", status=status))
    return not_s3(target, Told("it refuses with {code}", code=_word(code)))


def from_connection(error: BaseException, target: Target) -> ServiceError:
    """No answer at all, or one that cannot be read."""
    found = list(causes(error))
    names = {type(cause).__name__ for cause in found}
    for kinds, words, code, why in _SILENCES:
        if names & words or any(isinstance(cause, kinds) for cause in found):
            return ServiceError(code, endpoint=target.endpoint, why=why)
    return ServiceError("storage_unreachable", endpoint=target.endpoint, why="the connection failed")


_SILENCES: Final[tuple[tuple[tuple[type[BaseException], ...], frozenset[str], str, str], ...]] = (
    ((ssl.SSLCertVerificationError,), frozenset(), "storage_unreachable", "its TLS certificate is not trusted"),
    ((ssl.SSLError,), frozenset({"SSLError"}), "storage_not_s3", "it does not speak TLS; perhaps its address begins with http"),
    ((socket.gaierror,), frozenset({"NameResolutionError"}), "storage_unreachable", "its name is not known"),
    ((ConnectionRefusedError,), frozenset(), "storage_unreachable", "nobody listens there"),
    ((TimeoutError,), frozenset({"ConnectTimeoutError", "ReadTimeoutError"}), "storage_unreachable", _LATE),
    ((), frozenset({"EndlessAnswerError"}), "storage_not_s3", "its answer does not end"),
    ((), frozenset({"ResponseParserError", "BadStatusLine", "LineTooLong"}), "storage_not_s3", "its answer cannot be read"),
    ((ConnectionError,), frozenset({"ConnectionClosedError", "IncompleteRead"}), "storage_unreachable", "it closed the connection"),
)
"""The most telling first: kinds or names of what was raised, our code, why."""


def too_late(target: Target) -> ServiceError:
    """It answers, but never comes to an end."""
    return ServiceError("storage_unreachable", endpoint=target.endpoint, why=_LATE)


def not_s3(target: Target, why: str) -> ServiceError:
    """Something answers, but no S3."""
    return ServiceError("storage_not_s3", endpoint=target.endpoint, why=why)


def _word(code: str) -> str:
    """A code as a store gave it, fit for a message."""
    return "".join(letter for letter in code[:64] if letter.isalnum() or letter in "._-")
