"""What a user's shell brings along: packages of environment modules, streams that are closed, full or of a narrow locale."""

import base64
import errno
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import requests
from mlwf.cli import create_image, export_model
from mlwf.doctor.findings import look
from mlwf.doctor.server_checks import Server
from mlwf.errors import MlwfError
from mlwf.export.api import RegistryError, TrackingApi
from mlwf.report import show_failure
from mlwf.transfer.session import tracking_session

from tests.house.tree import ROOT
from tests.mlwf.exporting import surroundings
from tests.mlwf.fake_service import FakeService
from tests.mlwf.tracking import Tracking

OWN = str(ROOT / "mlwf/src")


def mlwf(folder: Path, environ: Mapping[str, str], *arguments: str, after: str = "") -> "subprocess.CompletedProcess[bytes]":
    """Runs the command as its script does, by a shell that closes or directs streams (`after`)."""
    argv = ["sh", "-c", f'exec "$@" {after}', "sh", sys.executable, "-c", "from mlwf.cli.program import mlwf; mlwf()", *arguments]
    return subprocess.run(
        argv, cwd=folder, env=surroundings(folder, {"PYTHONPATH": OWN, **environ}), capture_output=True, timeout=60, check=False
    )


def test_the_scripts_begin_with_what_this_tests() -> None:
    scripts = tomllib.loads((ROOT / "mlwf/pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {
        "mlwf": "mlwf.cli.program:mlwf",
        "mlwf_export_model": "mlwf.cli.program:export_model",
        "mlwf_create_image": "mlwf.cli.program:create_image",
    }


@pytest.mark.parametrize("named", ["modules", ""])
def test_packages_of_others_have_no_say(named: str, service: FakeService, tmp_path: Path) -> None:
    """Of PYTHONPATH: an environment module's, for another Python perhaps, and with an empty part the folder where the user is."""
    modules = tmp_path / named
    modules.mkdir(exist_ok=True)
    for name in ("click", "requests", "yaml", "rich"):
        (modules / f"{name}.py").write_text("raise ImportError('this one is for another Python')")
    ended = mlwf(tmp_path, {"MLWF_SERVICE": service.address, "PYTHONPATH": f"{OWN}:{named and modules}"}, "server", "list")
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("after", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(after: str, service: FakeService, tmp_path: Path) -> None:
    service.add("g", "wine")
    ended = mlwf(tmp_path, {"MLWF_SERVICE": service.address}, "server", "stop", "g/wine", after=after)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "POST" in {method for method, *_ in service.requests}


def test_a_command_gets_no_closed_streams(service: FakeService, tmp_path: Path) -> None:
    """The first file that it opened would be its stdout, and have what its own programs print in it."""
    service.add("g", "wine")
    look = "import os; open('told', 'w').write(repr([os.path.realpath(f'/proc/self/fd/{each}') for each in (0, 1)]))"
    hold = ("lease", "hold", "g/wine", "--", sys.executable, "-c", look)
    assert mlwf(tmp_path, {"MLWF_SERVICE": service.address}, *hold, after="<&- >&-").returncode == 0
    assert (tmp_path / "told").read_text() == repr([os.devnull] * 2)


def test_what_is_printed_finds_no_room(service: FakeService, tmp_path: Path) -> None:
    """It was told as a fault of the tool, and by Python once more."""
    ended = mlwf(tmp_path, {"MLWF_SERVICE": service.address}, "server", "list", after=">/dev/full")
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        (
            "Error: The output, or a file that belongs to it, cannot be written: No space left on device. "
            "Free some space, or send the output elsewhere."
        )
    ]


@pytest.mark.parametrize("program", [export_model, create_image])
def test_a_folder_that_can_no_longer_be_printed(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended in a traceback."""

    def full(**_options: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(program, "command", full)
    for name in ("print_anything", "keep_freed_memory"):
        monkeypatch.setattr(program, name, lambda: None, raising=False)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 1


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_limit_of_memory_is_no_fault_of_the_tool(fault: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen with an export under `ulimit -v`, as Grid Engine's h_vmem sets it."""
    show_failure(fault, stacktrace=False)
    assert "There is too little memory here" in capsys.readouterr().err


def test_a_terminal_without_a_size(service: FakeService, tmp_path: Path) -> None:
    """Errors, too, were not shown."""
    ended = mlwf(tmp_path, {"MLWF_SERVICE": service.address, "COLUMNS": "0"}, "server", "show", "g/none")
    assert (ended.returncode, ended.stderr[:7]) == (1, b"Error: ")


def test_a_narrow_locale_tells_good_from_failed(tmp_path: Path) -> None:
    narrow = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": "/nowhere", "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-c", "from mlwf.cli.program import mlwf; mlwf()", "doctor"]
    environ = surroundings(tmp_path, {"PYTHONPATH": OWN, **narrow})
    said = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, timeout=60, check=False).stdout.decode()
    assert [line for line in said.splitlines() if line.startswith("x  Apptainer")], said
    assert [line for line in said.splitlines() if line.startswith(("+  ", "-  "))], said
    assert "?" not in said


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    ("variable", "proxy", "why"),
    [
        ("http_proxy", "http://127.0.0.1:9", "Connection refused"),
        ("HTTP_PROXY", "http://me:p@ss/w@127.0.0.1:9", ""),
        ("http_proxy", "me:p@ss/w@127.0.0.1:9", ""),
        ("http_proxy", "http://me:p/w@127.0.0.1:9", "not a valid host or port"),
        ("http_proxy", "http://me:p@127.0.0.1:99999", "Failed to parse: http://…@127.0.0.1:99999"),
        ("ALL_PROXY", "socks5h://127.0.0.1:9", "Missing dependencies for SOCKS support"),
        ("http_proxy", "127.0.0.1:port", "not a valid host or port"),
    ],
)
def test_a_proxy_that_does_not_answer_is_named(variable: str, proxy: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server was told as stopped, or its certificate as not trusted; of a password with an @ the doctor showed the end."""
    monkeypatch.setenv(variable, proxy)
    url = "http://127.0.0.2:9/mlflow"
    with pytest.raises(RegistryError) as failed:
        TrackingApi(url, tracking_session(url, {}), wait=lambda _seconds: None).get("x")
    shown = re.sub("me:p.*@", "…@", proxy)
    assert f"through the proxy {shown}: for a server inside, add 127.0.0.2 to no_proxy" in str(failed.value)
    found = {each.check: each for each in look(Server(url, {}, str).checks(), seconds=10)}
    assert why in str(failed.value)
    assert why in found["address"].text
    assert f"requests go through {shown};" in found["proxy"].text
    assert "me:p" not in f"{failed.value}{found}"


class _AsksForALogin(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(407)

    do_CONNECT = do_GET  # noqa: N815  # as the server calls it

    def log_message(self, *_words: object) -> None:
        return


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_login_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told as the server's own word, without a cure, or as nothing but ProxyError."""
    url = f"{scheme}://127.0.0.2:9/mlflow"
    with ThreadingHTTPServer(("127.0.0.1", 0), _AsksForALogin) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(RegistryError, match="407") as failed:
            TrackingApi(url, tracking_session(url, {}), wait=lambda _seconds: None).get("x")
        server.shutdown()
    assert f"through the proxy http://127.0.0.1:{server.server_port}: for a server inside" in str(failed.value)


def test_a_missing_bundle_is_named_by_its_own_variable() -> None:
    with pytest.raises(MlwfError, match="CURL_CA_BUNDLE names /nowhere"):
        tracking_session("https://x", {"CURL_CA_BUNDLE": "/nowhere"})


def test_a_token_that_a_shell_still_has_is_named(tracking: Tracking) -> None:
    """User and password were said to be wrong, which nobody had sent."""
    token = {"MLFLOW_TRACKING_TOKEN": "of-another-server"}
    with pytest.raises(RegistryError, match="does not know the token in MLFLOW_TRACKING_TOKEN"):
        TrackingApi(tracking.url.rstrip("/"), tracking_session(tracking.url, token)).get("experiments/get")


def test_a_user_name_of_another_encoding() -> None:
    """As the environment has it: a fault of the tool before."""
    session = tracking_session("http://x", {"MLFLOW_TRACKING_USERNAME": "\udcbb", "MLFLOW_TRACKING_PASSWORD": "p"})
    request = session.prepare_request(requests.Request("GET", "http://x"))
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"\xbb:p").decode()
