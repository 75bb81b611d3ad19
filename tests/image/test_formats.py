"""What an older mlwf has made is in the caches: the number that is in its name changes with what is made."""

import hashlib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlwf.image.base.converted import ENVIRONMENT_HOOK, PROBE, RUNSCRIPT, BaseFacts, ComingBase
from mlwf.image.base.source import Pinned, parse_base
from mlwf.image.cache import Cache
from mlwf.image.create import _provenance
from mlwf.image.environment import compiled, pythons
from mlwf.image.environment.lock import ANY_INDEX, Lock, Taken, _with_head
from mlwf.image.environment.pythons import Python
from mlwf.image.plan import BASE_FORMAT, FORMAT, LOCK_FORMAT, Plan, _image_key
from mlwf.image.recipe import ENV_SH, README, Recipe

DIGEST = "sha256:" + "ab" * 32
BASE = "docker-daemon:base:1"
OWN = Python("3.11.7", "/python", None, "base")
INDEX = "--extra-index-url https://x.example/simple"
# What we write above what uv has resolved.
LOCK_HEAD = _with_head({"UV_TORCH_BACKEND": "cpu"}, [INDEX], "torch==2.8.0\n", Taken("taken").told, strategy=ANY_INDEX)
LOCK_HEADS = LOCK_HEAD, _with_head({}, [], "six==1.17.0\n", Taken(why="it is old").told), _with_head({}, [], "", "", strategy=ANY_INDEX)


def recipe_of(base: str, *, only_wheels: bool = True, mirror: str = "") -> Recipe:
    return Recipe(parse_base(base), Pinned(base, DIGEST, base), OWN, only_wheels, mirror=mirror)


@pytest.mark.parametrize(
    ("raised", "texts", "noted"),
    [
        (FORMAT, (ENV_SH, README, compiled.COMPILE), ("8", "13fa4ac82c02dcf8")),
        (BASE_FORMAT, (ENVIRONMENT_HOOK, RUNSCRIPT, PROBE), ("8", "b68560d1a6537e93")),
        (LOCK_FORMAT, LOCK_HEADS, ("9", "c3d9fd860bd530a0")),
        (pythons.FORM, (pythons.COMPILE,), ("2", "f2e9d71c531bb29b")),
    ],
    ids=["FORMAT", "BASE_FORMAT", "LOCK_FORMAT", "FORM"],
)
def test_who_changes_our_texts_in_an_image_raises_the_number(raised: str, texts: tuple[str, ...], noted: tuple[str, str]) -> None:
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    assert (raised, digest) == noted, "raise the number, then note it here with what the texts are now"


@pytest.fixture
def kit(tmp_path: Path) -> Any:
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    tool = SimpleNamespace(kind="apptainer", version="1.4")
    return SimpleNamespace(cache=Cache(tmp_path), tool=tool, squash=SimpleNamespace(squasher=squasher))


def plan(kit: Any, python: Python, recipe: Recipe) -> Plan:
    facts, lock = BaseFacts("base", DIGEST, "amd64", "2.36", {}), Lock("", "3.11.7")
    key = _image_key(kit, facts, "3.11.7", python, lock, recipe)
    return Plan(recipe, ComingBase(facts, pytest.fail), python, "3.11.7", lock, key)


def test_an_image_with_a_python_that_was_made_ready_otherwise_is_another_one(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = Python("3.11.7", "/python", tmp_path, "uv")
    before = [plan(kit, python, recipe_of(BASE)).key for python in (OWN, fetched)]
    monkeypatch.setattr(pythons, "FORM", "next")
    after = [plan(kit, python, recipe_of(BASE)).key for python in (OWN, fetched)]
    assert after[0] == before[0], "the base's own is not made ready"
    assert after[1] != before[1]


def test_an_image_by_another_uv_is_another_one_and_says_so(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv writes its version into pyvenv.cfg, and from some versions to the next other scripts into bin."""
    told = {}
    for version in ("0.9.30", "0.13.9"):
        monkeypatch.setattr(metadata, "version", {"uv": version}.__getitem__)
        made = plan(kit, OWN, recipe_of(BASE))
        assert f"pip install uv=={version} " in made.recipe.singularity(portable=True)
        told[made.key] = _provenance(kit, made)["uv"]
    assert list(told.values()) == ["0.9.30", "0.13.9"]


def test_an_image_whose_recipe_says_something_else_is_another_one(kit: Any) -> None:
    one, other = (plan(kit, OWN, recipe_of(BASE, only_wheels=only_wheels)).key for only_wheels in (True, False))
    assert one != other


def test_the_same_content_by_another_name_is_the_same_image(kit: Any) -> None:
    one, other = (plan(kit, OWN, recipe_of(base)) for base in (BASE, "docker-daemon:site/other:latest"))
    assert one.recipe.singularity() != other.recipe.singularity(), "beside the image it is the name that the user knows"
    assert one.key == other.key
    assert one.recipe.singularity(portable=True) == other.recipe.singularity(portable=True)
