"""A site with everything real: object store, nginx, guard and MLflow, on the process runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from mlwf.secret import Secret

from backend.adapters.s3 import S3
from backend.adapters.trial import HttpTrial
from backend.domain import BoxState, StorageKey
from backend.registry.models import Operation, Server
from backend.runtimes.process import ProcessRuntime
from backend.wishes.values import CreateWish
from tests.service.engine.support import ALICE, GROUP, Site, asking, until
from tests.support.s3 import S3Store

PASSWORD = "a right password"


class RealSite(Site):
    """A site whose reconciler runs, and whose one server is asked for things over HTTP."""

    stand_ins = ()

    def ask_and_wait(self, operation: Operation, state: str = "succeeded", *, seconds: float = 90) -> Operation:
        done: Operation = until(lambda: (found := self.operation(operation)).finished_at is not None and found, seconds)
        assert done.state == state, done.error or done.state
        return done

    def is_up(self) -> Server | None:
        server = self.server()
        return server if server is not None and server.status in {"running", "sleeping"} else None

    def answers(self) -> bool:
        server = self.one()
        directory, address = self.boxes.directory(server.id), ("127.0.0.1", server.port)
        seen = self.runtime.observe(server_id=server.id, directory=directory, address=address)
        return seen.state in {BoxState.ASLEEP, BoxState.AWAKE}

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request as alice; `path` counts from /mlflow. Errors: those of requests."""
        port = self.one().port
        headers = {"Host": f"host.example.org:{port}"}
        return requests.request(
            method, f"http://127.0.0.1:{port}/mlflow{path}", headers=headers, auth=("alice", PASSWORD), timeout=60, **options
        )

    def call(self, path: str, document: dict[str, Any]) -> Any:
        answer = self.request("POST", f"/api/2.0/mlflow/{path}", json=document)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def look(self, path: str, **params: Any) -> Any:
        answer = self.request("GET", f"/api/2.0/mlflow/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def experiments(self) -> list[str]:
        found = self.call("experiments/search", {"max_results": 10})["experiments"]
        return sorted(experiment["name"] for experiment in found)


@contextmanager
def running_site(home: Path, s3_store: S3Store, *, envs: Path, version: str) -> Iterator[RealSite]:
    """With one server, `wine`, of that version, in a bucket of its own; alice may log in."""
    runtime = ProcessRuntime(servers_dir=home / "servers", envs_dir=envs, environment=dict(os.environ))
    site = RealSite(home, runtime=runtime, envs_dir=envs, region=s3_store.region, stop_timeout=20)
    site.store = S3()  # type: ignore[assignment]
    site.trial = HttpTrial()  # type: ignore[assignment]
    stop = threading.Event()
    thread = threading.Thread(target=site.reconciler().run, args=(stop,))
    thread.start()
    try:
        key = StorageKey(access_key_id=s3_store.owner.access_key, secret_access_key=Secret(s3_store.owner.secret_key))
        wish = CreateWish(
            group=GROUP.name,
            env_name="wine",
            bucket=s3_store.make_bucket(),
            key=key,
            endpoint_url=s3_store.endpoint_url,
            mlflow_version=version,
        )
        site.ask_and_wait(site.requests.create(ALICE, wish, request_id=None))
        users = [("alice", Secret(PASSWORD))]
        site.ask_and_wait(site.requests.set_users(asking(), users))
        yield site
    finally:
        stop.set()
        thread.join(30)
        for server_id in site.boxes.ids():
            runtime.stop(server_id=server_id, directory=site.boxes.directory(server_id), timeout=5)
        site.registry.close()
