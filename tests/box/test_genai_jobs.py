"""MLflow's server-side GenAI jobs, on a server whose size has them. Most judges need no language model, so that they really judge."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.support.box import OLDEST_VERSION, STARTERS, Box, alive, environment, make_box, until
from tests.support.genai import PROVIDER_KEY, a_trace_and_judges, add_endpoint, provider
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.timeout(600)]
MakeBox = Callable[..., Box]
PATIENCE = 180.0  # each imports MLflow anew, on a machine that may have more to do
JOBS = "/ajax-api/3.0/jobs/"
SPAWNED_IS_HEAVY = ["child", pytest.param("spawner", marks=pytest.mark.heavy)]
"""For a judge's job, which takes ten seconds and more."""


@pytest.fixture
def stored(own_box: MakeBox, s3_store: S3Store, store_settings: dict[str, Any]) -> MakeBox:
    """Boxes with an object store, since a trace of MLflow's client has a part there."""

    def make(**settings: Any) -> Box:
        box = own_box(**{**store_settings, "genai_jobs": True, **settings})
        box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
        return box

    return make


def traced(box: Box) -> dict[str, str]:
    """A trace in the box, and the judges."""
    try:
        return a_trace_and_judges(box.environment, box.url, box.auth, seconds=PATIENCE)
    except AssertionError as error:
        error.add_note(box.last_words())
        raise


def submit(box: Box, known: dict[str, str], judge: str, **more: Any) -> str:
    params = {"experiment_id": "0", "serialized_scorer": known[judge], "trace_ids": [known["trace"]]}
    answer = box.request("POST", JOBS, json={"job_name": "invoke_scorer", "params": params, **more})
    assert answer.status_code == 200, answer.text + box.last_words()
    return str(answer.json()["job_id"])


def status(box: Box, job: str) -> dict[str, Any]:
    answer = box.request("GET", JOBS + job)
    assert answer.status_code == 200, answer.text + box.last_words()
    document: dict[str, Any] = answer.json()
    return document


def wait_status(box: Box, job: str, *wanted: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        now = status(box, job)
        return now if now["status"] in wanted else None

    try:
        document: dict[str, Any] = until(found, seconds=PATIENCE, what=f"the job's status {wanted}")
    except AssertionError as error:
        error.add_note(f"{status(box, job)}\n{box.last_words()}")
        raise
    return document


def job_process(box: Box) -> psutil.Process:
    """The one job that runs and has run for some seconds: launcher, runner and job are one below the other."""

    def found() -> psutil.Process | None:
        launchers = box.find_all("mlflow_process")
        jobs = [each for each in launchers if sum(parent in launchers for parent in each.parents()) == 2]
        return next((each for each in jobs if each.cpu_times().user > 3), None)

    process: psutil.Process = until(found, seconds=PATIENCE, what="a job that is at work")
    return process


def queues(box: Box) -> set[str]:
    """What MLflow's own runner leaves behind, and we do not even make."""
    return {str(place) for folder in (Path("/dev/shm"), box.home) for place in folder.rglob("*huey*")}


@pytest.mark.parametrize("own_box", SPAWNED_IS_HEAVY, indirect=True)
def test_a_judge_is_run_and_its_word_is_on_the_trace(stored: MakeBox) -> None:
    box = stored()
    box.start()
    known = traced(box)
    done = wait_status(box, submit(box, known, "short"), "SUCCEEDED", "FAILED")
    assert done["status"] == "SUCCEEDED", (done, box.last_words())
    (found,) = box.request("GET", f"/api/3.0/mlflow/traces/{known['trace']}").json()["trace"]["trace_info"]["assessments"]
    assert (found["assessment_name"], found["feedback"]["value"]) == ("short", "yes")
    asked = wait_status(box, submit(box, known, "polite"), "SUCCEEDED", "FAILED")
    told = json.dumps(asked) + box.request("GET", f"/api/3.0/mlflow/traces/{known['trace']}").text
    assert "Gateway" in told, "one that asks a language model says why it cannot"


def add_secret(box: Box, address: str) -> requests.Response:
    secret = {"secret_name": "s", "secret_value": {"api_key": "sk"}, "provider": "openai", "auth_config": {"api_base": address}}
    return box.request("POST", "/api/3.0/mlflow/gateway/secrets/create", json=secret)


@pytest.mark.parametrize("own_box", SPAWNED_IS_HEAVY, indirect=True)
def test_a_judge_asks_a_language_model_through_the_gateway(stored: MakeBox) -> None:
    box = stored(allow_gateway=True, gateway_private=True, workers=2)
    box.start()
    known = traced(box)
    with provider() as model:
        add_endpoint(box.environment, box.url, box.auth, model.url, seconds=PATIENCE)
        done = wait_status(box, submit(box, known, "polite"), "SUCCEEDED", "FAILED")
    assert done["status"] == "SUCCEEDED", (done, box.last_words())
    (found,) = box.request("GET", f"/api/3.0/mlflow/traces/{known['trace']}").json()["trace"]["trace_info"]["assessments"]
    assert (found["assessment_name"], found["feedback"]["value"], found["rationale"]) == ("polite", "yes", "It says please.")
    ((key, question),) = model.asked
    assert (key, question["model"]) == (f"Bearer {PROVIDER_KEY}", "some-model")
    assert "The answer is polite." in json.dumps(question["messages"])
    logs = "".join(log.read_text() for log in (box.home / "log").glob("*.log"))
    assert PROVIDER_KEY not in logs
    assert "POST /mlflow/gateway/mlflow/v1/chat/completions 200" in logs, "it came to this server"


def test_a_models_words_come_through_as_they_are_said_once_it_may_be_asked(stored: MakeBox) -> None:
    box = stored(allow_gateway=True, genai_jobs=False, idle_seconds=1)
    box.start()
    for address, why in (("http://models.example.org/v1", "scheme"), ("https://127.0.0.1/v1", "non-public")):
        assert why in add_secret(box, address).text
    box.write_settings(gateway_private=True)
    until(lambda: add_secret(box, "http://127.0.0.1/v1").status_code == 200, what="the new settings")
    asked = {"model": "judge", "messages": [{"role": "user", "content": "Is it so?"}], "stream": True}
    with provider() as model:
        add_endpoint(box.environment, box.url, box.auth, model.url, seconds=PATIENCE)
        box.wait_state("asleep")  # the key that the provider's is encrypted with is the same afterwards
        with box.request("POST", "/gateway/mlflow/v1/chat/completions", json=asked, stream=True) as answer:
            assert answer.status_code == 200, answer.text + box.last_words()
            lines = answer.iter_lines()
            assert "yes" in next(line.decode() for line in lines if line), "before the model has said the rest"
            model.go_on.set()
            assert any(b", please" in line for line in lines)


def test_an_evaluation_fills_its_run(stored: MakeBox) -> None:
    """Its table goes to the object store, as whose client the job acts."""
    box = stored()
    box.start()
    known = traced(box)
    asked = {"experiment_id": "0", "trace_ids": [known["trace"]], "serialized_scorers": [known["short"]]}
    answer = box.request("POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke", json=asked)
    assert answer.status_code == 200, answer.text
    assert wait_status(box, answer.json()["job_id"], "SUCCEEDED", "FAILED")["status"] == "SUCCEEDED", box.last_words()
    run = box.api("GET", f"runs/get?run_id={answer.json()['run_id']}")["run"]
    assert run["info"]["status"] == "FINISHED"
    assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_a_server_does_not_sleep_under_a_job_but_after_it(stored: MakeBox) -> None:
    box = stored(idle_seconds=1)
    box.start()
    known = traced(box)
    job = submit(box, known, "endless")
    working = job_process(box)  # for three times as long as the server stays awake
    assert box.health()["state"] == "awake"
    assert status(box, job)["status"] == "RUNNING"
    assert box.request("PATCH", f"{JOBS}cancel/{job}").json()["status"] == "CANCELED"
    until(lambda: not alive([working.pid]), what="the end of a job that was called off")
    box.wait_state("asleep")
    assert box.find_all("mlflow_process") == []
    assert status(box, job)["status"] == "CANCELED"


def test_a_job_has_its_time_and_no_more(stored: MakeBox) -> None:
    box = stored()
    box.start()
    job = submit(box, traced(box), "endless", timeout=1)
    wait_status(box, job, "TIMEOUT")
    until(lambda: len(box.find_all("mlflow_process")) == 3, what="the end of the job's process")


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_after_the_guards_death_nothing_is_left_and_what_waited_is_done(stored: MakeBox) -> None:
    box = stored()
    others = queues(box)
    box.start()
    known = traced(box)
    ran, waited = submit(box, known, "endless"), submit(box, known, "short")
    job_process(box)
    assert status(box, waited)["status"] == "PENDING"
    pids = [each.pid for each in box.processes() if box.spawner is None or each.pid != box.spawner.pid]
    assert box.process is not None
    os.kill(box.process.pid, signal.SIGKILL)
    box.process.wait()
    until(lambda: not alive(pids), what="the end of everything")
    assert queues(box) <= others
    box.start()
    box.wait_state("awake")  # though nobody asked for anything
    assert wait_status(box, waited, "SUCCEEDED", "FAILED")["status"] == "SUCCEEDED"
    found = status(box, ran)
    assert found["status"] == "FAILED"
    assert found["error_message"].startswith("The tracking server was stopped or restarted while the job ran")


def test_a_restart_gives_a_job_its_time_then_ends_it(stored: MakeBox) -> None:
    box = stored(drain_seconds=1)
    box.start()
    known = traced(box)
    ran, waited = submit(box, known, "endless"), submit(box, known, "short")
    working = job_process(box)
    box.write_settings(session_seconds=4711)
    until(lambda: not alive([working.pid]), what="the end of the job")
    until(lambda: (box.home / "log" / "guard.log").read_text().count("MLflow is awake") == 2, what="MLflow, awake without a request")
    assert wait_status(box, ran, "FAILED")["error_message"].endswith("start it again.")
    assert wait_status(box, waited, "SUCCEEDED", "FAILED")["status"] == "SUCCEEDED"


def test_a_job_whose_process_dies_is_said_to_have_failed(stored: MakeBox) -> None:
    box = stored()
    box.start()
    job = submit(box, traced(box), "endless")
    job_process(box).kill()
    assert "ended by signal 9" in wait_status(box, job, "FAILED")["error_message"]
    assert (box.home / "log" / "guard.log").read_text().count("MLflow is awake") == 1, "the server itself went on"


def test_a_job_reads_no_location_but_the_servers_own(stored: MakeBox) -> None:
    """As whoever could write into the database might try: the check is in the job's process, too."""
    box = stored()
    box.start()
    known = traced(box)
    with closing(sqlite3.connect(box.home / "data" / "mlflow.db")) as database, database:
        database.execute("UPDATE trace_tags SET value = 'ARCHIVE_REPO' WHERE key = 'mlflow.trace.spansLocation'")
        elsewhere = "key = 'mlflow.trace.archiveLocation', value = 's3://elsewhere/x'"
        database.execute(f"UPDATE trace_tags SET {elsewhere} WHERE key = 'mlflow.artifactLocation'")  # noqa: S608
    error = wait_status(box, submit(box, known, "short"), "FAILED", "SUCCEEDED")["error_message"]
    assert "The location is outside this server's own storage" in error


def test_a_judge_with_code_of_its_own_is_refused(stored: MakeBox) -> None:
    box = stored()
    box.start()
    known = traced(box)
    judge = {"name": "own", "call_source": "return open('/etc/passwd').read()", "call_signature": "(outputs)", "original_func_name": "own"}
    known["own"] = json.dumps(json.loads(known["short"]) | {"builtin_scorer_class": None, "builtin_scorer_pydantic_data": None} | judge)
    params = {"experiment_id": "0", "serialized_scorer": known["own"], "trace_ids": [known["trace"]]}
    answer = box.request("POST", JOBS, json={"job_name": "invoke_scorer", "params": params})
    assert answer.status_code == 400
    assert "arbitrary code" in answer.text


def test_a_server_gets_jobs_and_loses_them(own_box: MakeBox) -> None:
    box = own_box(genai_jobs=False)
    box.start()
    box.wait_state("awake")
    search = {"statuses": ["PENDING"]}
    assert box.request("POST", f"{JOBS}search", json=search).status_code == 403
    for wanted in (True, False):
        box.write_settings(genai_jobs=wanted)
        until(lambda wanted=wanted: (box.request("POST", f"{JOBS}search", json=search).status_code == 200) is wanted, what=f"{wanted}")  # type: ignore[misc]
    until(lambda: len(box.find_all("mlflow_process")) == 1, what="the one process of a server without jobs")


def test_the_oldest_version_runs_jobs_too(request: pytest.FixtureRequest, s3_store: S3Store, store_settings: dict[str, Any]) -> None:
    box = make_box(environment(OLDEST_VERSION), genai_jobs=True, **store_settings)
    request.addfinalizer(box.remove)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    assert wait_status(box, submit(box, traced(box), "short"), "SUCCEEDED", "FAILED")["status"] == "SUCCEEDED", box.last_words()
