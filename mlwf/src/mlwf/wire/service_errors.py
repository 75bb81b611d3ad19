"""What can go wrong between a client and the service."""

from collections.abc import Mapping
from typing import Any

import requests

from mlwf.answers import Operation, Problem
from mlwf.errors import MlwfError
from mlwf.i18n import _, use_language
from mlwf.wire.system_error import system_error
from mlwf.wire.transport import seconds_for

# What nginx says while the service is started anew.
AWAY = frozenset({502, 503, 504})
# What the service itself says while it, or the directory behind it, cannot answer.
PASSING = frozenset({429, 503})


class ServiceUnavailable(MlwfError):  # noqa: N818  # as HTTP calls it
    """The service could not be reached, or did not answer in time."""


class ServiceError(MlwfError):
    """The service refused or failed: `code` is stable, `detail` and `cure` are for people, `fields` names the input to blame."""

    def __init__(self, *, code: str, detail: str, cure: str = "", status: int = 0, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, cure=cure)
        self.code = code
        self.detail = detail
        self.status = status
        self.fields = dict(fields or {})


def refusal(answer: Mapping[str, Any], *, status: int, reason: str) -> ServiceError:
    """The service's problem document as an error; `reason` is HTTP's own word for the status."""
    return ServiceError(
        code=str(answer.get("code") or "unknown"),
        detail=str(answer.get("detail") or answer.get("title") or reason),
        cure=str(answer.get("cure") or ""),
        status=status,
        fields=answer.get("fields") if isinstance(answer.get("fields"), dict) else None,
    )


def passes(error: MlwfError) -> bool:
    """Whether who only looks may be answered a moment later."""
    return isinstance(error, ServiceUnavailable) or (isinstance(error, ServiceError) and error.status in PASSING)


class OperationFailedError(MlwfError):
    """An operation ended in `failed`; `operation` has its steps, `problem` the reason."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.problem = operation.error or Problem()
        super().__init__(self.problem.detail or operation.message or _("The operation failed"), cure=self.problem.cure)


class StillRunningError(MlwfError):
    """An operation did not end in the time that the caller gave; it goes on."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        super().__init__(
            _("The operation {id} is still {state}").format(id=operation.id, state=operation.state),
            cure=_("It goes on by itself: look at it later with 'mlwf server show {group}/{env}'.").format(
                group=operation.group, env=operation.env_name
            ),
        )


def not_understood(status: int) -> ServiceError:
    return ServiceError(
        code="unexpected_answer",
        detail=_("The service's answer (status {status}) is not understood").format(status=status),
        cure=_("Check MLWF_SERVICE, and update mlwf to the version that belongs to the service."),
        status=status,
    )


def answer_of(response: requests.Response, *, address: str) -> dict[str, Any]:
    """What the service answered. Raises ServiceError where it refused, or said what is no answer of its API, and ServiceUnavailable where
    a proxy before it says that it is away.
    """
    try:
        answer: Any = response.json()
    except requests.JSONDecodeError as error:
        if response.status_code in AWAY:
            what, why = _unreached(address), _("the proxy in front of it answers {status}").format(status=response.status_code)
            raise ServiceUnavailable(what, why, _try_again(asked=response.request.method != "GET")) from error
        raise not_understood(response.status_code) from error
    if not isinstance(answer, dict):
        raise not_understood(response.status_code)
    if response.status_code >= 300:
        raise refusal(answer, status=response.status_code, reason=response.reason)
    return answer


class Understanding:
    """Turns an answer of another shape than the contract's into a ServiceError."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (TypeError, ValueError, KeyError)):
            with use_language(self.language):
                raise not_understood(200) from error


def broke_off(error: requests.RequestException) -> bool:
    """Whether the connection was closed in the middle of a request."""
    return isinstance(error, requests.ConnectionError) and isinstance(
        system_error(error), (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
    )


def unavailable(error: requests.RequestException, *, address: str, method: str, timeout: float | None) -> ServiceUnavailable:
    """Says why a request got no answer, by the system's own error. `method` and `timeout`: as it was asked."""
    what = _unreached(address)
    cause = system_error(error)
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        asked = not isinstance(error, requests.ConnectTimeout)
        why = _("no answer within {seconds:g} seconds").format(seconds=seconds_for(method, timeout)[asked])
        cure = _try_again(asked=asked and method != "GET")
    elif isinstance(error, requests.exceptions.SSLError):
        why = _("its TLS certificate is not accepted ({reason})").format(reason=_tls_reason(error))
        cure = _("Set ca_file in mlwf's settings to the site's CA; if it is set, check it, the address and this host's clock.")
    elif isinstance(cause, FileNotFoundError):
        why = _("there is no such socket")
        cure = _(
            "Set MLWF_SERVICE, or service in ~/.config/mlwf/settings.yml or /etc/aihub/mlwf.yml, to the service's address, "
            "or use a host where the service is installed."
        )
    elif isinstance(cause, ConnectionRefusedError):
        why, cure = _("nobody listens there"), _("Tell the admins that the service is not running.")
    elif isinstance(cause, PermissionError):
        why, cure = _("this user may not open it"), _("Ask the admins for access to the service.")
    else:
        why, cure = str(cause or error), _("Try again in a moment; if it goes on, tell the admins.")
    return ServiceUnavailable(what, why, cure)


def _unreached(address: str) -> str:
    return _("The service at {address} cannot be reached").format(address=address)


def _try_again(*, asked: bool) -> str:
    """The cure. `asked`: it was for a change, which the service may have heard."""
    return _("It may still be done: check before you ask again.") if asked else _("Try again in a moment.")


def _tls_reason(error: BaseException) -> str:
    """OpenSSL's own words, such as "self-signed certificate in certificate chain"."""
    cause = system_error(error)
    return str(getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or type(cause or error).__name__)
