"""Size classes: the settings' table, the choice, and what becomes of a server whose size the site no longer has; bounds of a box."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import sizes
from backend.domain import SizeClass
from backend.plans.wanted import wanted_box
from backend.settings import SettingsError
from backend.settings_file import load
from tests.service.edge.world import World, make_settings
from tracking_server.settings import TABLE as BOX_SETTINGS

GIB = 1024**3
TWO = """
sizes:
  tiny: {memory: 512MiB, cpus: 0.5, pids: 100, workers: 1}
  big: {memory: 8 GiB, cpus: 8, pids: 2048, workers: 6, log: 8MiB}
"""


def read(folder: Path, text: str) -> Any:
    file = folder / "settings.yml"
    file.write_text(text)
    return load(file)


def test_a_sites_own_sizes(tmp_path: Path) -> None:
    settings = read(tmp_path, TWO)
    assert settings.sizes == (
        SizeClass(name="tiny", memory=GIB // 2, cpus=0.5, pids=100, workers=1),
        SizeClass(name="big", memory=8 * GIB, cpus=8, pids=2048, workers=6, log=8 * 1024**2),
    )
    assert settings.default_size == "tiny", "the first, unless one is named"
    assert read(tmp_path, TWO + "default_size: big\n").default_size == "big"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sizes: big", "is not a table"),
        ("sizes: {}", "is not a table"),
        ("sizes: {Big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1}}", "has the name 'Big'"),
        ("sizes: {big: 3}", "big is 3"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99}}", "big: workers is unknown or missing"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1, colour: red}}", "big: colour is unknown"),
        ("sizes: {big: {memory: 1GB, cpus: 1, pids: 99, workers: 1}}", "big: memory is '1GB'; write at least 512MiB"),
        ("sizes: {big: {memory: 1000, cpus: 1, pids: 99, workers: 1}}", "big: memory is 1000"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1, log: 1m}}", "big: log is '1m'; write at least 1MiB"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1, log: 1000}}", "big: log is 1000; write at least 1MiB"),
        ("sizes: {big: {memory: 1GiB, cpus: 0, pids: 99, workers: 1}}", "big: cpus is 0; write a number that is at least 0.1"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1.5}}", "big: workers is 1.5; write a whole number"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1, genai_jobs: 'yes'}}", "big: genai_jobs is 'yes'; write true or false"),
        ("sizes: {big: {memory: 1GiB, cpus: 1, pids: 99, workers: 1, gateway: 1}}", "big: gateway is 1; write true or false"),
        ("default_size: huge", "is huge, which is not one of sizes; name one of small, medium, large"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


def test_the_size_is_stored_and_reaches_the_box(world: World) -> None:
    row = world.row(world.made(size="medium"))
    assert row.size == "medium"
    assert wanted_box(row, world.service.settings, world.service.keyring).settings["workers"] == 2
    assert world.get("/servers/gaa50000/wine")["size"] == "medium"
    assert world.row(world.made(env_name="two")).size == "small", "the site's default"


@pytest.mark.parametrize(
    ("choice", "key"), [("genai_jobs", "genai_jobs"), ("gateway", "allow_gateway"), ("gateway_private", "gateway_private")]
)
def test_jobs_and_gateway_reach_the_box_of_a_size_that_has_them(world: World, choice: str, key: str) -> None:
    row = world.row(world.made(size="medium"))
    assert wanted_box(row, world.service.settings, world.service.keyring).settings[key] is False
    sizes_with = tuple(replace(size, **{choice: size.name == "medium"}) for size in world.service.settings.sizes)  # type: ignore[arg-type]
    assert wanted_box(row, replace(world.service.settings, sizes=sizes_with), world.service.keyring).settings[key] is True


def test_the_bounds_of_artifacts_reach_the_box_of_every_server_that_is_there(world: World) -> None:
    row = world.row(world.made())
    of_box = {setting.name: setting.default for setting in BOX_SETTINGS}
    for given in ({}, {"tmp_bytes": 50 * GIB, "max_upload_bytes": 20 * GIB}):
        wanted = wanted_box(row, replace(world.service.settings, **given), world.service.keyring).settings
        for name in ("tmp_bytes", "max_upload_bytes"):
            assert wanted[name] == given.get(name, of_box[name]), "the box's own default is the site's"


def test_a_size_that_the_site_has_no_longer_is_the_default(world: World) -> None:
    row = world.row(world.made(size="medium"))
    row.size = "gone"
    assert wanted_box(row, world.service.settings, world.service.keyring).settings["workers"] == 1


def test_the_table_in_force_can_be_read_back(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    assert sizes.parse(sizes.plain(settings.sizes)) == settings.sizes
