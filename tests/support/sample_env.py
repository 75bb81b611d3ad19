"""The Python environment of a sample, made as its README says: venv, then pip install -r requirements.txt."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.box import ROOT

# What Jupyter brings on a real node.
NOTEBOOK = ("ipykernel==7.4.0", "nbclient==0.11.0")


def sample_environment(name: str) -> Path:
    """The environment's folder below var/envs; made again when the requirements have changed. PyTorch makes it 2 GB and a minute or two."""
    requirements = ROOT / "samples" / name / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + " ".join((*NOTEBOOK, sys.executable)).encode()).hexdigest()
    place = ROOT / "var" / "envs" / f"sample-{name}"
    stamp = place / "made-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", "-r", requirements, *NOTEBOOK], check=True)
        stamp.write_text(wanted)
    return place
