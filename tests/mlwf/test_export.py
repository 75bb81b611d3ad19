"""mlwf_export_model against a real box, a real MLflow server and a real S3 store."""

import hashlib
import re
import stat
import subprocess
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.export.api import TrackingApi
from mlwf.export.server_source import ServerSource
from mlwf.transfer.session import tracking_session
from requests.auth import HTTPBasicAuth

from tests.mlwf.exporting import arguments, files_of, info_of, members, nothing_left, run, the_package
from tests.mlwf.tracking import MLMODEL, PlainServer, Tracking
from tests.support.box import PASSWORD, USER, environment
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box

FILES = {
    "MLmodel": MLMODEL,
    "requirements.txt": b"scikit-learn\n",
    "data/weights.bin": bytes(range(256)) * 4096,
    "data/deep/er/empty": b"",
    "data/with space & plus+.txt": "日本".encode(),
}


@pytest.fixture(scope="session")
def wine(tracking: Tracking) -> str:
    tags = {"task": "regression", "evil": "x: [y\n- z: {a", "keywords": "wine, 赤、品質\uff0cquality", "mlflow.internal": "no"}
    return tracking.register("wine", FILES, tags=tags, description="Predicts the quality of red wine: from\n# eleven measurements")


def test_straight_from_the_store(tracking: Tracking, wine: str, tmp_path: Path) -> None:
    done = run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "wine", "--through", "store"), umask=0)
    assert done.returncode == 0, done.stderr
    package = the_package(tmp_path / "w")
    assert done.stdout.strip() == package.name
    assert re.fullmatch(r"MLWFExportModel_\d{14}", package.name)
    assert "straight from the object store" in done.stderr
    assert files_of(package / "artifacts") == FILES == members(package)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [package, *package.rglob("*")] if path.is_dir()}
    assert modes == {0o750}
    assert {stat.S_IMODE(path.stat().st_mode) for path in package.rglob("*") if path.is_file()} == {0o640}


def test_through_the_server_gives_the_same_tarball(tracking: Tracking, wine: str, tmp_path: Path) -> None:
    sums = []
    for way, url in (("server", tracking.url), ("store", tracking.box.url)):
        folder = tmp_path / way
        done = run(folder, tracking.environ, *arguments(url, "wine", "--through", way, "--model-alias", "champion"), umask=0o077)
        assert done.returncode == 0, done.stderr
        sums.append((the_package(folder) / "model.tar.gz").read_bytes())
    assert sums[0] == sums[1]


@pytest.mark.parametrize("way", ["server", "store"])
def test_a_model_that_a_client_of_mlflow_2_registered(tracking: Tracking, tmp_path: Path, way: str) -> None:
    """Its source is the address of the run's folder in the server."""
    run_id = tracking.register(f"two-{way}", FILES, resolved=True)
    version = tracking.box.api("GET", "model-versions/get", params={"name": f"two-{way}", "version": "1"})["model_version"]
    assert version["source"] == f"mlflow-artifacts:/0/{run_id}/artifacts/model"
    done = run(tmp_path / "w", tracking.environ, *arguments(tracking.url, f"two-{way}", "--through", way))
    assert done.returncode == 0, done.stderr
    package = the_package(tmp_path / "w")
    assert members(package) == FILES
    more = info_of(package)["AdditionalInfo"]
    assert all(fact in more for fact in (run_id, "| rmse | 0.78 |")), more


def test_what_mlflow_lists_and_misreads_is_not_left_out(tracking: Tracking, tmp_path: Path) -> None:
    """Of the folder its list has nothing; of the others it says that they are not there."""
    files = {"MLmodel": MLMODEL, "日 %41/deep/x": b"1", "a#b": b"2", "%2e%2e": b"3", "&amp;": b"4"}
    run_id = tracking.register("misread", files)
    done = run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "misread"))
    assert done.returncode == 0, done.stderr
    assert members(the_package(tmp_path / "w")) == files
    api = TrackingApi(tracking.box.url, tracking_session(tracking.box.url, tracking.login))
    for name in files:
        source = ServerSource(api, f"0/{run_id}/artifacts/model/{name}")
        with pytest.raises(MlwfError, match="MLflow misreads") if name != "MLmodel" else nullcontext():
            source.files()
    with pytest.raises(MlwfError, match="MLflow misreads such a name"):
        ServerSource(api, f"0/{run_id}/artifacts/model").files()


def test_the_tarball_is_neutral(tracking: Tracking, wine: str, tmp_path: Path) -> None:
    run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "wine"))
    with tarfile.open(the_package(tmp_path / "w") / "model.tar.gz") as archive:
        entries = archive.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, "", "")}
    assert len({entry.mtime for entry in entries}) == 1
    subprocess.run(["gzip", "-t", the_package(tmp_path / "w") / "model.tar.gz"], check=True)


def test_info_yaml_is_filled(tracking: Tracking, wine: str, tmp_path: Path) -> None:
    run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "wine"))
    package = the_package(tmp_path / "w")
    info = info_of(package)
    tarball = (package / "model.tar.gz").read_bytes()
    assert (info["Name"], info["Version"]) == ("wine", "1")
    assert info["Description"] == "Predicts the quality of red wine: from\n# eleven measurements"
    assert info["Keywords"] == ["evil: x: [y - z: {a", "wine", "赤", "品質", "quality", "task: regression"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", info["DateCreated"])
    assert info["Distribution"]["EncodingFormat"] == "application/gzip"
    more = info["AdditionalInfo"]
    for fact in (
        wine,
        hashlib.sha256(tarball).hexdigest(),
        f"{len(tarball)} bytes",
        "| rmse | 0.78 |",
        "| alpha | 0.5 |",
        "sklearn",
        "alcohol",
    ):
        assert fact in more
    text = (package / "info.yaml").read_text("utf-8")
    assert "One of Email and URL (REQUIRED, still to be filled)" in text


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "There are no AWS credentials"),
        ({"AWS_PROFILE": "nope"}, "The AWS credentials cannot be used: The config profile (nope) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "wrong"}, "the store does not know your key"),
        ({"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "w", "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "refused"),
    ],
)
def test_who_cannot_read_the_bucket_goes_through_the_server(
    tracking: Tracking, wine: str, tmp_path: Path, keys: dict[str, str], why: str
) -> None:
    environ = {**tracking.login, **keys}
    done = run(tmp_path / "w", environ, *arguments(tracking.url, "wine"))
    assert done.returncode == 0, done.stderr
    assert "through the tracking server" in done.stderr
    assert why in done.stderr
    assert members(the_package(tmp_path / "w")) == FILES
    only = run(tmp_path / "s", environ, *arguments(tracking.url, "wine", "--through", "store"))
    assert only.returncode == 1
    assert why in only.stderr
    assert nothing_left(tmp_path / "s")


def test_who_may_list_the_bucket_but_not_read_goes_through_the_server(
    tracking: Tracking, s3_store: S3Store, wine: str, tmp_path: Path
) -> None:
    """Found before anything is fetched: the list alone looks as if all were well."""
    lister = s3_store.lister
    environ = {**tracking.login, "AWS_ACCESS_KEY_ID": lister.access_key, "AWS_SECRET_ACCESS_KEY": lister.secret_key}
    settings, model = tracking.box.settings, f"{tracking.box.settings['prefix']}/0/{wine}/artifacts/model/"
    listed = s3_store.client(lister).list_objects_v2(Bucket=settings["bucket"], Prefix=model)
    assert {each["Key"].removeprefix(model) for each in listed["Contents"]} == {*FILES}, "this key lists"
    done = run(tmp_path / "w", environ, *arguments(tracking.url, "wine"))
    assert done.returncode == 0, done.stderr
    assert "through the tracking server" in done.stderr
    assert "your key may not read it" in done.stderr
    assert members(the_package(tmp_path / "w")) == FILES
    only = run(tmp_path / "s", environ, *arguments(tracking.url, "wine", "--through", "store"))
    assert (only.returncode, only.stdout) == (1, "")
    place = f"s3://{settings['bucket']}/{model.rstrip('/')}"
    assert f"{place} cannot be read: your key may not read it" in only.stderr
    assert "ask the bucket's owner for s3:ListBucket and s3:GetObject there" in only.stderr
    assert nothing_left(tmp_path / "s")


@pytest.mark.parametrize(("written", "meant"), [("50%%", "50%"), ("50%", "50%"), ("%%%%(x)s", "%%(x)s"), ("%(x)s", "%(x)s")])
def test_the_credentials_file_is_read_as_mlflow_reads_it(tmp_path: Path, written: str, meant: str) -> None:
    """To MLflow two % are one, and a single one is a fault of the file."""
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(f"[mlflow]\nmlflow_tracking_username = a%%b\nmlflow_tracking_password = {written}\n")
    auth = tracking_session("http://x", {"HOME": str(tmp_path)}).auth
    assert auth == HTTPBasicAuth(b"a%b", meant.encode())


def test_credentials_file_of_mlflow(tracking: Tracking, wine: str, tmp_path: Path) -> None:
    place = tmp_path / "w" / ".mlflow"
    place.mkdir(parents=True)
    (place / "credentials").write_text(f"[mlflow]\nmlflow_tracking_username = {USER}\nmlflow_tracking_password = {PASSWORD}\n")
    assert run(tmp_path / "w", {}, *arguments(tracking.url, "wine")).returncode == 0


@pytest.mark.usefixtures("wine")
@pytest.mark.parametrize(
    "case",
    [
        ("wine", ("--model-version", "9"), {}, 1, "has no version 9. Choose one that it has: 1, @champion."),
        ("wine", ("--model-alias", "best"), {}, 1, "has no version @best"),
        ("vine", (), {}, 1, "There is no registered model vine. Choose one that exists: "),
        ("wine", (), {"MLFLOW_TRACKING_PASSWORD": "wrong"}, 1, "the user name or the password is missing or wrong"),
        ("wine", ("--model-version", "champion"), {}, 2, "--model-alias"),
        ("wine", ("--model-registry-url", "http://me:pw@127.0.0.1/"), {}, 2, "Set MLFLOW_TRACKING_USERNAME"),
        ("wine", ("--model-registry-url", "127.0.0.1:5000"), {}, 2, "not an http or https URL"),
        ("wine", ("--model-registry-url", "http://127.0.0.1:9/mlflow"), {}, 1, "gives no answer: Connection refused"),
        ("wine", ("--output-dir", "/proc"), {}, 1, "No folder can be made in /proc"),
    ],
)
def test_failures_say_the_cure(tracking: Tracking, tmp_path: Path, case: tuple[str, tuple[str, ...], dict[str, str], int, str]) -> None:
    name, more, environ, status, words = case
    done = run(tmp_path / "w", {**tracking.environ, **environ}, *arguments(tracking.url, name, *more))
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    assert nothing_left(tmp_path / "w")


def test_stacktrace_adds_the_traceback(tracking: Tracking, tmp_path: Path) -> None:
    done = run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "vine", "--stacktrace"))
    assert "Traceback (most recent call last)" in done.stderr
    assert PASSWORD not in done.stderr


LOG_MODEL = """
import mlflow, sys
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.25)
    made = mlflow.pyfunc.log_model(name="model", python_model=Echo(), pip_requirements=["mlflow"], registered_model_name="echo")
client = mlflow.MlflowClient()
client.create_registered_model("again")
client.create_model_version("again", f"runs:/{run.info.run_id}/model", run.info.run_id)
print(made.model_id)
"""


@pytest.fixture(scope="session")
def logged_model_id(plain_server: PlainServer) -> str:
    """A model that MLflow 3's own client logged to MLflow's own server, registered by the client and once more as runs:/."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(plain_server.home), "MLFLOW_TRACKING_URI": plain_server.url}
    script = [environment() / "bin" / "python", "-W", "ignore", "-c", LOG_MODEL]
    done = subprocess.run(script, env=env, cwd=plain_server.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("m-"))


@pytest.mark.parametrize("name", ["echo", "again"])
def test_a_logged_model_of_mlflow_3_from_a_server_that_is_not_ours(
    plain_server: PlainServer, logged_model_id: str, tmp_path: Path, name: str
) -> None:
    done = run(tmp_path / "w", {}, *arguments(plain_server.url, name))
    assert done.returncode == 0, done.stderr
    package = the_package(tmp_path / "w")
    assert {"MLmodel", "requirements.txt", "python_model.pkl"} <= set(members(package))
    info = info_of(package)
    assert "| loss | 0.25 |" in info["AdditionalInfo"]
    if name == "echo":
        assert logged_model_id in info["AdditionalInfo"]
    assert '"type": "string"' in info["AdditionalInfo"]
