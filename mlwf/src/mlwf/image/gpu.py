"""Whether this job may use a GPU, which a node with some does not mean: a batch system gives each job its own, and others none."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

DEVICES = Path("/dev")
DEVICE = re.compile(r"nvidia[0-9]+")
# Which of the GPUs a program shall see; in the container, too.
CHOICE = "CUDA_VISIBLE_DEVICES"
# CUDA takes the list up to the first that is none. The second is what Slurm writes where a job has no GPU.
NONE = re.compile(r"(-.*|NoDevFiles)?")


def may_use_gpu(environ: Mapping[str, str], *, devices: Path = DEVICES) -> bool:
    """Whether the batch system has not said that there is none, and the kernel lets us open one."""
    choice = environ.get(CHOICE)
    if choice is not None and NONE.fullmatch(choice.partition(",")[0].strip()):
        return False
    return any(_opens(each) for each in _entries(devices) if DEVICE.fullmatch(each.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _opens(device: Path) -> bool:
    """A job's cgroup refuses those of others, and a node without a working driver all."""
    with contextlib.suppress(OSError):
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        return True
    return False
