"""Bases that are SIFs, in a file and in a registry; a node with internet and a job without, whose tool is called singularity."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.image.web import Web
from tests.mlwf.creating import NO_NETWORK, create, imports_six
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground, registry

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def test_a_sif_in_a_file_and_in_a_registry(ground: Ground, models: Models, plain_sif: Path) -> None:
    assert imports_six(ground, answer_of(create(ground, models.tiny(), "--no-test", "--json", base=str(plain_sif))))
    with registry(ground) as address:
        plain = ["--no-https"] if ground.tool == "apptainer" else []  # SingularityCE speaks it to 127.0.0.1 by itself
        pushed = ground.run([ground.tool, "push", *plain, plain_sif, f"oras://{address}/sif:1"], seconds=300)
        assert pushed.returncode == 0, pushed.stderr
        asked = ("--no-test", "--json", "--no-https")
        pulled = answer_of(create(ground, models.tiny(), *asked, base=f"oras://{address}/sif:1"))
        same = answer_of(create(ground, models.tiny(), *asked, base=f"oras://{address}/sif:1"))
        told = create(ground, models.tiny(), *asked, base=f"oras://{address}/sif:2", status=1)
    assert "Check the name and the tag" in told
    assert (same["key"], same["cached"]) == (pulled["key"], True)
    logs = [(Path(str(each["folder"])) / "build.log").read_text() for each in (pulled, same)]
    assert ["Downloading oras image" in log for log in logs] == [True, False]
    assert imports_six(ground, pulled)
    again = answer_of(create(ground, models.tiny(), "--no-test", "--json", "--offline", base=f"oras://{address}/sif:1"))
    assert again["key"] == pulled["key"], "now nobody serves it"


def test_fetched_on_a_node_with_internet_and_built_in_a_job_without(ground: Ground, models: Models) -> None:
    cache, commands = ground.home / "fetched-cache", ground.home / "commands"
    commands.mkdir()
    (commands / "singularity").write_text(f'#!/bin/sh\nexec "{ground.commands}/{ground.tool}" "$@"\n')
    (commands / "singularity").chmod(0o755)
    ground.give(commands)
    job = {"MLWF_CACHE": str(cache), "PATH": f"{commands}:/usr/sbin:/usr/bin:/sbin:/bin", **NO_NETWORK}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(models.tiny(), arcname=".")
    web = Web({"/model.tar.gz": archive.getvalue()}).start()
    model, before = f"{web.url}/model.tar.gz", set(ground.home.glob("MLWFCreateImage_*"))

    try:
        told = create(ground, model, "--no-test", "--offline", status=1, **job)
        assert "--fetch-only" in told
        assert web.asked == []
        fetched = answer_of(create(ground, model, "--fetch-only", "--json", MLWF_CACHE=str(cache)))
    finally:
        web.stop()
    assert (fetched["folder"], fetched["image"]) == (None, None)
    assert set(ground.home.glob("MLWFCreateImage_*")) == before
    assert not list(cache.glob("images/*"))
    made = answer_of(create(ground, model, "--no-test", "--offline", "--json", **job))
    assert Path(str(made["image"])).is_file()
    assert not made["cached"]
    assert imports_six(ground, made)
