"""What an older mlwf has made is in the caches: the number that is in its name changes with what is made."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlwf.image.base.converted import ENVIRONMENT_HOOK, RUNSCRIPT, BaseFacts
from mlwf.image.cache import Cache
from mlwf.image.environment import compiled, pythons
from mlwf.image.environment.lock import Lock
from mlwf.image.environment.pythons import Python
from mlwf.image.plan import BASE_FORMAT, FORMAT, _image_key
from mlwf.image.recipe import ENV_SH, README


@pytest.mark.parametrize(
    ("raised", "texts", "noted"),
    [
        (FORMAT, (ENV_SH, README, compiled.COMPILE), ("8", "13fa4ac82c02dcf8")),
        (BASE_FORMAT, (ENVIRONMENT_HOOK, RUNSCRIPT), ("7", "02705845f8a6c603")),
        (pythons.FORM, (pythons.COMPILE,), ("2", "f2e9d71c531bb29b")),
    ],
    ids=["FORMAT", "BASE_FORMAT", "FORM"],
)
def test_who_changes_our_texts_in_an_image_raises_the_number(raised: str, texts: tuple[str, ...], noted: tuple[str, str]) -> None:
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    assert (raised, digest) == noted, "raise the number, then note it here with what the texts are now"


def test_an_image_with_a_python_that_was_made_ready_otherwise_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    kit: Any = SimpleNamespace(
        cache=Cache(tmp_path), tool=SimpleNamespace(kind="apptainer", version="1.4"), squash=SimpleNamespace(squasher=squasher)
    )
    facts, lock = BaseFacts("base", "sha256:one", "amd64", "2.36", {}), Lock("", "3.11.7")
    own, fetched = Python("3.11.7", "/python", None, "base"), Python("3.11.7", "/python", tmp_path, "uv")
    before = [_image_key(kit, facts, "3.11.7", python, lock) for python in (own, fetched)]
    monkeypatch.setattr(pythons, "FORM", "next")
    after = [_image_key(kit, facts, "3.11.7", python, lock) for python in (own, fetched)]
    assert after[0] == before[0], "the base's own is not made ready"
    assert after[1] != before[1]
