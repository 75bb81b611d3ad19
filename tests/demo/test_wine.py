"""The wine sample reads UCI's layout, falls back aloud, and says what to do about a file it cannot use."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.house.tree import ROOT

PYTHON = ROOT / "var/envs/mlflow-3.17.2/bin/python"
# UCI's own layout, with rows made up here: a quality that follows from two of the columns.
COLUMNS = ["fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide",
           "total sulfur dioxide", "density", "pH", "sulphates", "alcohol", "quality"]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        ";".join([str(v) for v in (7 + i % 5, 0.3 + i % 7 / 10, 0.1, 2, 0.08, 10 + i % 9, 40, 0.99, 3.3, 0.6, 9 + i % 6, 3 + i % 6)])
        for i in range(80)
    ]
    file = tmp_path / "wine.csv"
    file.write_text("\n".join([";".join(f'"{name}"' for name in COLUMNS), *rows]))
    return file


def _train(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [str(PYTHON), str(ROOT / "samples/wine/train.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment | more, capture_output=True, text=True, check=False, timeout=150)


class _Portal(BaseHTTPRequestHandler):
    """Answers whatever is asked for with the network's own page, as if that were it."""

    def do_GET(self) -> None:
        page = b"<html>\n<head><title>Sign in</title></head>\n<body>Sign in to use this network</body>\n</html>\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def portal() -> Iterator[str]:
    """The address of such a page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Portal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/winequality-red.csv"
        server.shutdown()
        thread.join()


@pytest.mark.heavy  # a minute; the walk (tests/e2e) trains twice in every run
def test_two_runs_make_two_versions(data: Path, tmp_path: Path) -> None:
    first = _train(tmp_path, "0.5", "0.5", "--data", str(data))
    assert first.returncode == 0, first.stderr
    # Nothing listens on that port, so UCI is out of reach; the bundled data take its place, and that is said.
    unreachable = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    second = _train(tmp_path, "0.1", "0.9", **unreachable)
    assert second.returncode == 0, second.stderr
    assert "using the wine data that comes with scikit-learn" in second.stdout
    assert "Created version '2' of model 'ElasticnetWineModel'" in second.stdout + second.stderr
    assert "rmse" in second.stdout


@pytest.mark.box
@pytest.mark.parametrize(("content", "said"), [(None, "check the path or address"), ("a,b\n1,2\n", "has no column `quality`")])
def test_a_file_that_cannot_be_used_is_said_with_the_cure(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "other.csv"
    if content:
        file.write_text(content)
    run = _train(tmp_path, "0.5", "0.5", "--data", str(file))
    assert run.returncode == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.box
def test_a_sign_in_page_in_ucis_place_is_no_data(portal: str, tmp_path: Path) -> None:
    # The sample's own reading, without the training; UCI's address is https, where no portal could answer without a certificate of UCI's.
    reading = "import sys, train; train.UCI = sys.argv[1]; print(train.wine(None)[2])"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "samples/wine"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(PYTHON), "-c", reading, portal]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=150)
    assert run.returncode == 0, run.stderr
    assert "perhaps a page of this network's sign-in or proxy" in run.stdout
    assert run.stdout.splitlines()[-1] == "scikit-learn wine"


@pytest.mark.box
def test_a_page_in_the_place_of_data_that_were_asked_for_ends_it(portal: str, tmp_path: Path) -> None:
    run = _train(tmp_path, "0.5", "0.5", "--data", portal)
    assert run.returncode == 1
    assert f"{portal} has no column `quality`" in run.stderr
