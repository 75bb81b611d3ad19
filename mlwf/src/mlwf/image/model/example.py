"""What /invocations is asked with: the model's input example, in the words of the scoring protocol.

MLflow writes such a request itself now. As late as 2.14 it wrote the example bare, and into MLmodel what it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.image.model.python_env import inside

# With one of these an object is a request of a chat, a completion or an embedding, which the server takes as it is.
REQUESTS = frozenset({"messages", "prompt", "input"})


@dataclass(frozen=True)
class Example:
    """`file` of the package. `kind`: MLflow's type of a bare example, None where the file is a request; `params`: it has some."""

    file: Path
    kind: str | None = None
    params: bool = False


def find_example(folder: Path, mlmodel: Mapping[str, object]) -> Example | None:
    """The package's example; None where MLmodel names none, or no file of the package."""
    info = mlmodel.get("saved_input_example_info")
    if not isinstance(info, dict):
        return None
    request = info.get("serving_input_path")
    named = request or info.get("artifact_path")
    file = inside(folder, named) if isinstance(named, str) else None
    if file is None:
        return None
    # The server of MLflow 1 takes a bare one as it is.
    if request or str(mlmodel.get("mlflow_version", "")).startswith("1."):
        return Example(file)
    return Example(file, str(info.get("type")), bool(info.get("params")))


def request_of(example: Example, text: str) -> str:
    """The request for a bare example, whose file holds `text`. Raises ValueError or RecursionError where none can be made of it."""
    data, beside = json.loads(text), {}
    if example.params:
        if not isinstance(data, dict) or not data.keys() >= {"inputs", "params"}:
            raise ValueError("no parameters in it")
        data, beside = data["inputs"], {"params": data["params"]}
    return json.dumps({**_wrapped(example.kind or "", data), **beside})


def _wrapped(kind: str, data: object) -> dict[str, object]:
    if kind == "dataframe":
        return {"dataframe_split": data}
    # An array has its key in the file already.
    if isinstance(data, dict) and (kind == "ndarray" or (kind == "json_object" and REQUESTS & data.keys())):
        return data
    # A bare text or number the servers of those versions do not take.
    if kind == "json_object" and isinstance(data, (dict, list)):
        return {"inputs": data}
    raise ValueError(f"there are no words for an example of the type {kind[:40]!r}")
