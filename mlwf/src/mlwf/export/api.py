"""MLflow's REST API, as far as an export needs it. Works with every MLflow 2 and 3 server."""

import json
import time
from collections.abc import Callable
from typing import Any

import requests

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.transfer.http import RefusedError, Request, TransientError, opened, retried, whole
from mlwf.transfer.session import not_let_in, proxy_hint

MAX_ANSWER = 64 << 20
Json = dict[str, Any]


class RegistryError(MlwfError):
    """The tracking server refused, failed, or is not one. `code`: MLflow's error code, such as RESOURCE_DOES_NOT_EXIST."""

    def __init__(self, what: str, why: str = "", cure: str = "", *, code: str = "") -> None:
        super().__init__(what, why, cure)
        self.code = code


class TrackingApi:
    """GET requests to one tracking server. `base`: its URL without a slash at the end."""

    def __init__(self, base: str, session: requests.Session, *, wait: Callable[[float], object] = time.sleep) -> None:
        self.base = base
        self.session = session
        self._wait = wait

    def get(self, route: str, **params: str) -> Json:
        """The JSON object at `<base>/api/2.0/mlflow/<route>`. Raises RegistryError."""
        return self.get_json(f"api/2.0/mlflow/{route}", **params)

    def get_json(self, route: str, **params: str) -> Json:
        """The JSON object at `<base>/<route>`. Raises RegistryError."""
        request = Request(f"{self.base}/{route}", {"Accept": "application/json"}, params)
        try:
            text = retried(lambda: self._read(request), self._wait)
        except TransientError as error:
            raise self._no_answer(error) from error
        except RefusedError as error:
            raise self._refused(error) from error
        answer = _json(text)
        if not isinstance(answer, dict):
            raise self._not_mlflow()
        return answer

    def _read(self, request: Request) -> bytes:
        with opened(self.session, request) as response:
            return whole(response, MAX_ANSWER)

    def _no_answer(self, error: TransientError) -> RegistryError:
        cure = (
            _("Check the URL, and that the server is started (mlwf server list).")
            if not error.reached
            else _("Try again in a moment; if it goes on, see the server's state with 'mlwf server list'.")
        )
        return RegistryError(_("The tracking server at {url} gives no answer").format(url=self.base), str(error), self._and_proxy(cure))

    def _and_proxy(self, cure: str) -> str:
        return f"{cure} {proxy_hint(self.session, self.base)}".rstrip()

    def _refused(self, error: RefusedError) -> RegistryError:
        what = _("The tracking server at {url} refuses").format(url=self.base)
        if error.status == 401:
            return RegistryError(what, *not_let_in(error.reason, self.session), code="UNAUTHENTICATED")
        if error.status == 403:
            cure = _("Use the URL exactly as Service List shows it, and a user who may read the model.")
            return RegistryError(what, _("it answers 403 Forbidden"), self._and_proxy(cure), code="FORBIDDEN")
        if 300 <= error.status < 400:
            return RegistryError(
                _("{url} leads elsewhere, as a login page does").format(url=self.base),
                cure=_("Use the URL for access from inside, or the address to which it leads."),
            )
        if error.status == 0:
            cure = _("Set MLFLOW_TRACKING_SERVER_CERT_PATH to the site's CA bundle where this is about a certificate, else check the URL.")
            return RegistryError(what, str(error), self._and_proxy(cure))
        answer = _json(error.body)
        if isinstance(answer, dict) and answer.get("error_code"):
            return RegistryError(str(answer.get("message") or answer["error_code"]), code=str(answer["error_code"]))
        return self._not_mlflow() if error.status == 404 else RegistryError(what, str(error), self._and_proxy("").lstrip())

    def _not_mlflow(self) -> RegistryError:
        return RegistryError(
            _("{url} is not an MLflow tracking server").format(url=self.base),
            cure=_("Give the URL that Service List shows, such as http://HOST:PORT/mlflow/."),
            code="NOT_MLFLOW",
        )


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
