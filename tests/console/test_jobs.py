"""Export model and Create image on the console's own host: started as the caller, told as requests are, gone when they are old."""

import datetime as dt
import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from ood_app import jobs
from ood_app.settings import Settings, load
from tests.console.conftest import Caller, Opener
from tests.console.fake_service import FakeService
from tests.console.form import row, tab_to
from tests.console.reading import left_in_english
from tests.support.box import until

IMAGE = {"task": "image", "model_package": "/no/such/model.tar.gz", "base_container_url": "docker-archive:/no/such.tar"}


@pytest.fixture
def settings(service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOME", str(tmp_path))
    return load({"MLWF_SERVICE": f"unix://{service.socket}", "SECRET_KEY_BASE": "k" * 64, "AIHUB_CONSOLE_LOCAL_JOBS": "true"})


def state_of(caller: Caller, job: str) -> dict[str, Any] | None:
    operations: list[dict[str, Any]] = caller.get(f"/api/state?op={job}").json["operations"]
    return next((each for each in operations if each["id"] == job), None)


def finished(caller: Caller, job: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (one := state_of(caller, job)) and one["state"] != "running" and one, what="the job's end")
    return found


def test_a_job_runs_as_the_caller_and_its_failure_has_what_why_and_cure(caller: Caller, tmp_path: Path) -> None:
    answer = caller.send("POST", "/jobs", IMAGE)
    assert answer.status_code == 202, answer.text
    job = answer.json["id"]
    folder = tmp_path / ".local/state/aihub/jobs" / job
    assert folder.stat().st_mode & 0o777 == 0o700
    found = finished(caller, job)
    assert (found["kind"], found["state"], found["steps"][0]["state"]) == ("image", "failed", "failed")
    # this machine may have no container tool; the model package of IMAGE is nowhere
    assert found["error"]["detail"].startswith("There is no ")
    assert found["error"]["cure"]
    assert "k" * 64 not in (folder / "output.log").read_text()


def test_a_job_takes_its_own_packages(caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a PYTHONPATH of the console's host names: an environment module's click, of another Python."""
    (tmp_path / "click.py").write_text("raise SystemExit('this is another click')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = finished(caller, caller.send("POST", "/jobs", IMAGE).json["id"])
    assert found["error"]["detail"].startswith("There is no ")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_package": "model.tar.gz"}, "model_package"),
        ({"model_package": ""}, "model_package"),
        ({"base_container_url": "--help"}, "base_container_url"),
        ({"output_dir": "../x"}, "output_dir"),
        ({"task": "export", "model_name": "m", "model_version": "1"}, "group_name"),
    ],
)
def test_what_cannot_be_meant_is_said_beside_its_field(caller: Caller, change: dict[str, str], field: str, tmp_path: Path) -> None:
    answer = caller.send("POST", "/jobs", {**IMAGE, **change})
    assert (answer.status_code, field in answer.json["fields"]) == (422, True)
    assert not (tmp_path / ".local").exists()


def test_a_server_session_is_no_job_of_the_console(caller: Caller) -> None:
    assert caller.send("POST", "/jobs", {"task": "server"}).json["code"] == "not_valid"


def test_without_the_setting_nothing_is_started(service: FakeService) -> None:
    from ood_app.app import create_app

    client = create_app(load({"MLWF_SERVICE": f"unix://{service.socket}", "SECRET_KEY_BASE": "k" * 64})).test_client()
    token = client.get("/").get_data(as_text=True).split('name="csrf-token" content="')[1].split('"')[0]
    assert Caller(client, token).send("POST", "/jobs", IMAGE).json["code"] == "no_local_jobs"


def test_a_job_that_died_and_one_that_is_old(caller: Caller, tmp_path: Path) -> None:
    place = tmp_path / ".local/state/aihub/jobs"
    for name in ("job_00000000000000aa", "job_00000000000000bb"):
        (place / name).mkdir(parents=True)
        (place / name / "request.json").write_text(json.dumps(IMAGE))
        (place / name / "progress.json").write_text(json.dumps({"task": "image", "state": "running", "steps": []}))
        (place / name / "output.log").write_text("killed\n")
    past = time.time() - 61
    for file in (place / "job_00000000000000aa").iterdir():
        os.utime(file, (past, past))
    dead, alive = (state_of(caller, name) for name in ("job_00000000000000aa", "job_00000000000000bb"))
    assert dead is not None
    assert alive is not None
    assert (dead["state"], alive["state"]) == ("failed", "running")
    assert "no sign of life" in dead["error"]["detail"]
    ancient = time.time() - 8 * 86400
    for file in (place / "job_00000000000000aa").iterdir():
        os.utime(file, (ancient, ancient))
    finished(caller, caller.send("POST", "/jobs", IMAGE).json["id"])
    assert state_of(caller, "job_00000000000000aa") is None
    assert caller.get("/api/state?op=job_..%2f..%2fetc").status_code == 200


def test_a_job_that_lives_is_not_dead_where_the_clock_of_the_files_is_behind(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock was set forward, or is ahead of the file server's: no page asks again for a job that has failed."""
    started = jobs._launched

    def slow(folder: Path, *args: Any) -> Any:
        started(folder, *args).wait()
        return subprocess.Popen(["sleep", "60"])

    monkeypatch.setattr(jobs, "_launched", slow)
    job_id = caller.send("POST", "/jobs", IMAGE).json["id"]
    folder = jobs._place() / job_id
    (folder / "progress.json").write_text(json.dumps({"task": "image", "state": "running", "steps": []}))
    hour = time.time() - 3600
    for file in folder.iterdir():
        os.utime(file, (hour, hour))
    try:
        living = state_of(caller, job_id)
    finally:
        jobs._children[job_id].kill()
        jobs._children[job_id].wait()
    assert living is not None
    assert living["state"] == "running"
    dead = state_of(caller, job_id)
    assert dead is not None
    assert dead["state"] == "failed"


def test_a_host_that_is_ahead_of_the_file_server_takes_no_job_for_dead(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".local/state/aihub/jobs/job_00000000000000aa"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps(IMAGE))
    (folder / "progress.json").write_text(json.dumps({"task": "image", "state": "running", "steps": []}))

    real = dt.datetime

    class Ahead(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return real.now(tz) + dt.timedelta(days=8)

    monkeypatch.setattr(jobs.dt, "datetime", Ahead)
    jobs._forget_old()
    living = state_of(caller, folder.name)
    assert living is not None
    assert living["state"] == "running"


def test_an_old_job_that_cannot_be_removed_stops_no_new_one(caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS a file that a program has open stays, under another name; or a console on another host removes the same folder."""
    place = tmp_path / ".local/state/aihub/jobs"
    old, fresh = place / "job_00000000000000aa", place / "job_00000000000000bb"
    ancient = time.time() - 8 * 86400
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    (old / "request.json").write_text(json.dumps(IMAGE))
    os.utime(old / "request.json", (ancient, ancient))

    def busy(path: str, *_args: Any, **_options: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        assert caller.send("POST", "/jobs", IMAGE).status_code == 202
    assert old.exists()
    assert fresh.exists(), "one that another console has just begun"
    assert caller.send("POST", "/jobs", IMAGE).status_code == 202
    assert not old.exists()


def test_a_full_home_is_said_and_leaves_nothing(caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_args: Any, **_options: Any) -> None:
        path.touch()
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        answer = caller.send("POST", "/jobs", IMAGE)
    assert (answer.status_code, answer.json["code"]) == (507, "job_not_started")
    assert answer.json["detail"] == "The job cannot be started: Disk quota exceeded."
    assert "Free some space in your home" in answer.json["cure"]
    assert list((tmp_path / ".local/state/aihub/jobs").iterdir()) == []


def test_what_a_full_home_has_left_stops_no_other_job(caller: Caller, tmp_path: Path) -> None:
    place = tmp_path / ".local/state/aihub/jobs"
    for name, request in (("job_00000000000000aa", ""), ("job_00000000000000bb", json.dumps(IMAGE))):
        (place / name).mkdir(parents=True)
        (place / name / "request.json").write_text(request)
    (place / "job_00000000000000bb" / "progress.json").touch()
    past = time.time() - 61
    for file in (place / "job_00000000000000bb").iterdir():
        os.utime(file, (past, past))
    assert caller.send("POST", "/jobs", IMAGE).status_code == 202
    assert state_of(caller, "job_00000000000000aa") is None
    silent = state_of(caller, "job_00000000000000bb")
    assert silent is not None
    assert (silent["state"], silent["error"]["log"]) == ("failed", "")


@pytest.mark.browser
def test_the_page_asks_starts_and_shows(open_page: Opener, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    page.get_by_role("button", name="Create image").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("model_package").fill("model.tar.gz")
    dialog.get_by_role("button", name="Create image").click()
    expect(dialog.get_by_text("the absolute path of a model.tar.gz").first).to_be_visible()
    dialog.get_by_label("model_package").fill("/no/such/model.tar.gz")
    dialog.get_by_label("base_container_url").fill("docker-archive:/no/such.tar")
    dialog.get_by_role("button", name="Create image").click()
    operations = page.locator("#operations")
    expect(operations.get_by_text("Create image · gaa50000 / wine")).to_be_visible()
    expect(operations.get_by_text("There is no ").first).to_be_visible(timeout=30_000)
    assert [each for each in open_page.complaints if "422" not in each] == []


@pytest.mark.browser
def test_an_export_is_asked_for_by_keyboard(open_page: Opener, service: FakeService, tmp_path: Path) -> None:
    service.add("gaa50000", "wine")
    page = open_page()
    expect(row(page, "wine")).to_be_visible()
    tab_to(page, "Export model")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("model_name")).to_be_focused()
    for value in ("m", "1", "/no/such/folder"):
        page.keyboard.type(value)
        page.keyboard.press("Tab")
    tab_to(page, "Export model")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Export model")).to_be_focused()
    (request,) = tmp_path.glob(".local/state/aihub/jobs/*/request.json")
    asked = json.loads(request.read_text())
    assert [asked[name] for name in ("model_name", "model_version", "output_dir")] == ["m", "1", "/no/such/folder"]
    expect(page.locator('.operation[data-state="failed"]')).to_be_visible()


@pytest.mark.browser
def test_in_japanese_nothing_of_it_is_left_in_english(open_page: Opener, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    page = open_page(locale="ja-JP")
    for name in ("Export model", "Create image"):
        page.get_by_role("button", name=name).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name=name).click()
        expect(dialog.get_by_role("alert").locator("strong")).to_be_visible()
        assert left_in_english(page, service) == set()
        page.keyboard.press("Escape")


@pytest.mark.browser
def test_the_page_shows_how_many_bytes_there_are(open_page: Opener, tmp_path: Path) -> None:
    job = tmp_path / ".local/state/aihub/jobs/job_00000000000000aa"
    job.mkdir(parents=True)
    (job / "request.json").write_text(json.dumps(IMAGE))
    told = {"task": "image", "state": "running", "steps": [], "bytes": 4_000_000}
    page = open_page()
    expect(page.get_by_text("No tracking server yet")).to_be_visible()  # the first answer came: it writes nothing more before the reload
    page.evaluate("name => sessionStorage.setItem('aihub-operations', JSON.stringify([name]))", job.name)
    for total, words in ((9_000_000, "4.0 / 9.0 MB"), (None, "4.0 MB")):
        (job / "progress.json").write_text(json.dumps({**told, "total": total}))
        page.reload()
        expect(page.locator("#operations .bytes")).to_have_text(words)
        expect(page.locator("#operations progress")).to_have_count(1 if total else 0)
    assert open_page.complaints == []
