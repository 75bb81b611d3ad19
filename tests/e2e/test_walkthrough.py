"""The published walk-through from its first step to its last, in both editions, with the real tools: `make walkthrough`.

Console form, training (script; notebook), export, publication (by `mlwf publish` and by `aws s3 cp`), image, and the model's answer in it.
What cannot be had here is stood in for by something real of the same kind: the base model is tiny, there is no GPU, the exact patch
version of Python is the base image's, the base image is a file, the wine is scikit-learn's where UCI is out of reach, and the store has no
ACLs. The pages say so: change them with this.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from demo.ports import free_ports
from tests.e2e.page import ConsolePage
from tests.e2e.transcript import KEPT, MADE, Transcript, shape
from tests.samples.llm import MODEL, SAMPLE, execute
from tests.support.apptainer import Ground, apptainer_ground
from tests.support.box import ROOT, until
from tests.support.demo import Demo, in_foreground, new_demo
from tests.support.pages import WALKTHROUGH, blocks, changed, fill, settle, shell
from tests.support.sample_env import sample_environment

pytestmark = [pytest.mark.heavy, pytest.mark.walkthrough, pytest.mark.browser, pytest.mark.timeout(2400)]

LOGIN = ("alice", "correct horse battery staple")
AWS = "awscli==1.46.3"


@dataclass
class Walk:
    """A running demo with one tracking server, and a user's folder and environment."""

    demo: Demo
    url: str
    work: Path

    @property
    def environ(self) -> dict[str, str]:
        login = {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_TRACKING_USERNAME": LOGIN[0], "MLFLOW_TRACKING_PASSWORD": LOGIN[1]}
        return self.demo.variables | login | {"MLFLOW_S3_ENDPOINT_URL": self.demo.variables["S3_ENDPOINT_URL"]}

    def command(self, *argv: str | Path, cwd: Path | None = None, **more: str) -> str:
        done = subprocess.run(argv, cwd=cwd or self.work, env=self.environ | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def walk(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Steps 1 to 3: the console's form, Create Service, Auth Info Registration."""
    with new_demo() as demo, in_foreground(demo):
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
        context.set_default_timeout(60_000)
        console, variables = ConsolePage(context.new_page()), demo.variables
        console.open(variables["CONSOLE_URL"])
        console.fill_form(group=variables["DEMO_GROUP"], env_name="walk", bucket=variables["DEMO_BUCKET"], profile="demo")
        console.create_service()
        file = Path(variables["DEMO_HOME"]) / "groups" / variables["DEMO_GROUP"] / "aihub" / "walk" / "yml" / "basic_auth.yml"
        file.parent.mkdir(parents=True)
        file.write_text(f"{{'user_name': '{LOGIN[0]}', 'pass': '{LOGIN[1]}'}}\n")
        file.chmod(0o600)
        console.register_users("walk")
        yield Walk(demo, console.inside_url("walk"), tmp_path_factory.mktemp("user"))
        context.close()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with apptainer_ground() as found:
        yield found


@pytest.fixture(scope="module")
def aws() -> Iterator[Path]:
    """The AWS command line, in an environment of its own."""
    place = Path(tempfile.mkdtemp(prefix="aws-", dir="/tmp"))
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, place / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", place / "venv" / "bin" / "python", AWS], check=True)
    yield place / "venv" / "bin" / "aws"
    shutil.rmtree(place)


def exported(walk: Walk, name: str) -> Path:
    """Step 5, and what a human fills in the form."""
    walk.command("mlwf_export_model", "--model-registry-url", walk.url, "--model-name", name, "--model-version", "1", "--stacktrace")
    package = max(walk.work.glob("MLWFExportModel_*"))
    fill(package)
    return package


def image_of(walk: Walk, ground: Ground, source: str, transcript: Transcript | None = None) -> Path:
    """Step 7, as an ordinary user, with what the walk-through exports; the image has answered before it is handed over."""
    keys = {name: value for name, value in walk.environ.items() if name.startswith(("AWS_", "MLFLOW_S3", "UV_"))}
    if "PIP_FIND_LINKS" in os.environ:  # wheels on this machine's disk, such as a PyTorch without CUDA
        keys["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"]
    options = ["--model-pkg-url", source, "--base-container-url", f"docker-archive:{ground.base}", "--allow-python-minor"]
    done = ground.run(ground.create(*options), seconds=1800, **keys)
    assert done.returncode == 0, done.stderr
    if transcript:
        transcript.add(["mlwf_create_image", *options], done.stderr + done.stdout)
    return Path(done.stdout.strip().splitlines()[-1])


def test_wine_edition(walk: Walk, ground: Ground, aws: Path) -> None:
    said = walk.command("python", "samples/wine/train.py", "0.5", "0.5", cwd=ROOT)
    assert "Created version '1' of model 'ElasticnetWineModel'" in said
    package = exported(walk, "ElasticnetWineModel")

    bucket = walk.demo.variables["DEMO_BUCKET"]
    by_hand = f"s3://{bucket}/by-hand/model.tar.gz"
    walk.command(
        aws, "--endpoint-url", walk.environ["MLFLOW_S3_ENDPOINT_URL"], "s3", "cp", "--no-progress", package / "model.tar.gz", by_hand
    )
    said = walk.command("mlwf", "publish", package, f"s3://{bucket}/wine/1/")
    assert "Application: registration of a model" in said
    assert "The package is whole" in walk.command("mlwf", "verify", f"s3://{bucket}/wine/1/")

    (port,) = free_ports(1)
    transcript = Transcript({f"{ground.home}/": "", str(ground.base): "base.tar", str(port): "1234", bucket: "my-models"})
    folder = image_of(walk, ground, f"s3://{bucket}/wine/1/model.tar.gz", transcript)
    assert {"container.simg", "Dockerfile", "Singularity", "model"} <= {each.name for each in (ground.home / folder).iterdir()}
    again = image_of(walk, ground, by_hand)
    assert (ground.home / again / "container.simg").stat().st_size == (ground.home / folder / "container.simg").stat().st_size

    told = asked(walk, ground, folder, port, transcript)
    assert len(told["predictions"]) == 5
    assert all(isinstance(each, float) for each in told["predictions"])
    MADE.parent.mkdir(parents=True, exist_ok=True)
    MADE.write_text(transcript.text, "utf-8")
    assert shape(transcript.text) == shape(KEPT.read_text("utf-8")), "docs/images is old: python -m tests.e2e.pictures image-answer"


def asked(walk: Walk, ground: Ground, folder: Path, port: int, transcript: Transcript) -> dict[str, Any]:
    """Step 8: the model is served from the image, and asked."""
    model = ground.home / folder / "model"
    serve = ["singularity", "exec", ground.home / folder / "container.simg", "mlflow", "models", "serve"]
    serve += ["-m", model, "-p", str(port), "--env-manager", "local"]
    server = ground.start(serve)
    transcript.add(serve, "", background=True)
    try:
        until(lambda: server.poll() is not None or answers(port), seconds=170, what="the served model's ping")
        argv = ["curl", "-sf", f"http://127.0.0.1:{port}/invocations", "-H", "Content-Type: application/json"]
        argv += ["-d", f"@{model / 'serving_input_example.json'}"]
        said = walk.command(*argv)
    finally:
        os.killpg(server.pid, 15)
        server.communicate(timeout=60)
    transcript.add(argv, said)
    found: dict[str, Any] = json.loads(said)
    return found


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok
    except requests.RequestException:
        return False


def test_llm_edition(walk: Walk, ground: Ground) -> None:
    """By the page's own commands between the notebook and the image: each block in a new shell of the user."""
    python = sample_environment("llm_finetune") / "bin"
    tiny, folder, variables = walk.work / "tiny", walk.work / "llm_finetune", walk.demo.variables
    subprocess.run([python / "python", SAMPLE / "make_tiny_base.py", tiny], check=True, capture_output=True)
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "output"))
    settle(walk.work, variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])
    login = blocks(WALKTHROUGH / "llm.en.md", 2)[0].splitlines()[-1]
    shell(walk.work, changed(login, {"GROUP/ENV": f"{variables['DEMO_GROUP']}/walk"}), MLWF_SERVICE=variables["MLWF_SERVICE"])
    stand_ins = {"BASE_MODEL": str(tiny / "base"), "DATASET": str(tiny / "instructions.jsonl"), "EPOCHS": "8", "WITH_BASE": "yes"}
    how = {"LEARNING_RATE": "5e-3", "MAX_LENGTH": "96", "HF_HUB_OFFLINE": "1"}
    status, said = execute(python, folder, {**stand_ins, **how})
    assert status == 0, said[-4000:]
    assert "successfully finished finetuning" in said
    assert f"Created version '1' of model '{MODEL}'." in said

    made = ground.home / image_of(walk, ground, published(walk))
    program = ground.home / "generate_text_lora.py"
    shutil.copyfile(SAMPLE / "generate_text_lora.py", program)
    ground.give(program)
    typed = 'echo "python $1 $2" | singularity shell --nv "$0"'
    done = ground.run(["sh", "-c", typed, made / "container.simg", program, made / "model"], HF_HUB_OFFLINE="1")
    assert "What is Large language Models?" in done.stdout, done.stderr


def published(walk: Walk) -> str:
    """Section 3 of the page, without the ACL, which the demo's store does not have; the package's address."""
    export, publish = blocks(WALKTHROUGH / "llm.en.md", 3)
    before = set(walk.work.glob("MLWFExportModel_*"))
    shell(walk.work, export)
    (package,) = set(walk.work.glob("MLWFExportModel_*")) - before
    fill(package)
    bucket = walk.demo.variables["DEMO_BUCKET"]
    names = {
        "MLWFExportModel_20260401120000": package.name,
        "my-models": bucket,
        "https://s3.example.org": walk.demo.variables["S3_ENDPOINT_URL"],
    }
    shell(walk.work, changed(publish, names | {" --acl public-read": ""}))
    return f"s3://{bucket}/{MODEL}-finetune/1/model.tar.gz"
