"""The main job, as a new user does it: create a tracking server in the browser, train against it, export the model.

One demo, one Chromium, the README's own lines in a shell; nothing is stood in for.
"""

import contextlib
import json
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect

from tests.e2e.page import ConsolePage
from tests.support.demo import ROOT, Demo, in_foreground, new_demo
from tests.support.docker import Docker
from tests.support.runtimes import is_open
from tests.support.secret_forms import forms_of

ENV_NAME = "wine"
LOGIN = ("alice", "correct horse battery staple")
# What the README's walk has its reader type: the variables, the training, and within a sentence the export.
README_WALK = (ROOT / "README.md").read_text("utf-8").partition("\n## The walk\n")[2].partition("\n## ")[0]
VARIABLES, TRAIN = re.findall(r"^ +```\n(.+?)^ +```$", README_WALK, re.MULTILINE | re.DOTALL)
(EXPORT,) = re.findall(r"`(mlwf_export_model .+?)`", README_WALK)
# The user's own two files, the store's list of who may come, and what the box signs its requests with.
MAY_HOLD_A_SECRET = ("yml/basic_auth.yml", "aws/credentials", "store/s3.json", "config/s3/credentials")
KEYS_OF_A_BOX = ("config/keys.json", "config/ticket_keys.json")


@dataclass
class Walk:
    demo: Demo
    process: "subprocess.Popen[str]"
    console: ConsolePage
    work: Path

    def command(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """A command in the user's second terminal, with what `bin/demo env` gave."""
        return self._run(argv, self.work, self.demo.variables)

    def typed(self, *lines: str) -> "subprocess.CompletedProcess[str]":
        """Lines of the README in a new shell in the clone, after those that set the variables there."""
        variables = VARIABLES.replace("GROUP", self.demo.variables["DEMO_GROUP"])
        return self._run(("bash", "-euc", "\n".join((variables, *lines))), ROOT, self.demo.environment)

    def _run(self, argv: Sequence[str], folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture
def walk(browser: Browser, tmp_path: Path, containers: Docker | None) -> Iterator[Walk]:
    with new_demo(containers) as demo, in_foreground(demo) as process:
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("console", lambda message: print(f"the browser says: {message.text}"))  # pytest shows it when the test failed
        page.on("pageerror", lambda error: print(f"the page failed: {error}"))
        page.on("requestfailed", lambda request: print(f"{request.url} failed: {request.failure}"))
        yield Walk(demo, process, ConsolePage(page), tmp_path)
        context.close()


@pytest.mark.browser
@pytest.mark.box
@pytest.mark.timeout(600)
def test_the_whole_walk(walk: Walk, browser: Browser) -> None:
    url = _create_server(walk)
    _nobody_gets_in_before_there_are_users(url)
    _register_user(walk)
    _train_twice(walk)
    _both_runs_are_in_the_ui(browser, url)
    _export_version_2(walk)
    _export_by_a_click(walk)
    _no_secret_where_none_belongs(walk, url)
    _asleep_and_awake_again(walk, url)
    _ctrl_c_leaves_nothing(walk)
    _up_again_finds_everything(walk, url)


def _create_server(walk: Walk) -> str:
    variables = walk.demo.variables
    walk.console.open(variables["CONSOLE_URL"])
    walk.console.fill_form(group=variables["DEMO_GROUP"], env_name=ENV_NAME, bucket=variables["DEMO_BUCKET"], profile="demo")
    walk.console.create_service()
    url = walk.console.inside_url(ENV_NAME)
    assert url.startswith("http://")
    assert url.endswith("/mlflow/")
    return url


def _nobody_gets_in_before_there_are_users(url: str) -> None:
    assert requests.get(f"{url}api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=LOGIN, timeout=30).status_code == 401


def _register_user(walk: Walk) -> None:
    variables = walk.demo.variables
    file = Path(variables["DEMO_HOME"]) / "groups" / variables["DEMO_GROUP"] / "aihub" / ENV_NAME / "yml" / "basic_auth.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{{'user_name': '{LOGIN[0]}', 'pass': '{LOGIN[1]}'}}\n")
    file.chmod(0o600)
    walk.console.register_users(ENV_NAME)


def _train_twice(walk: Walk) -> None:
    done = walk.typed(TRAIN)
    for version in ("1", "2"):
        assert f"Created version '{version}' of model 'ElasticnetWineModel'" in done.stdout + done.stderr


def _runs(url: str) -> list[str]:
    """Names of the runs in the default experiment."""
    answer = requests.post(f"{url}api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}, auth=LOGIN, timeout=60)
    assert answer.status_code == 200, answer.text
    return [run["info"]["run_name"] for run in answer.json()["runs"]]


def _both_runs_are_in_the_ui(browser: Browser, url: str) -> None:
    names = _runs(url)
    assert len(names) == 2
    context = browser.new_context(http_credentials={"username": LOGIN[0], "password": LOGIN[1]}, viewport={"width": 1600, "height": 1000})
    page: Page = context.new_page()
    page.goto(f"{url}#/experiments/0/runs")
    for name in names:
        expect(page.get_by_text(name).first).to_be_visible(timeout=60_000)
    context.close()


def _export_version_2(walk: Walk) -> None:
    walk.typed(f"cd {walk.work}", EXPORT)
    (package,) = walk.work.glob("MLWFExportModel_*")
    assert package.stat().st_mode & 0o777 == 0o750
    info = yaml.safe_load((package / "info.yaml").read_text())
    assert (info["Name"], str(info["Version"])) == ("ElasticnetWineModel", "2")

    unpacked = walk.work / "unpacked"
    with tarfile.open(package / "model.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    requirements = (unpacked / "requirements.txt").read_text()
    assert "scikit-learn==" in requirements
    assert "flask-openapi3" not in requirements, "the packages of this checkout are not the model's"
    script = "import json, mlflow, pandas; m = mlflow.pyfunc.load_model('unpacked'); print(m.predict(m.input_example).shape[0])"
    assert walk.command("python", "-c", script).stdout.split()[-1] == str(len(json.loads(_input_example(unpacked))["data"]))


def _export_by_a_click(walk: Walk) -> None:
    """The console's Export model, which the demo runs on its own host as the caller, until the package is there."""
    output = walk.work / "by-click"
    folder = Path(
        walk.console.export_model(ENV_NAME, {"model_name": "ElasticnetWineModel", "model_version": "1", "output_dir": str(output)})
    )
    assert folder.parent == output
    assert {"artifacts", "model.tar.gz", "info.yaml"} <= {each.name for each in folder.iterdir()}
    assert str(yaml.safe_load((folder / "info.yaml").read_text())["Version"]) == "1"


def _no_secret_where_none_belongs(walk: Walk, url: str) -> None:
    """Neither in a log (the console's, too), nor in a database, a package, an argument list or an environment, after all that."""
    home, variables = walk.demo.home, walk.demo.variables
    token = walk.command("mlwf", "token", "create", f"{variables['DEMO_GROUP']}/{ENV_NAME}").stdout.strip()
    may_hold: dict[str, tuple[str, ...]] = {variables["AWS_SECRET_ACCESS_KEY"]: MAY_HOLD_A_SECRET, LOGIN[1]: MAY_HOLD_A_SECRET, token: ()}
    for name in KEYS_OF_A_BOX:
        (file,) = home.glob(f"**/{name}")
        may_hold |= dict.fromkeys(re.findall(r'": "([^"]{20,})"', file.read_text()), (name,))
    for secret in tuple(may_hold):  # in another form nowhere
        may_hold |= dict.fromkeys(forms_of(secret, LOGIN[0]) - {secret}, ())
    files: dict[Path, bytes] = {}
    for path in (path for place in (home, walk.work) for path in place.rglob("*") if path.is_file()):
        with contextlib.suppress(FileNotFoundError):  # MLflow takes what lies beside its database along when it falls asleep
            files[path] = path.read_bytes()
    found = [(str(path), places) for path, held in files.items() for secret, places in may_hold.items() if secret.encode() in held]
    assert {places for _path, places in found} == {MAY_HOLD_A_SECRET, *((name,) for name in KEYS_OF_A_BOX)}
    assert [path for path, places in found if not path.endswith(places)] == []
    assert [path for path, _places in found if is_open(Path(path))] == []
    assert _runs(url), "which also wakes MLflow"
    told = [*walk.demo.processes(), *walk.demo.environments()]
    assert any("tracking_server.mlflow_process" in line for line in told)
    assert not [line for line in told if any(secret in line for secret in may_hold)]


def _input_example(model: Path) -> str:
    name = str(yaml.safe_load((model / "MLmodel").read_text())["saved_input_example_info"]["artifact_path"])
    return str((model / name).read_text())


def _asleep_and_awake_again(walk: Walk, url: str) -> None:
    _until(lambda: _state(url) == "asleep", "the server did not fall asleep")
    walk.console.expect_status(ENV_NAME, "sleeping")
    assert _state(url) == "asleep", "looking wakes nobody"
    assert len(_runs(url)) == 2
    assert _state(url) == "awake"


def _state(url: str) -> str:
    return str(requests.get(f"{url}-/health", timeout=10).json()["state"])


def _ctrl_c_leaves_nothing(walk: Walk) -> None:
    walk.process.send_signal(signal.SIGINT)
    said, _none = walk.process.communicate(timeout=90)
    assert walk.process.returncode == 0, said
    assert walk.demo.processes() == []


def _up_again_finds_everything(walk: Walk, url: str) -> None:
    walk.demo.run("up")
    assert walk.demo.run("status").stdout.count("running") == 3
    _until(lambda: _answers(url), "the server did not come back after the demo's restart")
    assert len(_runs(url)) == 2
    walk.demo.run("down")
    assert walk.demo.processes() == []


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}-/health", timeout=10).ok
    except requests.ConnectionError:
        return False


def _until(condition: Callable[[], bool], failure: str, *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.2)
