"""What is made of a test's result, which the model itself may have written."""

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.errors import MlwfError
from mlwf.image.cache import Cache
from mlwf.image.create import _proof
from mlwf.image.model.example import Example
from mlwf.image.process import Runner
from mlwf.image.proof import Verdict, judge, prove, read_result
from mlwf.image.tool import ContainerTool

from demo.ports import free_ports
from tests.mlwf.image_parts import model


def test_a_result_in_a_folder_of_the_models_is_read_with_care(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    os.mkfifo(result)
    with pytest.raises(ValueError, match="no regular file"):
        read_result(result)
    result.unlink()
    result.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="symbolic links"):
        read_result(result)
    result.unlink()
    for text in ("[1]", '{"state": "what I like"}', '{"state": ' + " " * (65 << 20) + '"loaded"}'):
        result.write_text(text)
        with pytest.raises(ValueError, match="no result"):
            read_result(result)
    result.write_text('{"state": "loaded"}')
    assert read_result(result) == {"state": "loaded"}


def test_answers_that_cannot_be_compared_are_no_fault_of_the_tool(tmp_path: Path) -> None:
    (tmp_path / "expected_output.json").write_text('{"predictions": [1.0')
    package = model(tmp_path)
    with pytest.raises(MlwfError, match="cannot be compared"):
        judge({"state": "answered", "text": "{}"}, package, has_gpu=False)
    (tmp_path / "expected_output.json").write_text("{}")
    with pytest.raises(MlwfError, match="cannot be compared"):
        judge({"state": "answered", "text": "<html>"}, package, has_gpu=False)
    (tmp_path / "expected_output.json").write_text("1" * 400)
    with pytest.raises(MlwfError, match="cannot be compared"):
        judge({"state": "answered", "text": "1.5"}, package, has_gpu=False)


def test_a_recorded_answer_is_not_passed_over_where_nothing_can_be_asked(tmp_path: Path) -> None:
    package = model(tmp_path)
    assert judge({"state": "loaded"}, package, has_gpu=False) == Verdict("loaded")
    (tmp_path / "expected_output.json").write_text("{}")
    with pytest.raises(MlwfError, match=r"cannot be compared .*no input example that can be sent\. .*expected_output\.json"):
        judge({"state": "loaded"}, package, has_gpu=False)


APPTAINER = """#!/bin/sh
while [ $# -gt 0 ]; do case "$1" in *:/tmp:rw) outside=${1%%:*};; esac; shift; done
env >"$outside/env"
echo '{"state": "loaded"}' >"$outside/result.json"
"""


def test_a_model_computes_with_the_jobs_processors_on_the_jobs_gpus(tmp_path: Path) -> None:
    tool = tmp_path / "apptainer"
    tool.write_text(APPTAINER)
    tool.chmod(0o755)
    runner = Runner({"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1", "OTHER": "x"})
    kit = SimpleNamespace(runner=runner, tool=ContainerTool(tool, "apptainer", "1.4.5"))
    assert prove(kit, tmp_path / "image", model(tmp_path), tmp_path).state == "loaded"  # type: ignore[arg-type]
    inside = [line for line in (tmp_path / "proof/env").read_text().splitlines() if line.startswith("APPTAINERENV_")]
    assert {"APPTAINERENV_OMP_NUM_THREADS=3", "APPTAINERENV_CUDA_VISIBLE_DEVICES=1"} < set(inside)
    assert not [line for line in inside if "OTHER" in line]


# Runs the test on this machine in place of the container, with a folder and a port of its own.
HERE = """#!/bin/sh
while [ "$1" != /tmp/proof.py ]; do case "$1" in *:/tmp:rw) outside=${{1%%:*}};; esac; shift; done
shift
sed "s#/tmp/#$outside/#; s/8080/{port}/g" "$outside/proof.py" >"$outside/here.py"
PYTHONPATH={folder} exec {python} "$outside/here.py" "$1" "$outside/example.json"
"""
# MLflow's server, of which one path never answers.
HANGS = """
import http.server, time
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "{hangs}":
            print("Error: of something else", flush=True)
            time.sleep(60)
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        self.do_GET()
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Server).serve_forever()
"""


@pytest.mark.parametrize(
    ("hangs", "seconds", "why"),
    [
        ("", 2, "it was not loaded after 2"),
        ("/ping", 2, "it was not loaded after 2"),
        ("/invocations", 8, "no answer to its input example"),
    ],
)
def test_a_model_that_hangs_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str, seconds: float, why: str) -> None:
    """Not by what its server happened to say last. Without a path the server never listens."""
    monkeypatch.setattr("mlwf.image.proof.SECONDS", float(seconds))
    (port,) = free_ports(1)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow/__main__.py").write_text(HANGS.format(hangs=hangs, port=port) if hangs else "import time; time.sleep(60)")
    (tmp_path / "apptainer").write_text(HERE.format(port=port, folder=tmp_path, python=sys.executable))
    (tmp_path / "apptainer").chmod(0o755)
    (tmp_path / "example.json").write_text("{}")
    tool = ContainerTool(tmp_path / "apptainer", "apptainer", "1.4.5")
    kit = SimpleNamespace(runner=Runner({"PATH": "/usr/bin:/bin"}), tool=tool)
    package = replace(model(tmp_path), input_example=Example(tmp_path / "example.json", "json_object", False))
    with pytest.raises(MlwfError, match=rf"{why}.*\. Run it again on a node with more") as caught:
        prove(kit, tmp_path / "image", package, tmp_path)  # type: ignore[arg-type]
    assert "something else" not in str(caught.value)


def test_what_only_a_gpu_can_tell_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, verdicts = Cache(tmp_path), iter([Verdict("needs-gpu"), Verdict("answered"), Verdict("loaded")])
    monkeypatch.setattr("mlwf.image.create.prove", lambda *_more: next(verdicts))
    steps = SimpleNamespace(step=lambda _name: contextlib.nullcontext())

    def told(*layers: Path) -> str:
        kit = SimpleNamespace(cache=replace(cache, layers=layers), steps=steps)
        with cache.work() as work:
            return _proof(kit, SimpleNamespace(key="k"), SimpleNamespace(sha256="s"), tmp_path, work).state  # type: ignore[arg-type]

    assert [told(), told(), told()] == ["needs-gpu", "answered", "answered"]
    (tmp_path / "proofs").rename(tmp_path / "elsewhere")
    (tmp_path / "site").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "site/proofs")
    assert told(tmp_path / "site") == "loaded", "a proof of somebody else is none"
