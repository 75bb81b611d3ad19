"""mlwf_create_image in jobs of a real Grid Engine: space and processors of the job, and the ways in which one ends."""

import pwd
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import NOBODY, Ground, processes_with
from tests.support.box import until
from tests.support.grid_engine import GridEngine, grid_engine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
USER = pwd.getpwuid(NOBODY)
# As the how-to has it.
BEGINNING = """#!/bin/bash
#$ -S /bin/bash
#$ -cwd
#$ -j y
trap : USR1 USR2
"""


@pytest.fixture(scope="module")
def grid() -> Iterator[GridEngine]:
    with grid_engine() as made:
        yield made


class Place:
    """Folders of one job. `cache`: where its image is made; `output`: where that goes; `log`: what it said."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.folder = ground.home / name
        self.output, self.cache, self.log = self.folder / "output", self.folder / "cache", self.folder / "log"
        self.output.mkdir(parents=True)
        ground.give(self.folder)

    def options(self, *more: str) -> list[str]:
        return ["-wd", str(self.folder), "-o", str(self.log), *more]

    def script(self, ground: Ground, models: Models) -> str:
        environ = {**ground.environment(), "MLWF_CACHE": str(self.cache)}
        given: list[str | Path] = ["--model-pkg-url", models.tiny(), "--base-container-url", f"docker-archive:{ground.base}", "--no-test"]
        lines = [f"export {name}={shlex.quote(value)}" for name, value in environ.items()]
        argv = ground.create(*given, "--output-dir", self.output, "--json")
        return BEGINNING + "\n".join([*lines, f"{shlex.join(argv)} >{self.folder}/told"]) + "\n"

    def made(self) -> Path:
        return Path(str(answer_of((self.folder / "told").read_text())["folder"]))


def test_a_killed_job_leaves_no_process_and_what_lies_about_goes_with_the_next(grid: GridEngine, ground: Ground, models: Models) -> None:
    place = Place(ground, "sge-killed")
    script = place.script(ground, models)
    job = grid.submit(script, *place.options(), user=USER)
    until(lambda: grid.unpacks(job), seconds=120, what="a base that is unpacked in the job's own folder")
    grid.run("qdel", job, user=USER)
    assert grid.exit_status(job) == 137
    until(lambda: not processes_with(str(place.cache)), what="the end of all that it had started")
    until(lambda: not list(grid.temporary.iterdir()), what="Grid Engine to remove the job's folder")

    job = grid.submit(script, *place.options("-pe", "smp", "1"), user=USER)
    assert grid.exit_status(job, seconds=500) == 0, place.log.read_text()
    assert list(place.output.iterdir()) == [place.made()], "and nothing of the killed one"
    assert list(place.cache.glob("work/*")) == []
    packed = [line for line in (place.made() / "build.log").read_text().splitlines() if "mksquashfs" in line and "-processors" in line]
    assert packed
    assert all(" -processors 1 " in f"{line} " for line in packed), "NSLOTS, where the machine has more"


@pytest.mark.parametrize(
    ("options", "number"),
    [(["-notify"], "SIGUSR2"), (["-notify", "-l", "h_rt=0:0:10"], "SIGUSR2"), (["-l", "s_rt=0:0:10"], "SIGUSR1")],
    ids=["qdel", "h_rt", "s_rt"],
)
def test_a_warned_job_tidies_up_and_tells_why(grid: GridEngine, ground: Ground, models: Models, options: list[str], number: str) -> None:
    place = Place(ground, f"sge-warned-{len(options)}-{number}")
    job = grid.submit(place.script(ground, models), *place.options(*options), user=USER)
    if options == ["-notify"]:
        until(lambda: grid.unpacks(job), seconds=120, what="a base that is unpacked in the job's own folder")
        grid.run("qdel", job, user=USER)
    assert grid.exit_status(job) == 143, place.log.read_text()
    assert f"Ended by {number}," in place.log.read_text()
    assert "nothing was kept" in place.log.read_text()
    assert list(place.output.iterdir()) == []
    assert [*place.cache.glob("work/*"), *place.cache.glob("bases/*"), *place.cache.glob("leases/*")] == []
    assert processes_with(str(place.cache)) == []
