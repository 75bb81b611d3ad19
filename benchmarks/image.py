"""How long an image takes: the plain recipe, the plain recipe with zstd level 1, and mlwf_create_image cold, warm and again.

Real Apptainer as an ordinary user, real packages of the index, the ways in turn (interleaved), the median with the spread. Run from the
project's root, as root, on a quiet machine (`bin/setup heavy` first):

    .venv/bin/python -m benchmarks.image --rounds 3 [--models sklearn torch] [--ways cold warm …] [--json FILE]

The plain recipe is what users write: `Bootstrap`, `%files requirements.txt`, `%post python3 -m venv; pip install -r`. It compresses with
every core (gzip -9), so that its time shrinks on larger nodes: quote the ratio with the core count. `cold`: every cache empty. `warm`: base
and wheels cached, the image made anew. `again`: the identical request. `pack`: mksquashfs alone appends the same tree to the same base.
`write`: that many bytes are copied and synced. The proof is timed by itself and is in no ratio. `torch` is a small language
model for PyTorch and transformers; TORCH_WHEELS names a folder with a wheel for the CPU (/opt/wheels by default), where it exists.
`tiny` (one small package) only tries this script. `--ways` runs only these (what they stand on is made first, untimed).
MLWF_TEST_TOOL=singularity measures SingularityCE, which has no `plain zstd 1` and builds the plain recipe with --fakeroot.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from mlwf.image.allocation import megabytes, processors
from mlwf.image.process import Runner
from mlwf.image.sif import read_partition
from mlwf.image.squash import Squash
from mlwf.image.tool import find_mksquashfs, find_tool

from tests.mlwf.creating import AS_A_USER
from tests.mlwf.models import Models
from tests.support.apptainer import CERTIFICATES, Ground, apptainer_ground
from tests.support.box import environment
from tests.support.sample_env import sample_environment
from tests.support.singularity import singularity_ground

PLAIN = """\
Bootstrap: docker-archive
From: {base}
%files
    {requirements} /requirements.txt
%post
    python3 -m venv /env
    /env/bin/pip install --no-cache-dir --disable-pip-version-check -r /requirements.txt
%environment
    export PATH=/env/bin:$PATH
"""
ZSTD = ("--mksquashfs-args", "-comp zstd -Xcompression-level 1")
WAYS = ("plain", "plain zstd 1", "cold", "warm", "again", "pack", "write", "import", "proof")
IMAGE = {"plain": "plain.sif", "plain zstd 1": "plain-zstd.sif"}
GROUNDS = {"apptainer": apptainer_ground, "singularity": singularity_ground}
TARGETS = {"sklearn": {"cold": 4.0, "warm": 15.0}, "torch": {"warm": 8.0}, "tiny": {}}
MODELS: dict[str, Callable[[Ground], Path]] = {
    "sklearn": lambda ground: Models(environment(), ground).regression(),
    "torch": lambda ground: Models(sample_environment("llm_finetune"), ground).text_generation(),
    "tiny": lambda ground: Models(environment(), ground).tiny(),
}
WHEELS = os.environ.get("TORCH_WHEELS", "/opt/wheels")
HOURS = 7200.0


class Bench:
    """The times of one model's images, in seconds, by way. `cpu`: what their programs took of the processors."""

    def __init__(self, ground: Ground, model: Path, ways: Sequence[str]) -> None:
        self.ground = ground
        self.model = model
        self.ways = ways
        self.module = "mlflow" if "mlflow" in (model / "requirements.txt").read_text() else "six"
        self.times: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.sizes: dict[str, int] = {}
        self.environ = {"UV_FIND_LINKS": WHEELS, f"{ground.tool.upper()}ENV_PIP_FIND_LINKS": "/mnt"} if Path(WHEELS).is_dir() else {}

    def round(self) -> None:
        cache = self.ground.home / "cache"
        self._timed("plain", lambda: self._plain("plain"))
        self._timed("plain zstd 1", lambda: self._plain("plain zstd 1", *ZSTD))
        if "cold" in self.ways:
            shutil.rmtree(cache, ignore_errors=True)
        self._timed("cold", lambda: self._ours("--no-test"))
        if not (cache / "images").exists():
            self._ours("--no-test")
        if "warm" in self.ways:
            shutil.rmtree(cache / "images")
        self._timed("warm", lambda: self._ours("--no-test"))
        self._timed("again", lambda: self._ours("--no-test"))
        if "pack" in self.ways:
            self._pack()
        self._timed("write", self._written)

    def proof(self) -> None:
        """The test alone, told by the tool."""
        answer = json.loads(self._run(self._command("--json", "--output-dir", self.ground.home)))
        self.times["proof"].append(answer["seconds"]["proof"])

    def start_up(self) -> None:
        """The import in turn in the plain image and in ours."""
        for _turn in range(5):
            for way, image in (("import plain", IMAGE["plain zstd 1"]), ("import ours", "ours.sif")):
                command = [self.ground.tool, "exec", self.ground.home / image, "python", "-c", f"import {self.module}"]
                self._timed(way, lambda command=command: self._run(command))

    def _pack(self) -> None:
        """mksquashfs alone, with our options. The tree is taken out of the image, and what comes of it is as large as the image."""
        image, work = self.ground.home / "ours.sif", self.ground.home / "pack"
        work.mkdir()
        (base,) = (self.ground.home / "cache" / "bases").glob("*/content")
        whole, below = read_partition(image), read_partition(base)
        unpack = ["unsquashfs", "-quiet", "-no-progress", "-offset", str(whole.offset), "-dest", work / "tree", image, "mlwf"]
        subprocess.run(unpack, check=True)
        with base.open("rb") as source, (work / "packed").open("wb") as target:
            source.seek(below.offset)
            shutil.copyfileobj(source, target, 1 << 20)
            target.truncate(below.size)
        environ = self.ground.environment()
        squash = Squash(find_mksquashfs(environ, find_tool(environ)), processors(environ), megabytes())
        sizes: list[int] = []
        self._timed("pack", lambda: sizes.append(squash.append(Runner(environ), work / "tree" / "mlwf", work / "packed", offset=0)))
        assert sizes == [whole.size], "the same tree, the same bytes"
        shutil.rmtree(work)

    def _written(self) -> str:
        """What writing and syncing a file of the image's size takes, which no way can beat."""
        image = self.ground.home / "ours.sif"
        return self._run(["sh", "-c", f"cp --reflink=never '{image}' copy && sync copy && rm copy"])

    def _timed(self, way: str, work: Callable[[], object]) -> None:
        if way in WAYS and way not in self.ways:
            return
        started, spent = time.monotonic(), _processor_seconds()
        work()
        self.times[way].append(time.monotonic() - started)
        self.cpu[way].append(_processor_seconds() - spent)
        print(f"  {way}: {self.times[way][-1]:.2f} s, processors {self.cpu[way][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)

    def _plain(self, way: str, *options: str) -> str:
        requirements, recipe = self.ground.home / "requirements.txt", self.ground.home / "plain.def"
        requirements.write_text((self.model / "requirements.txt").read_text() + "\n")
        recipe.write_text(PLAIN.format(base=self.ground.base, requirements=requirements))
        name = IMAGE[way]
        # What is bound must exist in the base already.
        bound = ["--bind", CERTIFICATES, *(["--bind", f"{WHEELS}:/mnt"] if self.environ else [])]
        said = self._run([self.ground.tool, "build", "-F", *AS_A_USER[self.ground.tool], *options, *bound, self.ground.home / name, recipe])
        self.sizes[name] = (self.ground.home / name).stat().st_size
        return said

    def _ours(self, *options: str) -> str:
        folder = self._run(self._command(*options, "--output-dir", self.ground.home)).splitlines()[-1]
        target = self.ground.home / "ours.sif"
        target.unlink(missing_ok=True)
        os.link(Path(folder) / "container.simg", target)
        self.sizes["ours"] = target.stat().st_size
        shutil.rmtree(folder)
        return folder

    def _command(self, *options: str | Path) -> list[str]:
        return self.ground.create("--model-pkg-url", self.model, "--base-container-url", f"docker-archive:{self.ground.base}", *options)

    def _run(self, argv: list[str] | list[str | Path]) -> str:
        done = self.ground.run(argv, seconds=HOURS, **{f"{self.ground.tool.upper()}ENV_PIP_CERT": CERTIFICATES}, **self.environ)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def _processor_seconds() -> float:
    """What all programs that have ended took; a container's FUSE server, which nobody waits for, is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(name: str, bench: Bench) -> None:
    print(f"\n{name}: " + ", ".join(f"{key} {size / 1e6:.0f} MB" for key, size in bench.sizes.items()))
    for way, times in bench.times.items():
        line = f"{way:14} {statistics.median(times):8.2f} s [{min(times):.2f}-{max(times):.2f}], n={len(times)}"
        if way in {"cold", "warm", "again"}:
            for base in IMAGE:
                ratios = [one / two for one, two in zip(bench.times.get(base, []), times, strict=False)]
                line += f"   {statistics.median(ratios):6.1f} x {base}" if ratios else ""
            target = TARGETS[name].get(way)
            line += f"   (target {target:g} x plain)" if target else ""
            for floor in ("pack", "write") if way == "warm" else ():
                ratios = [two / one for one, two in zip(bench.times.get(floor, []), times, strict=False)]
                line += f"   {statistics.median(ratios):.2f} of {floor}" if ratios else ""
        print(line)


def measured(name: str, ground: Ground, wanted: argparse.Namespace) -> dict[str, object]:
    """All rounds of one model, told as they come."""
    model = MODELS[name](ground)
    bench = Bench(ground, model, wanted.ways)
    for number in range(wanted.rounds):
        print(f"{name}, round {number + 1}, load {os.getloadavg()[0]:.1f}", flush=True)
        bench.round()
    if "import" in wanted.ways:
        bench.start_up()
    if "proof" in wanted.ways and name != "tiny":
        bench.proof()
    report(name, bench)
    return {"seconds": bench.times, "processor seconds": bench.cpu, "bytes": bench.sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description="How long an image takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(TARGETS), default=["sklearn"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    if "import" in wanted.ways and "plain zstd 1" not in wanted.ways:
        wanted.ways = [way for way in wanted.ways if way != "import"]  # there would be nothing to compare with
    cores = len(os.sched_getaffinity(0))
    found: dict[str, object] = {"cores": cores, "kernel": platform.release()}
    with GROUNDS[os.environ.get("MLWF_TEST_TOOL", "apptainer")]() as ground:
        version = subprocess.run([ground.commands / ground.tool, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{cores} cores, {platform.release()}, load {os.getloadavg()[0]:.1f}, {version}")
        for name in wanted.models:
            found[name] = measured(name, ground, wanted)
            if wanted.json:
                wanted.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
