"""How long an image takes: the plain recipe, the plain recipe with zstd level 1, and mlwf_create_image cold, warm and again.

Real Apptainer as an ordinary user, real packages of the index, the ways in turn (interleaved), the median with the spread. Run from the
project's root, as root, on a quiet machine (`bin/setup heavy` first):

    .venv/bin/python -m benchmarks.image --rounds 3 [--models sklearn torch] [--json FILE]

The plain recipe is what users write: `Bootstrap`, `%files requirements.txt`, `%post python3 -m venv; pip install -r`. It compresses with
every core (gzip -9), so that its time shrinks on larger nodes: quote the ratio with the core count. `cold`: every cache empty. `warm`: base
and wheels cached, the image made anew. `again`: the identical request. The proof is timed by itself and is in no ratio. `torch` is a
PyTorch and transformers environment; TORCH_WHEELS names a folder with a wheel for the CPU (/opt/wheels by default), where it exists.
`tiny` (one small package) only tries this script.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path

from tests.mlwf.models import Models
from tests.support.apptainer import CERTIFICATES, Ground, apptainer_ground
from tests.support.box import environment

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
WAYS = ("plain", "plain zstd 1", "cold", "warm", "again")
TARGETS = {"sklearn": {"cold": 4.0, "warm": 15.0}, "torch": {"warm": 8.0}, "tiny": {}}
TORCH = ("mlflow==3.17.2", "torch==2.13.0", "transformers")
WHEELS = os.environ.get("TORCH_WHEELS", "/opt/wheels")
HOURS = 7200.0


class Bench:
    """The times of one model's images, in seconds, by way."""

    def __init__(self, ground: Ground, model: Path) -> None:
        self.ground = ground
        self.model = model
        self.module = "mlflow" if "mlflow" in (model / "requirements.txt").read_text() else "six"
        self.times: dict[str, list[float]] = defaultdict(list)
        self.sizes: dict[str, int] = {}
        self.environ = {"UV_FIND_LINKS": WHEELS, "APPTAINERENV_PIP_FIND_LINKS": "/mnt"} if Path(WHEELS).is_dir() else {}

    def round(self, number: int) -> None:
        self._timed("plain", lambda: self._plain(()))
        self._timed("plain zstd 1", lambda: self._plain(ZSTD))
        cache = self.ground.home / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        self._timed("cold", lambda: self._ours("--no-test"))
        shutil.rmtree(cache / "images")
        self._timed("warm", lambda: self._ours("--no-test"))
        self._timed("again", lambda: self._ours("--no-test"))
        if number == 0:
            self._start_up()

    def proof(self) -> None:
        """The test alone, told by the tool."""
        answer = json.loads(self._run(self._command("--json", "--output-dir", self.ground.home)))
        self.times["proof"].append(answer["seconds"]["proof"])

    def written(self) -> None:
        """What writing and syncing a file of the image's size takes, which no way can beat."""
        image = self.ground.home / "ours.sif"
        self._timed("write", lambda: self._run(["sh", "-c", f"cp --reflink=never '{image}' copy && sync copy && rm copy"]))

    def _timed(self, way: str, work: object) -> None:
        assert callable(work)
        started = time.monotonic()
        work()
        self.times[way].append(time.monotonic() - started)
        print(f"  {way}: {self.times[way][-1]:.2f} s", flush=True)

    def _plain(self, options: tuple[str, ...]) -> str:
        requirements, recipe = self.ground.home / "requirements.txt", self.ground.home / "plain.def"
        requirements.write_text((self.model / "requirements.txt").read_text() + "\n")
        recipe.write_text(PLAIN.format(base=self.ground.base, requirements=requirements))
        name = "plain.sif" if not options else "plain-zstd.sif"
        # What is bound must exist in the base already.
        bound = ["--bind", CERTIFICATES, *(["--bind", f"{WHEELS}:/mnt"] if self.environ else [])]
        said = self._run(["apptainer", "build", "-F", *options, *bound, self.ground.home / name, recipe])
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

    def _start_up(self) -> None:
        """The import in turn in the plain image and in ours."""
        for _turn in range(5):
            for way, image in (("import plain", "plain-zstd.sif"), ("import ours", "ours.sif")):
                self._timed(
                    way,
                    lambda image=image: self._run(["apptainer", "exec", self.ground.home / image, "python", "-c", f"import {self.module}"]),
                )

    def _run(self, argv: list[str] | list[str | Path]) -> str:
        done = self.ground.run(argv, seconds=HOURS, APPTAINERENV_PIP_CERT=CERTIFICATES, **self.environ)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def report(name: str, bench: Bench) -> None:
    print(f"\n{name}: " + ", ".join(f"{key} {size / 1e6:.0f} MB" for key, size in bench.sizes.items()))
    for way, times in bench.times.items():
        line = f"{way:14} {statistics.median(times):8.2f} s [{min(times):.2f}-{max(times):.2f}], n={len(times)}"
        if way in WAYS[2:]:
            for base in WAYS[:2]:
                ratios = [one / two for one, two in zip(bench.times[base], times, strict=True)]
                line += f"   {statistics.median(ratios):6.1f} x {base}"
            target = TARGETS[name].get(way)
            line += f"   (target {target:g} x plain)" if target else ""
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long an image takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=list(TARGETS), default=["sklearn"])
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    found: dict[str, object] = {"cores": cores, "kernel": platform.release()}
    with apptainer_ground() as ground:
        version = subprocess.run([ground.commands / "apptainer", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{cores} cores, {platform.release()}, load {os.getloadavg()[0]:.1f}, {version}")
        models = Models(environment(), ground)
        for name in wanted.models:
            bench = Bench(ground, models.regression() if name == "sklearn" else models.tiny(*(TORCH if name == "torch" else ())))
            for number in range(wanted.rounds):
                print(f"{name}, round {number + 1}, load {os.getloadavg()[0]:.1f}", flush=True)
                bench.round(number)
            bench.written()
            if name == "sklearn":
                bench.proof()
            report(name, bench)
            found[name] = {"seconds": bench.times, "bytes": bench.sizes}
    if wanted.json:
        wanted.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
