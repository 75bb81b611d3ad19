"""Registered models to export: made over the REST API and the object store, so that no mlflow is imported here."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from demo.ports import LOOPBACK, free_ports
from tests.support.box import PASSWORD, USER, Box, until
from tests.support.ceph import Ceph
from tests.support.s3 import S3Store

MLMODEL = b"""flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.2}
  sklearn: {code: null}
mlflow_version: 3.17.2
signature: {inputs: '[{"type": "double", "name": "alcohol"}]', outputs: '[{"type": "double"}]', params: null}
"""


@dataclass
class Tracking:
    """A box with the store behind it. `environ` is what a user who may read the bucket has set."""

    box: Box
    store: S3Store | Ceph

    @property
    def url(self) -> str:
        return f"{self.box.url}/"

    @property
    def login(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}

    @property
    def environ(self) -> dict[str, str]:
        reader = self.store.reader
        return {**self.login, "AWS_ACCESS_KEY_ID": reader.access_key, "AWS_SECRET_ACCESS_KEY": reader.secret_key}

    def put(self, root: str, files: Mapping[str, bytes]) -> None:
        """Objects under the artifact root, as a run's client would have written them."""
        settings = self.box.settings
        for name, content in files.items():
            self.store.client().put_object(Bucket=settings["bucket"], Key=f"{settings['prefix']}/{root}/{name}", Body=content)

    def register(
        self, name: str, files: Mapping[str, bytes], *, tags: Mapping[str, str] | None = None, description: str = "", resolved: bool = False
    ) -> str:
        """A model of one version, among the artifacts of a run. Answers the run id.

        Its source is `runs:/…/model`, as it is given to MlflowClient.create_model_version; `resolved`: the address of the run's folder
        instead, which MLflow 2's `log_model` and `register_model` make of it.
        """
        run = self.box.api("POST", "runs/create", json={"experiment_id": "0", "start_time": 1764000000000})["run"]["info"]
        root = run["artifact_uri"].partition(":/")[2].strip("/")
        self.put(f"{root}/model", files)
        run_id = str(run["run_id"])
        self.box.api("POST", "runs/log-metric", json={"run_id": run_id, "key": "rmse", "value": 0.78, "timestamp": 1})
        self.box.api("POST", "runs/log-parameter", json={"run_id": run_id, "key": "alpha", "value": "0.5"})
        self.box.api("POST", "registered-models/create", json={"name": name})
        source = f"{run['artifact_uri']}/model" if resolved else f"runs:/{run_id}/model"
        body: dict[str, Any] = {"name": name, "source": source, "run_id": run_id, "description": description}
        body["tags"] = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        self.box.api("POST", "model-versions/create", json=body)
        self.box.api("POST", "registered-models/alias", json={"name": name, "alias": "champion", "version": "1"})
        return run_id


@dataclass
class PlainServer:
    """MLflow's own server, without a box: artifacts in a local folder, nobody asked for a password."""

    home: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.home)


def start_plain_server(environment: Path) -> PlainServer:
    home = Path(tempfile.mkdtemp(prefix="mlflow-", dir="/tmp"))
    (port,) = free_ports(1)
    options = ["--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{home}/m.db"]
    argv = [environment / "bin" / "python", "-m", "mlflow", "server", *options, "--artifacts-destination", home / "artifacts"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *argv], env=env, cwd=home, stdout=log, stderr=log)
    server = PlainServer(home, port, process)
    until(lambda: _answers(server), what="the health answer of mlflow server", seconds=120)
    return server


def _answers(server: PlainServer) -> bool:
    assert server.process.poll() is None, (server.home / "log").read_text()
    try:
        return requests.get(f"{server.url}/health", timeout=5).status_code == 200
    except requests.RequestException:
        time.sleep(0.1)
        return False
