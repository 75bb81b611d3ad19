"""The oldest and the newest server version of tracking_server/versions, by their own clients; an old client; and artifacts that go from the
client to the object store itself.
"""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.mlwf.exporting import arguments, members, run, the_package
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, ROOT, Box, environment, make_box, until, version_of
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box
VERSIONS = ROOT / "tracking_server" / "versions"
OLD_CLIENT = "2.14.3"
# What a training job does. `predict` differs between the versions' own type hints, so it has none.
CLIENT = """
import json, sys
import mlflow, mlflow.pyfunc
from mlflow import MlflowClient
class Add(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_params({"rate": 0.1})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.set_tag("kind", "test")
    mlflow.log_text("some text", "notes/note.txt")
    mlflow.pyfunc.log_model("model", python_model=Add(), registered_model_name=sys.argv[1], pip_requirements=[])
client = MlflowClient()
runs = client.search_runs([run.info.experiment_id], "metrics.loss < 0.1 and params.rate = '0.1' and tags.kind = 'test'")
found = {
    "runs": [each.info.run_id == run.info.run_id for each in runs],
    "history": len(client.get_metric_history(run.info.run_id, "loss")),
    "artifacts": [each.path for each in client.list_artifacts(run.info.run_id, "notes")],
    "text": mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/note.txt"),
    "version": client.get_model_version(sys.argv[1], "1").status,
    "model": mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}/1").metadata.run_id == run.info.run_id,
}
print("found=" + json.dumps(found))
"""
FOUND = {
    "runs": [True], "history": 20, "artifacts": ["notes/note.txt"], "text": "some text", "version": "READY", "model": True,
}  # fmt: skip


def use(box: Box, python: Path, name: str, **more: str) -> dict[str, Any]:
    """What a client in that environment found after it did its work; `more`: variables of its job."""
    variables = {
        "MLFLOW_TRACKING_URI": box.url,
        "MLFLOW_TRACKING_USERNAME": box.auth[0],
        "MLFLOW_TRACKING_PASSWORD": box.auth[1],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PATH": "/usr/bin:/bin",
        "HOME": str(box.home),
        **more,
    }
    done = subprocess.run(
        [python, "-c", CLIENT, name], env=variables, cwd=box.home, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{box.last_words()}"
    line = next(line for line in done.stdout.splitlines() if line.startswith("found="))
    found: dict[str, Any] = json.loads(line.removeprefix("found="))
    return found


@pytest.fixture(scope="module", params=[pytest.param(version, marks=pytest.mark.heavy) for version in (OLDEST_VERSION, MLFLOW_VERSION)])
def versioned(request: pytest.FixtureRequest, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Box]:
    """A running box of that version, with a real object store."""
    box = make_box(environment(request.param), idle_seconds=2, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    box.wait_state("awake")
    yield box
    box.remove()


def test_those_are_the_oldest_and_the_newest() -> None:
    known = sorted((tuple(map(int, folder.name.split("."))), folder.name) for folder in VERSIONS.iterdir())
    assert [known[0][1], known[-1][1]] == [OLDEST_VERSION, MLFLOW_VERSION]


def test_its_own_client_does_a_jobs_work(versioned: Box) -> None:
    name = f"own-{version_of(versioned.environment)}"
    assert use(versioned, versioned.environment / "bin" / "python", name) == FOUND


def test_it_sleeps_and_wakes_and_knows_its_version(versioned: Box) -> None:
    versioned.wait_state("asleep")
    assert versioned.request("GET", "/version").text == version_of(versioned.environment)
    assert versioned.api("GET", "experiments/search", params={"max_results": 1})["experiments"]
    page = versioned.request("GET", "/")
    assert page.status_code == 200
    assert "static-files/" in page.text


def test_its_log_says_of_every_line_which_request_it_is_about(versioned: Box) -> None:
    given = f"walk-{version_of(versioned.environment)}"
    answer = versioned.request("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1}, headers={"X-Request-ID": given})
    assert answer.headers["X-Request-Id"] == given
    log = versioned.home / "log" / "mlflow.log"
    line = until(
        lambda: next((line for line in log.read_text().splitlines() if line.endswith(f" ms request={given}")), None), what="its line"
    )
    assert " INFO request: POST /mlflow/api/2.0/mlflow/experiments/search 200 " in line
    others = [line for line in log.read_text().splitlines() if line[:2] == "20" and " INFO request: " not in line]
    assert all(line.split()[0].endswith("Z") for line in others), others  # one shape, whoever said it


def test_hosts_origins_and_locations_of_others_are_refused(versioned: Box) -> None:
    search = "/api/2.0/mlflow/experiments/search"
    assert versioned.request("GET", "/", headers={"Host": "evil.example"}).status_code == 403
    for origin, status in (("https://evil.example", 403), (versioned.origin, 200)):
        assert versioned.request("POST", search, json={"max_results": 1}, headers={"Origin": origin}).status_code == status
    foreign = {"name": "foreign", "artifact_location": "s3://other/x"}
    answer = versioned.request("POST", "/api/2.0/mlflow/experiments/create", json=foreign)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    run = versioned.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    with closing(sqlite3.connect(versioned.home / "data" / "mlflow.db", timeout=30)) as database, database:
        database.execute("update runs set artifact_uri = 's3://other/x' where run_uuid = ?", (run,))
    answer = versioned.request("GET", "/get-artifact", params={"run_id": run, "path": "x"})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_file_that_is_sent_lies_where_it_is_counted_until_it_was_taken(versioned: Box, s3_store: S3Store) -> None:
    run = versioned.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    key = f"{versioned.settings['prefix']}/0/{run}/artifacts/big"
    s3_store.client().put_object(Bucket=versioned.settings["bucket"], Key=key, Body=bytes(64 * 1024**2))

    def spooled() -> list[int]:
        return [each.stat().st_size for each in (versioned.home / "tmp").rglob("big")]

    with versioned.request("GET", "/get-artifact", params={"run_id": run, "path": "big"}, stream=True) as answer:
        assert answer.raw.read(1)
        assert spooled() == [64 * 1024**2]
    until(lambda: not spooled(), seconds=20, what="an empty tmp/")


@pytest.fixture(scope="module")
def old_client() -> Path:
    """The interpreter of an environment with the old client, made of its lock."""
    place = ROOT / "var" / "envs" / f"client-{OLD_CLIENT}"
    uv, lock = ROOT / ".venv" / "bin" / "uv", Path(__file__).with_name("client-2.14.3.lock")
    subprocess.run([uv, "venv", "--quiet", "--no-project", "--allow-existing", "--python", "3.11", place], check=True)
    python = place / "bin" / "python"
    subprocess.run([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, lock], check=True)
    return python


def test_an_old_client_does_its_work_on_every_server(versioned: Box, old_client: Path, s3_store: S3Store, tmp_path: Path) -> None:
    """Then its model is exported, whose source is not what today's client makes of it."""
    name = f"old-{version_of(versioned.environment)}"
    assert use(versioned, old_client, name) == FOUND
    source = versioned.api("GET", "model-versions/get", params={"name": name, "version": "1"})["model_version"]["source"]
    assert source.startswith("mlflow-artifacts:/")
    assert {"MLmodel", "python_model.pkl"} <= {*exported(versioned, s3_store, name, tmp_path)}


@pytest.fixture(scope="module")
def direct(box_environment: Path, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Box]:
    """A box whose clients go to the object store themselves. It has no good key of its own: nothing can go through it unnoticed."""
    box = make_box(box_environment, artifact_access="direct", **store_settings | {"bucket": s3_store.make_bucket()})
    box.start()
    yield box
    box.remove()


@pytest.fixture(scope="module")
def jobs_keys(s3_store: S3Store) -> dict[str, str]:
    """What a job sets besides the login, as in the walk-through."""
    owner = s3_store.owner
    keys = {"AWS_ACCESS_KEY_ID": owner.access_key, "AWS_SECRET_ACCESS_KEY": owner.secret_key}
    return {"MLFLOW_S3_ENDPOINT_URL": s3_store.endpoint_url, **keys}


def test_a_client_that_goes_to_the_object_store_itself(direct: Box, jobs_keys: dict[str, str], s3_store: S3Store, tmp_path: Path) -> None:
    """Run, artifacts and model by plain mlflow; then the model's export, straight, which needs the login and a key that reads."""
    assert use(direct, direct.environment / "bin" / "python", "straight", **jobs_keys) == FOUND
    assert {*written(direct, s3_store)} >= {"note.txt", "MLmodel", "python_model.pkl"}
    reader = {"AWS_ACCESS_KEY_ID": s3_store.reader.access_key, "AWS_SECRET_ACCESS_KEY": s3_store.reader.secret_key}
    environ = {"MLFLOW_TRACKING_USERNAME": direct.auth[0], "MLFLOW_TRACKING_PASSWORD": direct.auth[1], **reader}
    done = run(tmp_path / "exported", environ, *arguments(direct.url, "straight"))
    assert done.returncode == 0, done.stderr
    assert "straight from the object store" in done.stderr
    packed = members(the_package(tmp_path / "exported"))
    assert packed["MLmodel"] == written(direct, s3_store)["MLmodel"]
    # Somebody without a key of his own that reads there: through the server, once that has one.
    no_keys = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
    refused = run(tmp_path / "refused", no_keys, *arguments(direct.url, "straight"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "The object store refuses the server's key" in refused.stderr
    direct.stop()
    direct.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    direct.start()
    through = run(tmp_path / "through", no_keys, *arguments(direct.url, "straight"))
    assert through.returncode == 0, through.stderr
    assert "through the tracking server" in through.stderr
    assert members(the_package(tmp_path / "through")) == packed


@pytest.mark.heavy
def test_an_old_client_goes_to_the_object_store_itself_too(
    direct: Box, old_client: Path, jobs_keys: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    assert use(direct, old_client, "old-straight", **jobs_keys) == FOUND
    assert {"MLmodel", "python_model.pkl"} <= {*exported(direct, s3_store, "old-straight", tmp_path)}


def exported(box: Box, store: S3Store, name: str, folder: Path) -> dict[str, bytes]:
    """What is in the package of that model's first version, which is read straight from the store."""
    keys = {"AWS_ACCESS_KEY_ID": store.reader.access_key, "AWS_SECRET_ACCESS_KEY": store.reader.secret_key}
    environ = {"MLFLOW_TRACKING_USERNAME": box.auth[0], "MLFLOW_TRACKING_PASSWORD": box.auth[1], **keys}
    done = run(folder / "exported", environ, *arguments(box.url, name, "--through", "store"))
    assert done.returncode == 0, done.stderr
    return members(the_package(folder / "exported"))


def written(box: Box, store: S3Store) -> dict[str, bytes]:
    """The objects under the box's prefix, by their last names."""
    client, bucket = store.client(), box.settings["bucket"]
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{box.settings['prefix']}/")["Contents"]
    return {each["Key"].rpartition("/")[2]: client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in found}
