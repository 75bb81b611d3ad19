"""The rendered jobs and a job script of a user's own on a real Grid Engine, against a real service, box and object store."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.models import Models
from tests.ood.centre import Centre, centre_of
from tests.ood.rendering import IMAGE, qsub_options
from tests.support.apptainer import CERTIFICATES, Ground, apptainer_ground, processes_with
from tests.support.box import environment, until
from tests.support.grid_engine import GridEngine, grid_engine
from tests.support.ordinary import GROUP, USER, everyones_python
from tests.support.runtimes import service_on
from tests.support.s3 import S3Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.box,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a Grid Engine and jobs of another user"),
]
# Longer than a test: whatever frees the server sooner has ended the lease.
LONG = "900"
# Plain mlflow, which ends its run in order when the job is warned.
TRAINING = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # a handler that sets an Event which is waited for can wait for itself
import mlflow

with mlflow.start_run():
    for step in range(100000):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        print("logged", flush=True)
        if signal.sigtimedwait({signal.SIGUSR2}, 0.2):
            break
    mlflow.log_param("ended", "in order")
print("ended in order", flush=True)
"""
# As the how-to has it.
SCRIPT = """#!/bin/bash
#$ -S /bin/bash
#$ -cwd
#$ -j y
#$ -notify
trap : USR1 USR2
eval "$({mlwf} server env {name})"
{mlwf} lease hold {name} --at-end stop --seconds {seconds} --note "job $JOB_ID" -- {training}
"""


@pytest.fixture(scope="module")
def grid() -> Iterator[GridEngine]:
    with grid_engine() as made:
        yield made


@pytest.fixture(scope="module")
def centre(grid: GridEngine, s3_store: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    def hand_in(script: Path, values: dict[str, str]) -> str:
        return grid.submit(script.read_text(), *qsub_options(script.parent, values), user=USER)

    with service_on(None, s3_store, idle_seconds=0) as live:
        site = tmp_path_factory.mktemp("site")
        yield centre_of(live, s3_store, grid.home / "user", site, hand_in=hand_in, goes_on=grid.goes_on)


def test_a_session_that_is_deleted_ends_its_lease(grid: GridEngine, centre: Centre) -> None:
    job, folder = centre.submit("first", centre.session(bc_queue="main"), MLWF_LEASE_SECONDS=LONG)
    centre.wait_for_card(job, folder)
    (lease,) = centre.server().leases
    assert (lease.user, lease.at_end, lease.note) == (USER.pw_name, "stop", f"job {job}")
    assert f"hard resource_list:         h_rt={8 * 3600}" in grid.run("qstat", "-j", job)
    grid.run("qdel", job, user=USER)  # as Open OnDemand does
    until(lambda: centre.status() == "stopped", what="the end of the session")
    assert centre.server().leases == []
    centre.wait_for_end(folder)
    assert grid.exit_status(job) == 1, "the shell's own end, not a signal"
    assert list(folder.glob("mlflow-server.*")) == [], "all that the job said is in output.log"


@pytest.fixture
def ground() -> Iterator[Ground]:
    with apptainer_ground() as made:
        yield made


def test_an_image_whose_job_is_deleted_is_told_and_leaves_nothing(grid: GridEngine, centre: Centre, ground: Ground) -> None:
    output, cache = centre.home / "images", centre.home / "cache"
    values = {**IMAGE, "group_name": "", "env_name": "", "model_package": str(Models(environment(), ground).tiny())}
    values |= {"base_container_url": f"docker-archive:{ground.base}", "output_dir": str(output)}
    tools = {"PATH": f"{ground.commands}:/usr/bin:/bin", "MLWF_CACHE": str(cache), "SSL_CERT_FILE": CERTIFICATES}
    job, folder = centre.submit("image", values, **tools)
    until(lambda: grid.unpacks(job), seconds=120, what="a base that is unpacked in the job's own folder")
    grid.run("qdel", job, user=USER)
    assert grid.exit_status(job) == 1, "the shell's own end, not a signal"
    assert "Ended by SIGUSR2," in (folder / "output.log").read_text()
    assert centre.told(folder)["error"] == {"detail": "It was ended before its time", "cure": "Start it again."}
    assert list(output.iterdir()) == []
    assert [*cache.glob("work/*"), *cache.glob("bases/*"), *cache.glob("leases/*")] == []
    assert processes_with(str(cache)) == []


def test_a_training_holds_its_server_and_is_warned(grid: GridEngine, centre: Centre) -> None:
    folder = centre.home / "training"
    folder.mkdir()
    os.chown(folder, USER.pw_uid, USER.pw_gid)
    (folder / "train.py").write_text(TRAINING)
    (packages,) = environment().glob("lib/python*/site-packages")
    training = shlex.join(["env", f"PYTHONPATH={packages}", "PYTHONDONTWRITEBYTECODE=1", everyones_python(), "train.py"])
    mlwf = f"env MLWF_SERVICE=unix://{centre.live.socket} {centre.mlwf}"
    script = SCRIPT.format(mlwf=mlwf, name=f"{GROUP}/wine", seconds=LONG, training=training)
    job, log = grid.submit(script, "-wd", folder, "-o", folder / "log", user=USER), folder / "log"

    def trains() -> bool:
        assert grid.goes_on(job), log.read_text()
        return log.exists() and log.read_text().count("logged") > 2

    until(trains, seconds=120, what="a training that logs")
    assert [lease.note for lease in centre.server().leases] == [f"job {job}"]
    grid.run("qdel", job, user=USER)
    assert grid.exit_status(job) == 0, log.read_text()
    assert "ended in order" in log.read_text()
    until(lambda: centre.status() == "stopped", what="the lease's end")
    assert centre.server().leases == []
