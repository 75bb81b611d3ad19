"""What an upgrade must be on every runtime: from a real MLflow to a real newer one and back, while clients write. A test module makes a
`before` fixture and inherits `UpgradeContract`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

from backend.wishes.trial_words import FOLDER
from tests.service.engine.real_site import RealSite
from tests.service.engine.support import until
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION
from tests.support.s3 import S3Store

UPGRADE_SECONDS = 240.0
MISLABELLED = "3.99.0"
CONTENT = b"the weights of a model"


@dataclass
class Writer:
    """Logs the metric `n` with the steps 0, 1, 2 … to a run of its own, until `stop` is set."""

    site: RealSite
    run: str
    first: int = 0
    answered: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        step = self.first
        while not self.stop.is_set():
            body = {"run_id": self.run, "key": "n", "value": step, "timestamp": 1 + step, "step": step}
            try:
                answer = self.site.request("POST", "/api/2.0/mlflow/runs/log-metric", json=body)
            except requests.ConnectionError as error:
                self.refused.append(type(error).__name__)
            else:
                if answer.status_code == 200:
                    self.answered.append(step)
                else:
                    self.refused.append(str(answer.status_code))
            step += 1


@dataclass
class Before:
    """What was in the server before anything was done to it."""

    site: RealSite
    experiment: str
    run: str
    what_runs: Callable[[], object]
    """Another value when the server was started anew."""

    def assert_it_is_there(self) -> None:
        run = self.site.look("runs/get", run_id=self.run)["run"]
        assert {row["key"]: row["value"] for row in run["data"]["params"]} == {"alpha": "0.5"}
        assert {row["key"]: row["value"] for row in run["data"]["metrics"]} == {"loss": 0.25}
        version = self.site.look("model-versions/get", name="wine", version="1")["model_version"]
        assert (version["run_id"], version["status"]) == (self.run, "READY")
        answer = self.site.request("GET", f"/api/2.0/mlflow-artifacts/artifacts/{self.path}")
        assert (answer.status_code, answer.content) == (200, CONTENT)

    @property
    def path(self) -> str:
        return f"{self.experiment}/{self.run}/artifacts/model/weights"


@contextmanager
def writers(site: RealSite, experiment: str, number: int = 2) -> Iterator[list[Writer]]:
    """So many clients write, each to a run of its own; at the end, each has been answered after the inner part, too."""
    made = []
    for _ in range(number):
        run = site.call("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
        made.append(Writer(site, run))
    threads = [threading.Thread(target=writer.work) for writer in made]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(len(writer.answered) > 5 for writer in made), 60)
        yield made
        counts = [len(writer.answered) for writer in made]
        until(lambda: all(len(writer.answered) > count + 5 for writer, count in zip(made, counts, strict=True)), 60)
    finally:
        for writer in made:
            writer.stop.set()
        for thread in threads:
            thread.join(90)


def steps_of(site: RealSite, run: str) -> set[int]:
    return {int(row["step"]) for row in site.look("metrics/get-history", run_id=run, metric_key="n").get("metrics", [])}


def assert_nothing_answered_is_lost(site: RealSite, made: list[Writer]) -> None:
    for writer in made:
        assert sorted(set(writer.answered) - steps_of(site, writer.run)) == []


def version_of(site: RealSite) -> str:
    return site.request("GET", "/version").text.strip()


def objects_of_the_trial(site: RealSite, s3_store: S3Store) -> list[str]:
    bucket = site.one().bucket
    listed = s3_store.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return [each["Key"] for each in listed if FOLDER in each["Key"]]


def something_is_in(site: RealSite, what_runs: Callable[[], object]) -> Before:
    """A run with a parameter and a metric, an artifact and a registered model."""
    experiment = site.call("experiments/create", {"name": "first"})["experiment_id"]
    run = site.call("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
    site.call("runs/log-parameter", {"run_id": run, "key": "alpha", "value": "0.5"})
    site.call("runs/log-metric", {"run_id": run, "key": "loss", "value": 0.25, "timestamp": 1, "step": 0})
    there = Before(site, experiment, run, what_runs)
    assert site.request("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{there.path}", data=CONTENT).status_code == 200
    site.call("registered-models/create", {"name": "wine"})
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts/model"
    site.call("model-versions/create", {"name": "wine", "source": source, "run_id": run})
    return there


class UpgradeContract:
    def test_a_version_that_fails_its_trial_leaves_the_old_one_serving_without_a_pause(self, before: Before, s3_store: S3Store):
        site = before.site
        same = before.what_runs()
        with writers(before.site, before.experiment) as made:
            failed = site.ask_and_wait(site.upgrade(version=MISLABELLED), "failed", seconds=UPGRADE_SECONDS)
        assert failed.error is not None
        # The guard of a version that is not what it says ends at once: before or after it is seen to run.
        assert failed.error["code"] in {"version_unfit", "box_failed_to_start"}, failed.error
        assert [writer.refused for writer in made] == [[], []], "the server was never away"
        assert_nothing_answered_is_lost(site, made)
        server = site.one()
        assert (server.mlflow_version, server.status, server.previous_version, server.trial_id) == (OLDEST_VERSION, "running", None, None)
        assert before.what_runs() == same
        assert (site.boxes.ids(), site.replaced(), site.previous()) == ([server.id], [], [])
        assert objects_of_the_trial(site, s3_store) == []
        before.assert_it_is_there()

    def test_an_upgrade_under_writers_and_its_roll_back(self, before: Before, s3_store: S3Store):
        site, port = before.site, before.site.one().port
        assert version_of(site) == OLDEST_VERSION
        with writers(before.site, before.experiment) as made:
            done = site.ask_and_wait(site.upgrade(version=MLFLOW_VERSION), seconds=UPGRADE_SECONDS)
        assert {step["state"] for step in done.steps} == {"succeeded"}
        server = site.one()
        assert (server.mlflow_version, server.previous_version, server.port) == (MLFLOW_VERSION, OLDEST_VERSION, port)
        assert version_of(site) == MLFLOW_VERSION
        assert_nothing_answered_is_lost(site, made)
        before.assert_it_is_there()
        assert (site.boxes.ids(), site.replaced(), objects_of_the_trial(site, s3_store)) == ([server.id], [], [])

        site.ask_and_wait(site.ask("rollback"), seconds=UPGRADE_SECONDS)
        assert (version_of(site), site.one().port) == (OLDEST_VERSION, port)
        before.assert_it_is_there()
        for writer in made:
            assert writer.answered[0] in steps_of(site, writer.run), "from before the upgrade"
            assert writer.answered[-1] not in steps_of(site, writer.run), "since the upgrade"
        site.call("runs/log-metric", {"run_id": made[0].run, "key": "after", "value": 1, "timestamp": 1, "step": 0})

        site.ask_and_wait(site.ask("rollback"), seconds=UPGRADE_SECONDS)
        assert version_of(site) == MLFLOW_VERSION
        assert_nothing_answered_is_lost(site, made)
        before.assert_it_is_there()
