"""`mlwf job`: a request is checked whoever wrote it, and its way is told in a file that may be shown to everybody."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from mlwf.errors import MlwfError, WrongUseError
from mlwf.export.run import Wanted
from mlwf.job.follow import follow
from mlwf.job.progress import Progress
from mlwf.job.request import RULES, JobRequest, read_request
from mlwf.transfer.session import tracking_session

from tests.mlwf.fake_service import FakeService
from tests.mlwf.tracking import Tracking
from tests.support.box import PASSWORD, USER, until

Run = Callable[..., int]
SERVER = {"task": "server", "group_name": "gaa50000", "env_name": "wine", "at_end": "stop", "hours": "2"}
IMAGE = {"task": "image", "model_package": "/m.tar.gz", "base_container_url": "docker://x"}
SECRET = "s3cr3t-of-the-profile"


def write(folder: Path, **fields: str) -> str:
    path = folder / "request.json"
    path.write_text(json.dumps(fields))
    return str(path)


def progress_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "progress.json").read_text())
    return found


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task": "delete"}, "task"),
        ({"group_name": "../x"}, "group_name"),
        ({"env_name": "Wine"}, "env_name"),
        ({"env_name": "wine\n"}, "env_name"),
        ({"env_name": "$(id)"}, "env_name"),
        ({"at_end": "delete"}, "at_end"),
        ({"hours": "-1"}, "hours"),
        ({"hours": "1e3"}, "hours"),
        ({"cloud_storage_bucket_name": "a b"}, "cloud_storage_bucket_name"),
        ({"profile": "a\nb"}, "profile"),
        ({"task": "export", "model_name": "m", "model_version": "latest"}, "model_version"),
        ({"task": "export", "model_name": "", "model_version": "1"}, "model_name"),
        ({"task": "image", "model_package": "m.tar.gz", "base_container_url": "docker://x"}, "model_package"),
        ({"task": "image", "model_package": "/m.tar.gz", "base_container_url": "docker://x y"}, "base_container_url"),
        ({"task": "image", "model_package": "/m.tar.gz", "base_container_url": "--help"}, "base_container_url"),
        ({**IMAGE, "model_package": "http://host/model.tar.gz"}, "model_package"),
        ({**IMAGE, "model_package": "https://user:word@host/model.tar.gz"}, "model_package"),
        ({**IMAGE, "model_package": "s3://bucket"}, "model_package"),
        ({**IMAGE, "model_package": "s3://bucket/folder/"}, "model_package"),
        ({**IMAGE, "model_package": "models:/wine"}, "model_package"),
        ({**IMAGE, "model_package": "models:/wine/1", "group_name": ""}, "group_name"),
        ({**IMAGE, "base_container_url": "docker://Not/A:name:at:all"}, "docker://Not"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_a_request_that_cannot_be_meant_names_its_field(change: dict[str, str], field: str) -> None:
    with pytest.raises(WrongUseError, match=field):
        JobRequest.from_json({**SERVER, **change})


BASES = ["docker://x", "docker-daemon:python:3.11", "docker-daemon:localhost:5000/x:1", "docker-archive:/a.tar", "oci:/a:b", "/a.sif"]


@pytest.mark.parametrize("base", BASES)
def test_every_base_image_that_a_job_can_find(base: str) -> None:
    asked = {"task": "image", "model_package": "/m.tar.gz", "base_container_url": base}
    assert JobRequest.from_json(asked).base_container_url == base


PACKAGES = ["s3://b/model.tar.gz", "https://h/m.tar.gz?a=b@c", "https://h:8/m", "/m.tar.gz", "models:/wine/1", "models:/my wine@ab@best"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_that_the_command_takes_without_more_options(package: str) -> None:
    assert JobRequest.from_json({**SERVER, **IMAGE, "model_package": package}).model_package == package


@pytest.mark.parametrize("base", ["docker:x", "docker-archive:a.tar", "oci:a:b", "docker-daemon:", "http://x", "a.sif"])
def test_no_base_image_of_the_folder_where_somebody_was(base: str) -> None:
    with pytest.raises(WrongUseError, match="base_container_url"):
        JobRequest.from_json({"task": "image", "model_package": "/m.tar.gz", "base_container_url": base})


@given(name=st.sampled_from(sorted(RULES)), value=st.text())
def test_whatever_a_field_holds_it_is_refused_or_one_line(name: str, value: str) -> None:
    try:
        found = JobRequest.from_json({**SERVER, name: value})
    except WrongUseError:
        return
    assert getattr(found, name) == value
    assert "\n" not in value
    assert "\x00" not in value


def test_a_request_file_is_one_object_of_small_size(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    for text in ("", "[]", "{}", '{"task": 1}', "{" + " " * 70_000 + "}"):
        path.write_text(text)
        with pytest.raises(WrongUseError):
            read_request(path)
    with pytest.raises(WrongUseError, match="none"):
        read_request(tmp_path / "none")


def test_a_session_creates_what_is_missing_and_holds_it_until_it_is_ended(service: FakeService, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"[wine]\naws_access_key_id=AKIAEXAMPLE\naws_secret_access_key={SECRET}\n")
    request = write(tmp_path, **SERVER, cloud_storage_bucket_name="wine-models", profile="wine")
    program = "from mlwf.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "job", request, "--progress", str(tmp_path / "progress.json"), "--note", "job 17"]
    environment = {**os.environ, "MLWF_SERVICE": service.address, "AWS_SHARED_CREDENTIALS_FILE": str(keys)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: "hold" in (tmp_path / "progress.json").read_text() if (tmp_path / "progress.json").exists() else False)
        (lease,) = service.servers["gaa50000/wine"]["leases"]
        assert (lease["at_end"], lease["note"]) == ("stop", "job 17")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    told = progress_of(tmp_path)
    assert [(step["name"], step["state"]) for step in told["steps"]] == [
        ("find", "succeeded"),
        ("create", "succeeded"),
        ("start", "succeeded"),
        ("hold", "succeeded"),
    ]
    assert told["state"] == "succeeded"
    assert told["server"]["inside_url"] == "http://mlflow01:21000/mlflow/"
    assert SECRET not in json.dumps(told)
    assert (tmp_path / "progress.json").stat().st_mode & 0o777 == 0o600
    assert service.servers["gaa50000/wine"]["leases"] == []


def test_a_session_without_a_bucket_does_not_create(service: FakeService, mlwf: Run, tmp_path: Path) -> None:
    assert mlwf("job", write(tmp_path, **SERVER), "--progress", str(tmp_path / "progress.json")) == 2
    told = progress_of(tmp_path)
    assert (told["state"], told["error"]["detail"]) == ("failed", "There is no server gaa50000/wine yet")
    assert [method for method, *_rest in service.requests] == ["GET"]


def test_an_export_is_told_with_its_bytes(service: FakeService, mlwf: Run, tracking: Tracking, tmp_path: Path) -> None:
    server = service.add("gaa50000", "wine")
    server["inside_url"] = f"{tracking.box.url}/"
    auth = Path(server["auth_file"])
    auth.parent.mkdir(parents=True)
    auth.write_text(f"{{'user_name': '{USER}', 'pass': '{PASSWORD}'}}")
    auth.chmod(0o600)
    tracking.register("job-model", {"MLmodel": b"flavors: {}\n", "data.bin": b"x" * 5000})
    request = write(
        tmp_path,
        task="export",
        group_name="gaa50000",
        env_name="wine",
        model_name="job-model",
        model_version="1",
        output_dir=str(tmp_path / "out"),
    )
    assert mlwf("job", request, "--progress", str(tmp_path / "progress.json")) == 0
    told = progress_of(tmp_path)
    assert told["bytes"] == told["total"] == 5012
    assert (Path(told["result"]) / "model.tar.gz").exists()
    assert PASSWORD not in json.dumps(told)
    assert server["leases"] == []


def test_a_failure_is_told_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with pytest.raises(MlwfError), Progress(path, "image", warn=pytest.fail) as progress, progress.step("one", "One"):
        raise MlwfError("It broke", "for a reason", "Mend it.")
    told = progress_of(tmp_path)
    assert told["error"] == {"detail": "It broke: for a reason", "cure": "Mend it."}
    assert told["steps"][0]["state"] == "failed"


def full(folder: Path) -> Path:
    """Makes writing the progress file fail as on a full disk, until the link that it answers is gone."""
    link = folder / ".progress.json.part"
    link.symlink_to("/dev/full")
    return link


def test_a_progress_file_that_cannot_be_written_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlwf.job.progress.BEAT_SECONDS", 0.01)
    monkeypatch.setattr("mlwf.job.progress.QUIET_SECONDS", 0.0)
    link, warnings = full(tmp_path), list[str]()
    with Progress(tmp_path / "progress.json", "export", warn=warnings.append) as progress:
        with progress.step("one", "One"):
            progress.detail("word")
            progress.tell(total=3)
            progress.arrived(3)
        assert [each for each in warnings if "No space left" in each and str(tmp_path / "progress.json") in each] == warnings
        assert len(warnings) == 1
        assert not (tmp_path / "progress.json").exists()
        link.unlink()
        until((tmp_path / "progress.json").exists, what="the next beat")
        assert progress_of(tmp_path)["bytes"] == 3
    assert progress_of(tmp_path)["state"] == "succeeded"
    assert len(warnings) == 1


def test_a_session_whose_home_is_full_is_held_to_its_end(service: FakeService, tmp_path: Path) -> None:
    full(tmp_path)
    service.add("gaa50000", "wine")
    argv = [sys.executable, "-c", "from mlwf.cli.main import main; main()", "job", write(tmp_path, **SERVER)]
    argv += ["--progress", str(tmp_path / "progress.json")]
    with (
        Path("/dev/full").open("wb") as output,
        subprocess.Popen(argv, env={**os.environ, "MLWF_SERVICE": service.address}, stdout=output, stderr=output) as process,
    ):
        # It asks for the server, takes the lease, and looks at the server again: from then on it holds it.
        until(lambda: [method for method, *_rest in service.requests] == ["GET", "PUT", "GET"], what="the session's lease")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in {0, 128 + signal.SIGTERM}
    assert service.servers["gaa50000/wine"]["leases"] == []


def test_an_image_is_made_to_its_end_where_the_jobs_output_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(tmp_path)
    program = """import json, sys
for told in ("pip says", '{"state": "begins", "step": "lock"}'): print(told, file=sys.stderr)
print(json.dumps({"folder": "/made"}))"""

    def refuses(_text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=refuses))
    with Progress(tmp_path / "progress.json", "image", warn=lambda _text: None) as progress, progress.step("image", "Create the image"):
        assert follow([sys.executable, "-c", program], os.environ, progress) == {"folder": "/made"}


def test_an_image_is_told_with_the_bytes_of_its_step(tmp_path: Path) -> None:
    program = """import json, sys, time
from pathlib import Path
def tell(wanted, **line):
    print(json.dumps({"step": "pack", **line}), file=sys.stderr, flush=True)
    end = time.monotonic() + 30
    while [json.loads(Path(sys.argv[1]).read_text()).get(name) for name in ("bytes", "total")] != wanted:
        assert time.monotonic() < end
        time.sleep(0.01)
tell([None, 9], state="begins", total=9)
tell([4, 9], state="grows", bytes=4, total=9)
tell([None, None], state="ends", seconds=1.5)
print("{}")"""
    path = tmp_path / "progress.json"
    with Progress(path, "image", warn=pytest.fail) as progress, progress.step("image", "Create the image"):
        assert follow([sys.executable, "-c", program, str(path)], os.environ, progress) == {}


STARTING = """
import os, signal, sys
from pathlib import Path
from mlwf.ending import Terminated, raise_on_terminate
from mlwf.job.follow import follow
from mlwf.job.progress import Progress

def profile(_frame, event, function):
    if event == "c_return" and function.__name__ == "fork_exec":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGTERM)

raise_on_terminate()
with Progress(None, "image", warn=print) as progress, progress.step("image", "Create the image"):
    sys.setprofile(profile)
    try:
        follow(["sleep", "600"], os.environ, progress)
    except Terminated:
        left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for each in left:
            os.kill(int(each), signal.SIGKILL)
        print("left:", *left)
"""


def test_a_job_that_is_ended_while_it_starts_the_build_leaves_none() -> None:
    argv = [sys.executable, "-c", STARTING]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout == "left:\n"


def test_a_warning_of_an_image_stands_in_the_jobs_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = """import json, sys
print('{"state": "warns", "text": "no openjdk"}', file=sys.stderr)
print(json.dumps({"folder": "/made"}))"""
    with Progress(tmp_path / "progress.json", "image", warn=lambda _text: None) as progress, progress.step("image", "Create the image"):
        assert follow([sys.executable, "-c", program], os.environ, progress) == {"folder": "/made"}
    assert capsys.readouterr().err == "no openjdk\n"


def test_without_registered_users_an_export_has_a_token_of_its_own(
    service: FakeService, mlwf: Run, tracking: Tracking, tmp_path: Path
) -> None:
    service.add("gaa50000", "wine")["inside_url"] = f"{tracking.box.url}/"
    request = write(tmp_path, task="export", group_name="gaa50000", env_name="wine", model_name="m", model_version="1")
    assert mlwf("job", request, "--progress", str(tmp_path / "progress.json")) == 1, "the box does not know the fake service's tokens"
    (token,) = service.tokens
    assert (token["name"], token["state"]) == ("mlwf job", "revoked")
    assert progress_of(tmp_path)["error"]["cure"]


@pytest.mark.parametrize("registered", [True, False])
def test_an_export_logs_in_as_the_job_and_not_as_the_shell(
    registered: bool, service: FakeService, mlwf: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the user's shell and credentials file hold, which may be for another server."""
    auth = Path(service.add("gaa50000", "wine")["auth_file"])
    if registered:
        auth.parent.mkdir(parents=True)
        auth.write_text("{'user_name': 'group', 'pass': 'right'}")
    stored = Path(os.environ["HOME"]) / ".mlflow" / "credentials"
    stored.parent.mkdir()
    stored.write_text("[mlflow]\nmlflow_tracking_username = other\nmlflow_tracking_password = wrong\n")
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "wrong")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "https://the-sites-store")
    sent: list[str] = []

    def export(wanted: Wanted, environ: Mapping[str, str], _report: object) -> None:
        assert environ["MLFLOW_S3_ENDPOINT_URL"] == "https://s3", "the server's own store, whatever the site exports"
        request = tracking_session(wanted.url, environ).prepare_request(requests.Request("GET", wanted.url))
        sent.append(request.headers["Authorization"])
        raise MlwfError("Enough")

    monkeypatch.setattr("mlwf.job.tasks.export", export)
    request = write(tmp_path, task="export", group_name="gaa50000", env_name="wine", model_name="m", model_version="1")
    assert mlwf("job", request) == 1
    assert sent == ["Basic Z3JvdXA6cmlnaHQ=" if registered else "Bearer aihub_token0000000_text"]


def test_an_export_is_done_though_the_service_is_away_at_its_end(
    service: FakeService, mlwf: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its token ends by itself; it was told as a failure, beside the whole folder."""
    service.add("gaa50000", "wine")

    def export(*_asked: object) -> SimpleNamespace:
        service.refuse = (503, {"code": "directory_failed", "detail": "NSS is away", "cure": "Wait."})
        return SimpleNamespace(folder=tmp_path / "made")

    monkeypatch.setattr("mlwf.job.tasks.export", export)
    request = write(tmp_path, task="export", group_name="gaa50000", env_name="wine", model_name="m", model_version="1")
    assert mlwf("job", request, "--progress", str(tmp_path / "progress.json")) == 0
    assert (progress_of(tmp_path)["state"], progress_of(tmp_path)["result"]) == ("succeeded", str(tmp_path / "made"))
    assert "could not be revoked (NSS is away. Wait.); it ends within a day" in capsys.readouterr().err


def test_an_images_package_comes_from_the_store_of_the_server_that_was_chosen(
    service: FakeService, mlwf: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.add("gaa50000", "wine")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "https://the-sites-store")
    asked: list[str] = []

    def follow(_argv: list[str], environ: Mapping[str, str], _progress: Progress) -> dict[str, Any]:
        asked.append(environ["MLFLOW_S3_ENDPOINT_URL"])
        return {"folder": "/made"}

    monkeypatch.setattr("mlwf.job.tasks.follow", follow)
    for fields in (
        {"group_name": "gaa50000", "env_name": "wine", "model_package": "s3://b/model.tar.gz"},
        {"model_package": "s3://b/model.tar.gz"},
        {"group_name": "gaa50000", "env_name": "gone", "model_package": "/here/model.tar.gz"},
    ):
        request = write(tmp_path, task="image", base_container_url="docker://x", output_dir=str(tmp_path), **fields)
        assert mlwf("job", request) == 0
    assert asked == ["https://s3", "https://the-sites-store", "https://the-sites-store"]


def test_an_image_of_a_registered_model_holds_its_server_and_logs_in_as_an_export_does(
    service: FakeService, mlwf: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = service.add("gaa50000", "wine")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of another server")
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_S3_ENDPOINT_URL")
    asked: list[Any] = []

    def follow(argv: list[str], environ: Mapping[str, str], _progress: Progress) -> dict[str, Any]:
        asked.extend([argv[argv.index("--model-pkg-url") + 1], *(environ.get(name) for name in names), len(server["leases"])])
        return {"folder": "/made"}

    monkeypatch.setattr("mlwf.job.tasks.follow", follow)
    fields = {**IMAGE, "group_name": "gaa50000", "env_name": "wine", "model_package": "models:/m/1", "output_dir": str(tmp_path)}
    assert mlwf("job", write(tmp_path, **fields)) == 0
    assert asked == ["models:/m/1", server["inside_url"], "aihub_token0000000_text", None, "https://s3", 1]
    assert server["leases"] == []
    assert [token["state"] for token in service.tokens] == ["revoked"]
