"""Tries a tracking server out as a client would, over plain HTTP. Implements the port ``Trial``."""

from __future__ import annotations

import secrets
from typing import Any, Final

import requests
from mlwf.secret import Secret

from backend import log as logs
from backend.errors import ServiceError
from backend.i18n import Told
from backend.wishes.portpool import joined
from backend.wishes.trial_words import USER

SECONDS: Final = 60.0
"""For one request: the first one waits until MLflow has started."""


class HttpTrial:
    """See the port."""

    def try_out(self, *, address: tuple[str, int], password: Secret, version: str, folder: str) -> None:
        """See the port."""
        client = _Client(address, password, version)
        client.look()
        experiment = client.post("experiments/create", {"name": f"{folder}-{secrets.token_hex(4)}"})["experiment_id"]
        run = client.post("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
        client.post("runs/log-batch", {"run_id": run, "metrics": [{"key": "m", "value": 1.5, "timestamp": 1, "step": 0}], "tags": []})
        found = client.post("runs/search", {"experiment_ids": [experiment], "filter": "metrics.m > 1"}).get("runs", [])
        client.expect([each["info"]["run_id"] for each in found] == [run], "a run that was logged is not found")
        client.artifact(f"{folder}/hello.txt")
        name = f"{folder}-model"
        client.post("registered-models/create", {"name": name})
        version_of_it = {"name": name, "source": f"runs:/{run}/model", "run_id": run}
        made = client.post("model-versions/create", version_of_it)["model_version"]
        client.expect(made["version"] == "1", "a model cannot be registered")

    def look(self, *, address: tuple[str, int], password: Secret, version: str) -> None:
        """See the port."""
        _Client(address, password, version).look()


class _Client:
    def __init__(self, address: tuple[str, int], password: Secret, version: str) -> None:
        self._base, self._version = f"http://{joined(*address)}/mlflow", version
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = (USER, password.reveal())
        self._session.headers.update(logs.request_headers())

    def look(self) -> None:
        """The version answers, and what is stored can be read."""
        self.expect(self._ask("GET", "/version").text.strip() == self._version, "another version answers")
        self.post("experiments/search", {"max_results": 100})
        self._ask("GET", "/api/2.0/mlflow/registered-models/search?max_results=100")
        self._ask("GET", "/")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask("POST", f"/api/2.0/mlflow/{path}", json=body).json()
        return answer

    def artifact(self, path: str) -> None:
        """Upload, download, remove."""
        place, content = f"/api/2.0/mlflow-artifacts/artifacts/{path}", b"hello"
        self._ask("PUT", place, data=content)
        self.expect(self._ask("GET", place).content == content, "an artifact comes back as another one")
        self._ask("DELETE", place)

    def expect(self, so: bool, otherwise: str) -> None:
        if not so:
            raise ServiceError("version_unfit", version=self._version, why=otherwise)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        what = f"{method} {path.partition('?')[0]}"
        try:
            answer = self._session.request(method, self._base + path, timeout=SECONDS, **options)
        except requests.RequestException as error:
            raise ServiceError("version_unfit", version=self._version, why=f"{what}: {type(error).__name__}") from error
        self.expect(answer.status_code < 300, Told("{request} is answered by {status}", request=what, status=answer.status_code))
        return answer
