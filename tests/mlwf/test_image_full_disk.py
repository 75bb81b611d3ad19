"""A disk that fills up in the middle of a build, with the real programs: what is told, and that nothing half-made stays."""

import json
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image.index import Index, Serving
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
CURE = "Free some space, or choose other places with --output-dir, --tmpdir and MLWF_CACHE."
NO_ROOM = "Write failed because No space left on device"
# In the place of a program of the build: when it is called with this word, others take all the room of a disk. Then it is itself.
FILLING = """\
#!/bin/sh
case " $* " in *" {word} "*) cat /dev/zero >"{disk}/others" 2>/dev/null ;; esac
exec {program} "$@"
"""
MakeDisk = Callable[[int], Path]


@pytest.fixture
def make_disk(ground: Ground) -> Iterator[MakeDisk]:
    """Mounts a file system of so many MB."""
    made: list[Path] = []

    def make(megabytes: int) -> Path:
        place = ground.home / f"disk-{len(made)}"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "tmpfs", place], check=False).returncode:
            pytest.skip("no file system can be mounted here")
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@dataclass(frozen=True)
class Build:
    """One build's own folders; the site's cache has what builds before it have made."""

    ground: Ground
    model: Path
    output: Path
    cache: Path

    def run(self, *, temporary: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
        ground = self.ground
        given = ["--model-pkg-url", self.model, "--base-container-url", f"docker-archive:{ground.base}", "--no-test", "--json"]
        options = ["--output-dir", self.output, *(["--tmpdir", temporary] if temporary else [])]
        return ground.run(ground.create(*given, *options), seconds=400, MLWF_CACHE=str(self.cache), **more)

    def failure(self, **more: str) -> tuple[str, str]:
        """What and why; of the build nothing stays but its log, which the cure names."""
        done = self.run(**more)  # type: ignore[arg-type]
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stderr.strip().splitlines()[-1])
        assert told["state"] == "failed"
        (log,) = (each for each in self.output.iterdir() if each.name != "others")
        assert told["cure"] == f"{CURE} The build log is {log}."
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert self.half_made() == []
        return told["what"], told["why"]

    def half_made(self) -> list[Path]:
        return [each for kind in ("work", "leases", "wheels/*/.tmp*") for each in self.cache.glob(f"{kind}/*")]


@pytest.fixture
def build(ground: Ground, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    folders = [ground.home / f"full-{name}" for name in ("output", "cache")]
    folders[0].mkdir()
    ground.give(folders[0])
    yield Build(ground, models.tiny(), *folders)
    for each in (*folders, ground.home / "filling"):
        shutil.rmtree(each, ignore_errors=True)


@pytest.fixture
def site(ground: Ground, models: Models) -> dict[str, str]:
    """The variable that names a site's cache, which has the base."""
    cache = ground.home / "site-cache"
    done = Build(ground, models.tiny(), ground.home, cache).run()
    assert done.returncode == 0, done.stderr
    shutil.rmtree(str(answer_of(done.stdout)["folder"]))
    shutil.rmtree(cache / "images")
    return {"MLWF_SHARED_CACHE": str(cache)}


def filling(ground: Ground, name: str, word: str, disk: Path) -> str:
    """The PATH with that program in front."""
    path = ground.environment()["PATH"]
    program = shutil.which(name, path=path)
    folder = ground.home / "filling"
    folder.mkdir()
    (folder / name).write_text(FILLING.format(word=word, disk=disk, program=program))
    (folder / name).chmod(0o755)
    ground.give(folder)
    return f"{folder}:{path}"


def test_while_the_base_is_unpacked(build: Build, make_disk: MakeDisk) -> None:
    disk, tool = make_disk(1200), build.ground.tool
    what, why = build.failure(temporary=disk, PATH=filling(build.ground, tool, "build", disk))  # type: ignore[arg-type]
    assert what == f"The base image docker-archive:{build.ground.base} cannot be unpacked"
    assert re.fullmatch(rf"FATAL: +While performing build: .* {disk}/\S+: no space left on device", why)
    assert [each.name for each in disk.iterdir()] == ["others"]
    assert list(build.cache.glob("bases/*")) == []


def test_while_the_base_is_packed(build: Build, make_disk: MakeDisk) -> None:
    disk = make_disk(1200)
    told = build.failure(temporary=disk, PATH=filling(build.ground, "mksquashfs", "-noappend", disk))  # type: ignore[arg-type]
    assert told == ("The image cannot be packed", NO_ROOM)
    assert [each.name for each in disk.iterdir()] == ["others"]
    assert list(build.cache.glob("bases/*")) == []


@dataclass
class FillingIndex(Index):
    """Others take all the room of a disk when it is asked for a wheel."""

    disk: Path | None = None

    def answer(self, path: str) -> bytes | None:
        if path.startswith("/files/") and self.disk:
            with (self.disk / "others").open("wb") as file:
                subprocess.run(["cat", "/dev/zero"], stdout=file, stderr=subprocess.DEVNULL, check=False)
        return super().answer(path)


@pytest.mark.parametrize("step", ["resolved", "fetched"])
def test_while_packages_come(build: Build, make_disk: MakeDisk, site: dict[str, str], step: str) -> None:
    index = FillingIndex().add("six", "1.17.0")
    serving = Serving(index)
    try:
        if step == "fetched":
            known = Build(build.ground, build.model, build.ground.home, Path(site["MLWF_SHARED_CACHE"])).run(UV_DEFAULT_INDEX=index.url)
            assert known.returncode == 0, known.stderr
            shutil.rmtree(str(answer_of(known.stdout)["folder"]))
            shutil.rmtree(Path(site["MLWF_SHARED_CACHE"]) / "images")
        index.disk = make_disk(400)
        small = Build(build.ground, build.model, build.output, index.disk / "cache")
        what, why = small.failure(UV_DEFAULT_INDEX=index.url, **site)
        assert what == f"The model's packages cannot be {step}"
        assert re.fullmatch(rf".*{small.cache}/wheels/\S+`?: No space left on device \(os error 28\)", why)

        (index.disk / "others").unlink()
        index.disk = None
        again = small.run(UV_DEFAULT_INDEX=index.url, **site)
        assert again.returncode == 0, again.stderr
    finally:
        serving.stop()


def test_while_the_image_is_packed(build: Build, make_disk: MakeDisk, site: dict[str, str]) -> None:
    disk = make_disk(400)
    small = Build(build.ground, build.model, build.output, disk / "cache")
    told = small.failure(PATH=filling(build.ground, "mksquashfs", "-keep-as-directory", disk), **site)
    assert told == ("The image cannot be packed", NO_ROOM)
    assert list(small.cache.glob("images/*")) == []

    (disk / "others").unlink()
    again = small.run(**site)
    assert again.returncode == 0, again.stderr
    assert not answer_of(again.stdout)["cached"]


def test_while_the_image_is_handed_out(build: Build, make_disk: MakeDisk, site: dict[str, str]) -> None:
    """Its folder is on another file system than the cache, in which it is whole."""
    disk = make_disk(400)
    far = Build(build.ground, build.model, disk, build.cache)
    what, why = far.failure(PATH=filling(build.ground, "mksquashfs", "-keep-as-directory", disk), **site)
    assert what == "The image cannot be written"
    assert re.fullmatch(rf"No space left on device \({disk}/\.MLWFCreateImage_\S+/container\.simg\)", why)

    (disk / "others").unlink()
    again = far.run(**site)
    assert again.returncode == 0, again.stderr
    assert answer_of(again.stdout)["cached"]


@pytest.mark.parametrize(("place", "megabytes"), [("cache", 40), ("output", 40), ("output", 90)])
def test_a_disk_that_is_too_small_is_told_before_the_packages_come(
    build: Build, make_disk: MakeDisk, site: dict[str, str], place: str, megabytes: int
) -> None:
    """An output folder for the model, and for the image."""
    disk = make_disk(megabytes)
    output, cache = (build.output, disk / "cache") if place == "cache" else (disk, build.cache)
    small = Build(build.ground, build.model, output, cache)
    done = small.run(**site)
    assert done.returncode == 1
    told = json.loads(done.stderr.strip().splitlines()[-1])
    assert told["what"] == f"There is not enough space in {cache if place == 'cache' else disk}"
    numbers = re.fullmatch(r"(\d+) MB are needed, (\d+) MB are free", told["why"])
    assert numbers
    assert int(numbers[1]) > int(numbers[2])
    assert int(numbers[2]) in {megabytes - 1, megabytes}
    elsewhere = {"cache": "Free some with 'mlwf cache prune', or choose another place with MLWF_CACHE.",
                 "output": "Free some, or choose another place with --output-dir."}  # fmt: skip
    assert told["cure"].partition(" The build log is ")[0] == elsewhere[place]
    assert small.half_made() == []
    assert list(cache.glob("wheels/*/archive-v*/*")) == []
    assert [each for each in output.iterdir() if each.suffix != ".log"] == []
