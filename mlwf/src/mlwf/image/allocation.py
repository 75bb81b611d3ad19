"""How many processors and how much memory this job may use."""

import os
from collections.abc import Mapping

PROCESSORS = ("SLURM_CPUS_PER_TASK", "NSLOTS", "NCPUS", "OMP_NUM_THREADS")


def processors(environ: Mapping[str, str]) -> int:
    """What Slurm, Grid Engine or PBS allotted, never more than the processors that the kernel lets us run on."""
    allowed = len(os.sched_getaffinity(0))
    for name in PROCESSORS:
        value = environ.get(name, "")
        if value.isascii() and value.isdigit() and int(value) > 0:
            return min(int(value), allowed)
    return allowed


def megabytes() -> int:
    """A quarter of the memory that is free now, between 256 MB and 4 GB, for mksquashfs."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(256, min(4096, pages // 4 >> 20))
