"""Tries a tracking server out as a client would, over plain HTTP. Implements the port ``Trial``."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Final

import requests
from mlwf.secret import Secret
from mlwf.wire.transport import OneAnswer
from urllib3.exceptions import HTTPError

from backend import log as logs
from backend.errors import ServiceError
from backend.i18n import Told
from backend.wishes.portpool import joined
from backend.wishes.trial_words import USER

SECONDS: Final = 60.0
"""For one request: the first one waits until MLflow has started."""
MOST_BYTES: Final = 1024**2
"""Of one answer: the rest is not read. What is looked at is far shorter, and lists of what members made have no bound."""
_ODD: Final = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What is raised where an answer is no JSON, or says something else than MLflow's."""


class HttpTrial:
    """See the port."""

    def try_out(self, *, address: tuple[str, int], password: Secret, version: str, folder: str) -> None:
        """See the port."""
        client = _Client(address, password, version)
        client.look()
        try:
            _use(client, folder)
        except _ODD as error:
            raise ServiceError("version_unfit", version=version, why="its answer cannot be read") from error

    def look(self, *, address: tuple[str, int], password: Secret, version: str) -> None:
        """See the port."""
        _Client(address, password, version).look()


def _use(client: _Client, folder: str) -> None:
    """As a job does."""
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


class _Client:
    def __init__(self, address: tuple[str, int], password: Secret, version: str) -> None:
        self._base, self._version = f"http://{joined(*address)}/mlflow", version
        self._session = OneAnswer()  # where a box sends others, the service does not go
        self._session.trust_env = False
        self._session.auth = (USER, password.reveal())
        self._session.headers.update({"Accept-Encoding": "identity", **logs.request_headers()})

    def look(self) -> None:
        """The version answers, and what is stored can be read."""
        self.expect(self._ask("GET", "/version").strip() == self._version.encode(), "another version answers")
        self._ask("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 100})
        self._ask("GET", "/api/2.0/mlflow/registered-models/search?max_results=100")
        self._ask("GET", "/")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The document that is answered. Raises one of ``_ODD`` for what is none."""
        answer: dict[str, Any] = json.loads(self._ask("POST", f"/api/2.0/mlflow/{path}", json=body))
        return answer

    def artifact(self, path: str) -> None:
        """Upload, download, remove."""
        place, content = f"/api/2.0/mlflow-artifacts/artifacts/{path}", b"hello"
        self._ask("PUT", place, data=content)
        self.expect(self._ask("GET", place) == content, "an artifact comes back changed")
        self._ask("DELETE", place)

    def expect(self, so: bool, otherwise: str) -> None:
        if not so:
            raise ServiceError("version_unfit", version=self._version, why=otherwise)

    def _ask(self, method: str, path: str, **options: Any) -> bytes:
        """What is answered, or its first ``MOST_BYTES``."""
        what, until, held = f"{method} {path.partition('?')[0]}", time.monotonic() + SECONDS, b""
        try:
            with self._session.request(method, self._base + path, timeout=SECONDS, stream=True, **options) as answer:
                self.expect(answer.status_code < 300, Told("{request} is answered with {status}", request=what, status=answer.status_code))
                while len(held) < MOST_BYTES and (chunk := answer.raw.read1(65536)):
                    held += chunk
                    self.expect(time.monotonic() < until, "it did not answer in time")
        except (requests.RequestException, HTTPError) as error:
            raise ServiceError("version_unfit", version=self._version, why=f"{what}: {type(error).__name__}") from error
        return held
