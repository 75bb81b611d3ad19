"""How long one export takes: `mlflow artifacts download` + `tar czf`, the same at our compression level, and mlwf_export_model.

A real box, a real S3 store, the three ways in turn (interleaved), the median with the spread, sizes beside. Run from the project's root:

    .venv/bin/python -m benchmarks.export --rounds 10 [--megabytes 1024] [--models float32 text prose source small] [--store ceph]

`baseline` is what users do today. `same level` differs from it only in the compressor (ours, on one processor as gzip is):
baseline / same level is what the compression level brings, same level / mlwf what the rest does (parallel ranged reads past the server,
packing while it arrives, more than one core). `through the server` is mlwf_export_model for someone without a key of the bucket.
"""

import argparse
import gzip
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.support.box import PASSWORD, USER, Box, environment, make_box
from tests.support.ceph import Ceph, start_ceph
from tests.support.s3 import S3Store, start_s3_store

MB = 1 << 20
SMALL_FILES, SMALL_BYTES = 500, 64 << 10
PIECE = 64 << 10
DICTIONARIES = ("dict-gcide", "dict-wn")
TARGETS = {"float32": 10.0, "text": 10.0, "prose": 10.0, "source": 10.0, "small": 5.0}
SIZE_LIMIT = 1.15
STORES: dict[str, Callable[[], S3Store | Ceph]] = {"seaweedfs": start_s3_store, "ceph": start_ceph}
PROGRAMS = Path(sys.executable).parent
RANDOM_FLOATS = "import numpy,sys; numpy.random.default_rng(1).standard_normal(int(sys.argv[2]), dtype='f4').tofile(sys.argv[1])"
WORD_VECTORS = """
import numpy, sys
chance = numpy.random.default_rng(1)
with open(sys.argv[1], "w") as file:
    for number, row in enumerate(chance.normal(0, 0.4, (int(sys.argv[2]), 300))):
        file.write(f"word{number} " + " ".join(f"{value:.5f}" for value in row) + "\\n")
"""
OUR_COMPRESSOR = """
import sys
from mlwf.export.gzip_stream import ParallelGzip
with ParallelGzip(sys.stdout.buffer, threads=1) as packed:
    while data := sys.stdin.buffer.read(1 << 20):
        packed.write(data)
"""


@dataclass
class Bench:
    box: Box
    store: S3Store | Ceph
    place: Path
    environ: dict[str, str]
    times: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)


@contextmanager
def bench(parent: Path, start_store: Callable[[], S3Store | Ceph]) -> Iterator[Bench]:
    """A box that does not sleep, so that what is measured is the export and not a wake."""
    store = start_store()
    settings: dict[str, Any] = {
        "bucket": store.make_bucket(),
        "endpoint_url": store.endpoint_url,
        "region": store.region,
        "idle_seconds": 0,
    }
    box = make_box(environment(), **settings)
    place = Path(tempfile.mkdtemp(prefix="bench-export-", dir=parent))
    try:
        box.write_credentials(store.owner.access_key, store.owner.secret_key)
        box.start()
        box.api("GET", "experiments/get", params={"experiment_id": "0"})
        yield Bench(box, store, place, _environ(box, store, place))
    finally:
        shutil.rmtree(place)
        box.remove()
        store.remove()


def _environ(box: Box, store: S3Store | Ceph, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{box.environment}/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "MLFLOW_TRACKING_URI": box.url,
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "AWS_ACCESS_KEY_ID": store.reader.access_key,
        "AWS_SECRET_ACCESS_KEY": store.reader.secret_key,
    }


def floats(it: Bench, path: Path, size: int) -> None:
    """Random float32: what trained weights look like to a compressor."""
    subprocess.run([it.box.environment / "bin" / "python", "-c", RANDOM_FLOATS, path, str(size // 4)], check=True)


def text(it: Bench, path: Path, size: int) -> None:
    """A model that is text: word vectors, a word and 300 numbers in each line, as GloVe and word2vec write them."""
    source = path.with_name("corpus.txt")
    subprocess.run([it.box.environment / "bin" / "python", "-c", WORD_VECTORS, source, "10000"], check=True)
    _repeat(source.read_bytes(), path, size)
    source.unlink()


def prose(path: Path, size: int) -> None:
    """English as people write it: two dictionaries of Debian, with their quotations."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["apt-get", "download", "-qq", *DICTIONARIES], cwd=place, check=True)
        for package in Path(place).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, place], check=True)
        found = sorted(Path(place).rglob("*.dict.dz"))
        _repeat(b"".join(gzip.decompress(each.read_bytes()) for each in found), path, size)


def source(it: Bench, path: Path, size: int) -> None:
    """Text that is dear to compress: the sources in MLflow's environment."""
    found = sorted((it.box.environment / "lib").rglob("*.py"))
    _repeat(b"".join(each.read_bytes() for each in found[:6000]), path, size)


def _repeat(corpus: bytes, path: Path, size: int) -> None:
    """In shuffled pieces larger than gzip's window, until it is long enough.

    SeaweedFS keeps what compresses well gzipped: reading 1 GB of this costs it 5 CPU seconds on the same cores, and 1.4 for weights. Ceph's
    gateway, which sites run, keeps objects as they are.
    """
    pieces = [corpus[start : start + PIECE] for start in range(0, len(corpus), PIECE)]
    order = random.Random(1)  # noqa: S311  # the same text each time
    with path.open("wb") as file:
        while file.tell() < size:
            order.shuffle(pieces)
            for piece in pieces:
                file.write(piece[: size - file.tell()])


def small(it: Bench, folder: Path) -> None:
    """Many small files of random float32."""
    whole = folder.with_name("floats.bin")
    floats(it, whole, SMALL_FILES * SMALL_BYTES)
    with whole.open("rb") as file:
        for number in range(SMALL_FILES):
            (folder / f"{number:03}.bin").write_bytes(file.read(SMALL_BYTES))
    whole.unlink()


def register(it: Bench, name: str, make: Callable[[Path], None]) -> None:
    """A model version whose files are what `make` writes into a folder; they go straight into the store."""
    folder = it.place / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    make(folder)
    run = it.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]
    root = run["artifact_uri"].partition(":/")[2].strip("/")
    client = it.store.client()
    for path in folder.iterdir():
        client.upload_file(str(path), it.box.settings["bucket"], f"{it.box.settings['prefix']}/{root}/model/{path.name}")
    it.box.api("POST", "registered-models/create", json={"name": name})
    it.box.api("POST", "model-versions/create", json={"name": name, "source": f"runs:/{run['run_id']}/model", "run_id": run["run_id"]})
    shutil.rmtree(folder)


def _call(it: Bench, folder: Path, *argv: str | Path) -> None:
    done = subprocess.run(argv, cwd=folder, env=it.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def baseline(it: Bench, folder: Path, name: str) -> Path:
    _call(it, folder, "mlflow", "artifacts", "download", "-u", f"models:/{name}/1", "-d", "artifacts")
    _call(it, folder, "tar", "czf", "model.tar.gz", "-C", "artifacts", ".")
    return folder / "model.tar.gz"


def same_level(it: Bench, folder: Path, name: str) -> Path:
    script = it.place / "pack.py"
    script.write_text(OUR_COMPRESSOR)
    compressor = f"{sys.executable} {script}"
    _call(it, folder, "mlflow", "artifacts", "download", "-u", f"models:/{name}/1", "-d", "artifacts")
    _call(it, folder, "tar", "-I", compressor, "-cf", "model.tar.gz", "-C", "artifacts", ".")
    return folder / "model.tar.gz"


def mlwf(it: Bench, folder: Path, name: str, *more: str) -> Path:
    where = ("--model-registry-url", it.box.url, "--model-name", name, "--model-version", "1")
    _call(it, folder, PROGRAMS / "mlwf_export_model", *where, "--through", *(more or ("store",)))
    return next(folder.glob("MLWFExportModel_*")) / "model.tar.gz"


def through_server(it: Bench, folder: Path, name: str) -> Path:
    return mlwf(it, folder, name, "server")


ARMS: dict[str, Callable[[Bench, Path, str], Path]] = {
    "baseline": baseline,
    "same level": same_level,
    "mlwf": mlwf,
    "through the server": through_server,
}


def measure(it: Bench, name: str, arm: str) -> None:
    folder = it.place / "work"
    folder.mkdir()
    os.sync()  # what an earlier arm left to be written is not this one's cost
    started = time.perf_counter()
    tarball = ARMS[arm](it, folder, name)
    it.times.setdefault((name, arm), []).append(time.perf_counter() - started)
    it.sizes[name, arm] = tarball.stat().st_size
    subprocess.run(["gzip", "-t", tarball], check=True)
    shutil.rmtree(folder)


def machine(it: Bench) -> dict[str, str]:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    version = requests.get(f"{it.box.url}/version", timeout=10).text
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} x {model}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mlflow": version,
        "load": f"{os.getloadavg()[0]:.1f} at the end",
    }


def report(it: Bench, models: list[str], arms: list[str]) -> dict[str, object]:
    print("\n| model | way | median s [min-max] | against baseline | tarball | against baseline |\n|---|---|---|---|---|---|")
    rows: dict[str, object] = {}
    for name in models:
        base, base_size = statistics.median(it.times[name, "baseline"]), it.sizes[name, "baseline"]
        for arm in arms:
            times, size = it.times[name, arm], it.sizes[name, arm]
            middle = statistics.median(times)
            spread = f"{middle:.2f} [{min(times):.2f}-{max(times):.2f}]"
            print(f"| {name} | {arm} | {spread} | {base / middle:.1f}x | {size / 1e6:.1f} MB | {size / base_size:.3f} |")
            rows[f"{name}/{arm}"] = {"seconds": times, "median": middle, "ratio": base / middle, "bytes": size, "size": size / base_size}
        ratio, larger = base / statistics.median(it.times[name, "mlwf"]), it.sizes[name, "mlwf"] / base_size
        met = ratio >= TARGETS[name] and larger <= SIZE_LIMIT
        print(f"{'met' if met else 'NOT MET'}: {name} {ratio:.1f}x (target {TARGETS[name]:g}x), size {larger:.3f} (limit {SIZE_LIMIT})")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the large models")
    parser.add_argument("--models", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--store", choices=list(STORES), default="seaweedfs", help="the object store; ceph: see bin/setup heavy")
    parser.add_argument("--place", type=Path, default=Path("/tmp"), help="where packages are written, a disk and not memory")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    arms = list(dict.fromkeys(["baseline", "mlwf", *options.arms]))
    with bench(options.place, STORES[options.store]) as it:
        size = options.megabytes * MB
        makers: dict[str, Callable[[Path], None]] = {
            "float32": lambda folder: floats(it, folder / "weights.bin", size),
            "text": lambda folder: text(it, folder / "vectors.txt", size),
            "prose": lambda folder: prose(folder / "prose.txt", size),
            "source": lambda folder: source(it, folder / "source.txt", size),
            "small": lambda folder: small(it, folder),
        }
        for name in options.models:
            register(it, name, makers[name])
        for number in range(options.rounds):
            for name in options.models:
                for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                    measure(it, name, arm)
                    print(f"round {number + 1}: {name}, {arm}: {it.times[name, arm][-1]:.2f} s", flush=True)
        rows = report(it, options.models, arms)
        facts = machine(it) | {"store": options.store}
        print(", ".join(f"{key}: {value}" for key, value in facts.items()))
        if options.json:
            options.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
