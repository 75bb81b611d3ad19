"""Model packages for tests of images: saved by the real MLflow, in the user's home, for the base image's Python."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.apptainer import Ground, base_python
from tests.support.box import ROOT

SAVE = """
import sys
import mlflow
import pandas
from sklearn.linear_model import LinearRegression

table = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]})
model = LinearRegression().fit(table, [1.0, 2.0, 3.0])
mlflow.sklearn.save_model(
    model, sys.argv[1], input_example=table[:2], signature=mlflow.models.infer_signature(table, model.predict(table)),
    pip_requirements=[f"mlflow=={mlflow.__version__}", "scikit-learn", "skops", "pandas"],
)
"""
SAVE_GPU = """
import sys
import mlflow

class NeedsGpu(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        raise RuntimeError("Found no NVIDIA driver on your system. CUDA is needed.")
    def predict(self, model_input: list[str]) -> list[str]:
        return model_input

mlflow.pyfunc.save_model(
    sys.argv[1], python_model=NeedsGpu(), pip_requirements=[f"mlflow=={mlflow.__version__}", "scikit-learn", "skops", "pandas"])
"""
SAVE_AT_HOME = """
import os
import socket
import sys
from pathlib import Path
import mlflow

class AtHome(mlflow.pyfunc.PythonModel):
    def __init__(self, home):
        self.home = home
    def load_context(self, context):
        (Path("~").expanduser() / ".cache").mkdir()
        assert [name for _number, name in socket.if_nameindex()] == ["lo"]
        assert not Path(self.home).exists()
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        assert points and not [point for point in points if Path(point).is_relative_to(self.home)]
        assert not [name for name in os.environ if name.lower().endswith("_proxy")]
    def predict(self, model_input: list[str]) -> list[str]:
        if model_input == ["die"]:
            print("these are my last words", flush=True)
            os.kill(os.getpid(), 9)
        return model_input

mlflow.pyfunc.save_model(
    sys.argv[1], python_model=AtHome(sys.argv[2]), input_example=["live"],
    pip_requirements=[f"mlflow=={mlflow.__version__}", "scikit-learn", "skops", "pandas"])
"""
SAVE_TEXT_GENERATION = """
import sys
import mlflow
import torch
import transformers

mlflow.transformers.save_model(
    transformers.pipeline("text-generation", model=sys.argv[2], device="cpu"), sys.argv[1],
    input_example=["What is a queue?"], model_config={"max_new_tokens": 8, "do_sample": False},
    pip_requirements=[
        f"mlflow=={mlflow.__version__}", f"torch=={torch.__version__.partition('+')[0]}", f"transformers=={transformers.__version__}"])
"""


@dataclass(frozen=True)
class Models:
    """`mlflow`: an environment with MLflow and what the models are made with."""

    mlflow: Path
    ground: Ground

    def regression(self) -> Path:
        """A scikit-learn model with an input example."""
        return self._saved("regression", SAVE)

    def needs_gpu(self) -> Path:
        """A model that fails as PyTorch does where there is no GPU; the same packages."""
        return self._saved("needs-gpu", SAVE_GPU)

    def at_home(self) -> Path:
        """A model that writes below ~, wants no network, proxy or home of the user's, and dies when asked to; the same packages."""
        return self._saved("at-home", SAVE_AT_HOME, self.ground.home)

    def text_generation(self) -> Path:
        """A language model of some 100 KB for PyTorch and transformers; made in the environment of the sample that fine-tunes one."""
        base = self.ground.home / "tiny-base"
        if not base.exists():
            command = [self.mlflow / "bin" / "python", ROOT / "samples" / "llm_finetune" / "make_tiny_base.py", base]
            subprocess.run(command, check=True, capture_output=True)
        return self._saved("text-generation", SAVE_TEXT_GENERATION, base / "base")

    def tiny(self, *requirements: str, python: str = "") -> Path:
        """A package whose environment is made in a second; nothing loads its model."""
        name = f"tiny-{abs(hash((requirements, python)))}"
        folder = self.ground.home / name
        if not folder.exists():
            folder.mkdir()
            (folder / "MLmodel").write_text(
                "flavors:\n  python_function:\n    env: {virtualenv: python_env.yaml}\n    loader_module: none\n"
            )
            (folder / "python_env.yaml").write_text(f"python: {python or base_python()}\ndependencies: [-r requirements.txt]\n")
            (folder / "requirements.txt").write_text("\n".join(requirements or ("six==1.17.0",)))  # as MLflow: no end of line
            self.ground.give(folder)
        return folder

    def _saved(self, name: str, script: str, *more: Path) -> Path:
        folder = self.ground.home / name
        if not folder.exists():
            # From a folder that is no project: MLflow would record its uv.lock.
            subprocess.run(
                [self.mlflow / "bin" / "python", "-c", script, folder, *more], check=True, capture_output=True, cwd=self.ground.home
            )
            for file in (folder / "python_env.yaml", folder / "MLmodel"):
                file.write_text(file.read_text().replace(_recorded(folder), base_python()))
            self.ground.give(folder)
        return folder


def answer_of(created: str) -> dict[str, object]:
    """What --json printed."""
    answer = json.loads(created)
    assert isinstance(answer, dict)
    return answer


def _recorded(folder: Path) -> str:
    return (folder / "python_env.yaml").read_text().split("python: ", 1)[1].split("\n", 1)[0]
