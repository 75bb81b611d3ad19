"""The rendered jobs on a real Slurm, as an ordinary user, against a real service, box and object store."""

import contextlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from tests.mlwf.models import Models
from tests.mlwf.tracking import MLMODEL
from tests.ood.centre import LOGIN, Centre, centre_of
from tests.ood.rendering import EXPORT, IMAGE, ROOT, render
from tests.support.apptainer import CERTIFICATES, Ground, apptainer_ground
from tests.support.box import environment, until
from tests.support.docker import Docker
from tests.support.ordinary import GROUP, USER
from tests.support.runtimes import on_both_runtimes, service_on
from tests.support.s3 import S3Store
from tests.support.slurm import Slurm, slurm

pytestmark = [
    on_both_runtimes(pytest.mark.long),
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a Slurm and jobs of another user"),
]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Slurm]:
    with slurm() as made:
        yield made


@pytest.fixture(scope="module")
def centre(scheduler: Slurm, containers: Docker | None, s3_store: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    def hand_in(script: Path, _values: dict[str, str]) -> str:
        return scheduler.submit(script, USER)

    def goes_on(job: str) -> bool:
        return scheduler.state(job) in {"PENDING", "CONFIGURING", "RUNNING"}

    with service_on(containers, s3_store, idle_seconds=0) as live:
        home = scheduler.home / ("user" if containers is None else "user-of-containers")
        yield centre_of(live, s3_store, home, tmp_path_factory.mktemp("site"), hand_in=hand_in, goes_on=goes_on)


def programs_in(folder: Path) -> list[psutil.Process]:
    """The job's processes, by the folder that they work in."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(folder):
                found.append(process)
    assert found
    return found


def test_a_session_makes_the_server_and_its_end_stops_it(centre: Centre, scheduler: Slurm) -> None:
    job, folder = centre.submit("first", centre.session())
    centre.wait_for_card(job, folder)
    server = centre.server()
    (lease,) = server.leases
    assert (lease.user, lease.at_end, lease.note) == (USER.pw_name, "stop", f"job {job}")
    assert (server.status, server.users.names, server.created_by) == ("running", ["alice"], USER.pw_name)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder / "request.json", folder / "progress.json", folder / "connection.yml"))
    card = yaml.safe_load((folder / "connection.yml").read_text())
    (page,) = render([{"what": "view", "file": str(ROOT / "view.html.erb"), "values": card}])
    assert f"export MLFLOW_TRACKING_URI={server.inside_url}" in page["result"]
    written = "".join(path.read_text(errors="replace") for path in folder.iterdir())
    assert LOGIN["pass"] not in written

    scheduler.run("scancel", job, user=USER)
    until(lambda: centre.status() == "stopped", what="the end of the session")
    assert centre.server().leases == []
    centre.wait_for_end(folder)


def test_a_job_that_was_killed_is_noticed(centre: Centre, scheduler: Slurm) -> None:
    job, folder = centre.submit("killed", centre.session())
    centre.wait_for_card(job, folder)
    assert [lease.note for lease in centre.server().leases] == [f"job {job}"]
    programs = programs_in(folder)
    for end in (psutil.Process.suspend, psutil.Process.kill):  # as the kernel does where memory ends: none sees another's end
        for process in programs:
            with contextlib.suppress(psutil.NoSuchProcess):  # Slurm ends what is left of a job
                end(process)
    until(lambda: scheduler.state(job) not in {"RUNNING", "COMPLETING"}, what="the job's death")
    assert centre.told(folder)["state"] == "running", "it had no time for a word"
    until(lambda: centre.status() == "stopped", what="the lease to run out")


def test_an_export_starts_the_server_and_leaves_it_as_it_was_asked(centre: Centre, scheduler: Slurm) -> None:
    with centre.live.client() as client:
        client.wait(client.start(GROUP, "wine"))
    url = f"{centre.server().inside_url}api/2.0/mlflow/"

    def ask(path: str, **body: Any) -> dict[str, Any]:
        answer = requests.post(f"{url}{path}", json=body, auth=(LOGIN["user_name"], LOGIN["pass"]), timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    run = ask("runs/create", experiment_id="0")["run"]["info"]
    place = run["artifact_uri"].partition(":/")[2].strip("/")
    put = f"{url.removesuffix('mlflow/')}mlflow-artifacts/artifacts/{place}/model/MLmodel"
    assert requests.put(put, data=MLMODEL, auth=(LOGIN["user_name"], LOGIN["pass"]), timeout=60).status_code == 200
    ask("registered-models/create", name="slurm-model")
    ask("model-versions/create", name="slurm-model", source=f"runs:/{run['run_id']}/model", run_id=run["run_id"])
    with centre.live.client() as client:
        client.wait(client.stop(GROUP, "wine"))

    output = centre.home / "results"
    values = {**EXPORT, "group_name": GROUP, "model_name": "slurm-model", "model_version": "1", "output_dir": str(output)}
    job, folder = centre.submit("export", values)
    until(lambda: scheduler.state(job) in {"COMPLETED", "FAILED"}, seconds=120, what="the export's end")
    told = centre.told(folder)
    assert (scheduler.state(job), told["state"]) == ("COMPLETED", "succeeded"), (folder / "output.log").read_text()
    assert (Path(told["result"]) / "model.tar.gz").stat().st_uid == USER.pw_uid
    assert Path(told["result"]).parent == output
    assert (centre.server().leases, centre.status()) == ([], "running")


@pytest.fixture
def ground() -> Iterator[Ground]:
    with apptainer_ground() as made:
        yield made


@pytest.mark.timeout(600)
def test_an_image_is_made_by_a_job_and_answers(centre: Centre, scheduler: Slurm, ground: Ground) -> None:
    """Create image as Open OnDemand submits it: real Apptainer as the job's user, and the model answered in the finished image."""
    home = centre.home
    package, output = home / "model.tar.gz", home / "images"
    model = Models(environment(), ground).regression()
    with tarfile.open(package, "w:gz") as archive:
        for path in sorted(model.iterdir()):
            archive.add(path, path.name)
    os.chown(package, USER.pw_uid, USER.pw_gid)
    values = {**IMAGE, "model_package": str(package), "base_container_url": f"docker-archive:{ground.base}", "output_dir": str(output)}
    tools = {"PATH": f"{ground.commands}:/usr/bin:/bin", "MLWF_CACHE": str(home / "cache")}
    certificates = {"SSL_CERT_FILE": CERTIFICATES} if Path(CERTIFICATES).exists() else {}
    job, folder = centre.submit("image", values, **tools, **certificates)
    until(lambda: scheduler.state(job) in {"COMPLETED", "FAILED"}, seconds=400, what="the image's end")
    told = centre.told(folder)
    assert (scheduler.state(job), told["state"]) == ("COMPLETED", "succeeded"), (folder / "output.log").read_text()
    made = Path(told["result"])
    assert made.parent == output
    assert (made / "container.simg").stat().st_uid == USER.pw_uid
    assert json.loads((made / "provenance.json").read_text())["proof"]["state"] == "answered"
    page = render([{"what": "info", "file": str(ROOT / "completed.html.erb"), "values": {"staged_root": str(folder)}}])
    assert str(made) in page[0]["result"]
