"""The language model's sample, and how its notebook is run."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.box import ROOT

SAMPLE = ROOT / "samples" / "llm_finetune"
NOTEBOOK = "Cerebras-GPT-590M.ipynb"
MODEL = "Cerebras-GPT-590M"


def execute(python: Path, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """The whole notebook, unattended; exit status and all that its cells printed."""
    surroundings = {"PATH": f"{python}:{os.environ['PATH']}", "HOME": str(folder.parent), "LC_ALL": "C.UTF-8", **environ}
    command = [python / "jupyter-execute", "--timeout=600", "--output=done.ipynb", NOTEBOOK]
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.returncode, done.stderr
    cells: list[dict[str, Any]] = json.loads((folder / "done.ipynb").read_text("utf-8"))["cells"]
    return 0, "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", ()))
