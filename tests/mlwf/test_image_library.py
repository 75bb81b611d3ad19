"""Bases from a library (library://…): fetched once, refused, broken off. The library is a stand-in (tests/support/library.py)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlwf.creating import create, imports_six, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground
from tests.support.library import NOT_LET_IN, TOKEN, Library, library

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
NAME = "entity/collection/container"
BASE = f"library://{NAME}:1"


@pytest.fixture
def sylabs(ground: Ground, plain_sif: Path) -> Iterator[Library]:
    with library(ground, {f"{NAME}:1": plain_sif}) as served:
        yield served


def test_made_once_and_then_only_asked_for(ground: Ground, models: Models, sylabs: Library, plain_sif: Path) -> None:
    elsewhere = {f"{tool}_PULLFOLDER": str(ground.home) for tool in ("APPTAINER", "SINGULARITY")}
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=BASE, **elsewhere))
    assert imports_six(ground, made)
    inspected = json.loads(ground.run([ground.tool, "inspect", "--json", str(made["image"])]).stdout)
    labels = inspected["data"]["attributes"]["labels"]
    assert (labels["mlwf.base"], labels["mlwf.base-digest"]) == (f"library@sha256:{sha256(plain_sif)}", f"sha256:{sha256(plain_sif)}")
    assert "signature not found" in (Path(str(made["folder"])) / "build.log").read_text(), "the tool's own word on an unsigned one"
    assert not list(ground.home.glob(f".{ground.tool}/cache/library/*")), "what it fetched is kept once, by us"

    fetched = sylabs.parts()
    assert fetched
    again = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=BASE))
    assert (again["key"], again["cached"]) == (made["key"], True)
    assert sylabs.parts() == fetched, "the library has been asked whether the tag is still the same image, and not for the image"

    moved = ground.home / "moved.sif"
    moved.write_text("what the tag names now is no image")
    sylabs.images[f"{NAME}:1"] = moved
    assert "cannot be unpacked" in create(ground, models.tiny(), "--no-test", base=BASE, status=1)
    assert sylabs.parts() > fetched

    asked = len(sylabs.asked)
    offline = answer_of(create(ground, models.tiny(), "--no-test", "--json", "--offline", base=BASE))
    assert (offline["key"], offline["cached"]) == (made["key"], True), "the last one that could be used"
    assert len(sylabs.asked) == asked


def test_what_the_library_refuses(ground: Ground, models: Models, sylabs: Library, plain_sif: Path) -> None:
    told = create(ground, models.tiny(), "--no-test", base=f"library://{NAME}:2", status=1)
    assert f"The base image library://{NAME}:2 cannot be fetched: " in told
    assert f"image does not exist in the library: {NAME}:2" in told
    assert f"Check the name and the tag, and with '{ground.tool} remote list' which library is asked." in told

    sylabs.images["closed/collection/container:1"] = plain_sif
    sylabs.members.add("closed/collection/container:1")
    base = "library://closed/collection/container:1"
    told = create(ground, models.tiny(), "--no-test", base=base, status=1)
    assert f"The base image {base} cannot be fetched: " in told
    assert f"{NOT_LET_IN} (401 Unauthorized)" in told
    assert f"Log in with '{ground.tool} remote login' and check the name." in told
    assert sylabs.parts() == 0

    token = ground.home / "token"
    token.write_text(TOKEN)
    ground.give(token)
    login = ground.run([ground.tool, "remote", "login", "--tokenfile", token])
    assert login.returncode == 0, login.stderr
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=base))
    assert imports_six(ground, made)
    log = (Path(str(made["folder"])) / "build.log").read_text()
    assert TOKEN not in log


@pytest.mark.parametrize(("fault", "why"), [("cuts", "unexpected EOF"), ("expired", "does not match")])
def test_a_download_that_breaks_half_way_leaves_nothing(ground: Ground, models: Models, sylabs: Library, fault: str, why: str) -> None:
    setattr(sylabs, fault, True)
    cache = ground.home / f"{fault}-cache"
    known, folders = {"MLWF_CACHE": str(cache)}, {each for each in ground.home.iterdir() if each.is_dir()}
    # Whoever wants no cache of the tool's has it check nothing of what it fetched.
    told = create(ground, models.tiny(), "--no-test", base=BASE, status=1, **known, **{f"{ground.tool.upper()}_DISABLE_CACHE": "1"})
    assert f"The base image {BASE} cannot be fetched: " in told
    assert why in told
    assert "Try again" in told
    assert {each for each in ground.home.iterdir() if each.is_dir()} == {*folders, cache}
    assert [each for kind in ("bases", "addresses", "work") for each in cache.glob(f"{kind}/*")] == []

    setattr(sylabs, fault, False)
    created = create(ground, models.tiny(), "--no-test", "--json", base=BASE, MLWF_SHARED_CACHE=str(ground.home / "cache"), **known)
    assert imports_six(ground, answer_of(created))


def test_where_no_library_is_named(ground: Ground, models: Models) -> None:
    if ground.tool != "apptainer":
        pytest.skip("SingularityCE asks Sylabs' own then")
    told = create(ground, models.tiny(), "--no-test", base=BASE, status=1)
    assert "no default remote with library client in use" in told
    assert "Name the library with 'apptainer remote add' and 'apptainer remote use'." in told
