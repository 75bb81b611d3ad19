"""What a GenAI job works on: a trace, and judges that need no language model."""

import json
import os
import subprocess
from pathlib import Path

# MLflow's own client writes the trace and says how a judge is written down.
_CLIENT = """
import json, sys
import mlflow
from mlflow.genai.scorers import RegexMatch, ResponseLength
with mlflow.start_span("answer") as span:
    span.set_inputs({"question": "how many?"})
    span.set_outputs("a" * 64 + "b")
mlflow.flush_trace_async_logging()
judges = {"short": ResponseLength(name="short", max_length=100), "endless": RegexMatch(name="endless", pattern="(a+)+$")}
print(json.dumps({"trace": span.trace_id, **{name: json.dumps(judge.model_dump()) for name, judge in judges.items()}}))
"""


def a_trace_and_judges(environment: Path, url: str, auth: tuple[str, str], *, seconds: float) -> dict[str, str]:
    """`trace`: the id of one that MLflow's client has just written to the server; `short`, `endless`: two judges as jobs take them."""
    own = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_USERNAME": auth[0], "MLFLOW_TRACKING_PASSWORD": auth[1]}
    argv, surroundings = [str(environment / "bin" / "python"), "-c", _CLIENT], {**os.environ, **own}
    done = subprocess.run(argv, env=surroundings, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return document
