"""A token that expires in the middle of a training: what its user reads, and how the same run goes on."""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.box import NOTICED, Box, until
from tests.support.tokens import bearer, tokens_document

pytestmark = [pytest.mark.box, pytest.mark.heavy]
# Plain mlflow, as the samples use it: a checkpoint on disk says where to go on, MLFLOW_RUN_ID in which run.
TRAINING = """
import pathlib, sys, time
import mlflow

checkpoint, last, pause = pathlib.Path("checkpoint"), int(sys.argv[1]), float(sys.argv[2])
first = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 0
mlflow.set_experiment("a token's life")
with mlflow.start_run() as run:
    print("run", run.info.run_id, flush=True)
    for step in range(first, last):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        checkpoint.write_text(str(step))
        time.sleep(pause)
print("finished")
"""


def train(box: Box, folder: Path, token: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    variables = {"MLFLOW_TRACKING_URI": box.url, "MLFLOW_TRACKING_TOKEN": token, "PATH": "/usr/bin:/bin", "HOME": str(folder), **more}
    argv = [box.environment / "bin" / "python", "-c", TRAINING, *arguments]
    return subprocess.run(argv, env=variables, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def give(box: Box, *tokens: tuple[str, float]) -> None:
    """Puts tokens into force, by text and end; earlier ones stay listed, as the service leaves them."""
    box.replace("tokens.json", tokens_document(*((f"t{at}", text, "alice", until) for at, (text, until) in enumerate(tokens))))
    until(lambda: bearer(box, tokens[-1][0]), seconds=NOTICED, what="the token in force")


def test_the_message_names_the_cure_and_the_same_run_goes_on(box: Box, tmp_path: Path) -> None:
    give(box, ("the-first", time.time() + 600))
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, box, tmp_path, "the-first", "1000000", "0.05")
        until(lambda: training.done() or (tmp_path / "checkpoint").exists(), what="a training that logs")
        expires = time.time() + 2  # only now: how long it takes to import mlflow is the machine's
        box.replace("tokens.json", tokens_document(("t0", "the-first", "alice", expires)))
        failed = training.result()
    assert time.time() >= expires
    assert failed.returncode == 1
    last = next(line for line in reversed(failed.stderr.splitlines()) if "UNAUTHENTICATED" in line)
    assert "This token has expired: make a new one (mlwf token create)" in last, failed.stderr[-2000:]
    (run_id,) = re.findall(r"^run (\w+)$", failed.stdout, flags=re.MULTILINE)
    assert "the-first" not in failed.stderr + failed.stdout
    reached = int((tmp_path / "checkpoint").read_text())
    assert box.api("GET", "runs/get", params={"run_id": run_id})["run"]["info"]["status"] == "RUNNING"

    give(box, ("the-first", expires), ("the-second", time.time() + 600))
    done = train(box, tmp_path, "the-second", str(reached + 6), "0", MLFLOW_RUN_ID=run_id)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.splitlines()
    assert (said[0], said[-1]) == (f"run {run_id}", "finished")
    run = box.api("GET", "runs/get", params={"run_id": run_id})["run"]
    assert run["info"]["status"] == "FINISHED"
    history = box.api("GET", "metrics/get-history", params={"run_id": run_id, "metric_key": "loss", "max_results": 25000})["metrics"]
    assert sorted(point["step"] for point in history) == list(range(reached + 6)), "every step once, none lost"
