"""One base for many images: converted once, its bytes in each image as they are in the cache."""

from pathlib import Path

import pytest
from mlwf.image.sif import read_partition

from tests.image.index import Index, Serving
from tests.mlwf.creating import create, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
UNPACKS = " --sandbox "


def log_of(made: dict[str, object]) -> str:
    return (Path(str(made["folder"])) / "build.log").read_text()


def test_two_jobs_on_one_empty_cache_make_everything_once(ground: Ground, models: Models) -> None:
    """And the next model on that base finds it, as it is in its image."""
    cache = ground.home / "cache-of-two"
    given = ["--model-pkg-url", models.tiny(), "--base-container-url", f"docker-archive:{ground.base}", "--no-test", "--json"]
    jobs = []
    for name in ("one", "two"):
        (ground.home / name).mkdir()
        ground.give(ground.home / name)
        jobs.append(ground.start(ground.create(*given, "--output-dir", ground.home / name), MLWF_CACHE=str(cache)))
    ended = [job.communicate(timeout=500) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], ended
    made = [answer_of(out) for out, _told in ended]
    assert sorted(str(each["cached"]) for each in made) == ["False", "True"]
    assert sorted(UNPACKS in log_of(each) for each in made) == [False, True]
    assert len({sha256(Path(str(each["image"]))) for each in made}) == 1
    assert [*cache.glob("work/*"), *cache.glob("leases/*")] == []

    (base,) = cache.glob("bases/*/content")
    before = sha256(base)
    serving = Serving(index := Index().add("top", "1.0"))
    try:
        other = answer_of(create(ground, models.tiny("top==1.0"), "--no-test", "--json", MLWF_CACHE=str(cache), UV_DEFAULT_INDEX=index.url))
    finally:
        serving.stop()
    assert not other["cached"]
    assert UNPACKS not in log_of(other)
    assert sha256(base) == before
    assert list(cache.glob("bases/*/content")) == [base]
    data = squashfs_data(base)
    assert len(data) > 10 << 20
    for each in (made[0], other):
        assert squashfs_data(Path(str(each["image"])), len(data)) == data


def squashfs_data(file: Path, length: int = 0) -> bytes:
    """What files hold, between the superblock and the tables: by the base's own superblock, or as much as is asked for."""
    with file.open("rb") as content:
        content.seek(read_partition(file).offset)
        superblock = content.read(96)
        assert superblock[:4] == b"hsqs"
        return content.read(length or int.from_bytes(superblock[64:72], "little") - len(superblock))
