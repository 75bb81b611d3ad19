"""How many processors and how much memory this job may use: what the batch system allotted, and what the kernel allows."""

import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Slurm's first, since its own number for a step can be smaller than the node's; then Grid Engine's and PBS's.
PROCESSORS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS", "NCPUS")
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID")
# Outside of a job we are on a machine that many share: a login node.
POLITE = 8
# What programs of the container tools (Go), uv, and what a model computes with read, and take the node's number without.
THREADS = ("OMP_NUM_THREADS",)
BOUNDS = ("GOMAXPROCS", "UV_CONCURRENT_BUILDS", "UV_CONCURRENT_INSTALLS", *THREADS)
CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
LEAST_MB, MOST_MB = 256, 4096


def processors(
    environ: Mapping[str, str],
    *,
    cgroups: Path = CGROUPS,
    own: Path = OWN,
    affinity: Callable[[], int] = lambda: len(os.sched_getaffinity(0)),
) -> int:
    """What the batch system allotted, never more than the kernel lets us run on (affinity, cgroup); outside of a job, a few."""
    allowed = max(min(affinity(), _quota(cgroups, own)), 1)
    for name in PROCESSORS:
        value = environ.get(name, "")
        if value.isascii() and value.isdigit() and int(value) > 0:
            return min(int(value), allowed)
    return allowed if any(environ.get(name) for name in JOBS) else min(allowed, POLITE)


def bounded(environ: Mapping[str, str], count: int) -> dict[str, str]:
    """The variables with those by which programs keep to `count` processors, where the user has not set them."""
    return {**dict.fromkeys(BOUNDS, str(count)), **environ}


def address_space() -> int | None:
    """Bytes of memory that each program of ours may ask for (`ulimit -v`, which Grid Engine's h_vmem sets); None: no limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def megabytes(*, cgroups: Path = CGROUPS, own: Path = OWN, meminfo: Path = MEMINFO, space: Callable[[], int | None] = address_space) -> int:
    """A quarter of what is free on the machine and in this job's cgroup, and of what one program may have, for mksquashfs: between 256 MB
    and 4 GB.
    """
    free = min(_available(meminfo), space() or sys.maxsize)
    for folder in _folders(cgroups, own, "memory"):
        limit, used = _limits(folder)
        if limit is not None:
            free = min(free, max(limit - used, 0))
    return max(LEAST_MB, min(MOST_MB, free // 4 >> 20))


def _quota(cgroups: Path, own: Path) -> int:
    """Whole processors that the cgroups above us give; a very large number when they set no limit."""
    least = 1 << 20
    for folder in _folders(cgroups, own, "cpu"):
        quota, _space, period = _read(folder / "cpu.max").partition(" ")
        quota, period = quota or _read(folder / "cpu.cfs_quota_us"), period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            least = min(least, -(-int(quota) // int(period)))
    return max(least, 1)


def _limits(folder: Path) -> tuple[int | None, int]:
    """Limit and use in bytes; version 2 of cgroups, then 1."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        text = _read(folder / limit)
        if text.isdigit():
            spent = _read(folder / used)
            return int(text), int(spent) if spent.isdigit() else 0
    return None, 0


def _folders(cgroups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of our cgroup and of all above it, in which the controller's files may be."""
    for line in _read(own).splitlines():
        number, _colon, rest = line.partition(":")
        names, _colon, path = rest.partition(":")
        if number != "0" and controller not in names.split(","):
            continue
        top = cgroups if number == "0" else cgroups / controller
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _available(meminfo: Path) -> int:
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return LEAST_MB << 22


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
