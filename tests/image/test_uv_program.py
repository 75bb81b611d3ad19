"""uv, and whatever it builds, sees named variables only."""

import os
import platform
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import Cache
from mlwf.image.certificates import trusted
from mlwf.image.environment.install import Environments
from mlwf.image.environment.lock import BasePlatform, make_lock
from mlwf.image.environment.pythons import Python
from mlwf.image.environment.uv_program import named, run_uv
from mlwf.image.kit import Kit
from mlwf.image.model.package import read_package
from mlwf.image.process import ProgramError, Runner
from mlwf.image.tool import ContainerTool

from tests.image.index import Index, Serving
from tests.support.tls import Authority

VERSION = platform.python_version()
NEEDED = ("PATH", "HOME", "UV_DEFAULT_INDEX", "UV_INDEX_SITE_PASSWORD", "no_proxy", "LC_ALL", "CC")
SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLWF_TOKEN", "GITHUB_TOKEN",
    "APPTAINER_DOCKER_PASSWORD", "UV_PUBLISH_TOKEN", "UV_GITHUB_TOKEN", "SSH_AUTH_SOCK", "HF_TOKEN", "PYTHONPATH",
)  # fmt: skip
# Each of them broke a build, or led it to another Python than the one that was named.
OTHERWISE = {
    "UV_NO_CACHE": "1", "UV_PYTHON": "3.9", "UV_WORKING_DIR": "/usr", "UV_SYSTEM_PYTHON": "1", "UV_VENV_SEED": "1", "UV_PROJECT": "/usr",
    "UV_LOCKED": "1", "UV_NO_VERIFY_HASHES": "1", "UV_CONFIG_FILE": "/nowhere/uv.toml", "UV_PYTHON_PREFERENCE": "only-managed",
    "UV_REQUIRE_HASHES": "1", "UV_COMPILE_BYTECODE": "1", "UV_NO_BINARY": ":all:", "UV_CONSTRAINT": "/nowhere/constraints.txt",
    "UV_PYTHON_SEARCH_PATH": "/nowhere", "UV_OFFLINE": "1",
}  # fmt: skip
# Builds the package, and writes down whatever variables it sees.
BACKEND = """\
import os, zipfile
from pathlib import Path

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with (Path.home() / "seen").open("a") as seen:
        seen.write("\\n".join([*os.environ, "END", ""]))
    with zipfile.ZipFile(Path(folder, "built-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("built.py", "")
        wheel.writestr("built-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: built\\nVersion: 1.0\\n")
        wheel.writestr("built-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("built-1.0.dist-info/RECORD", "")
    return "built-1.0-py3-none-any.whl"
"""
PROJECT = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: built\nVersion: 1.0\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
}

VERSION = platform.python_version()


@pytest.mark.parametrize(
    "name",
    [*NEEDED, "https_proxy", "HTTPS_PROXY", "SSL_CERT_FILE", "UV_TORCH_BACKEND", "UV_FIND_LINKS", "NETRC", "UV_INDEX", "UV_HTTP_TIMEOUT",
     "UV_PYTHON_DOWNLOADS", "UV_EXCLUDE_NEWER"],
)  # fmt: skip
def test_what_uv_needs_it_gets(name: str) -> None:
    assert named({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_not_for_uv_it_does_not_get(name: str) -> None:
    assert named({name: "value"}) == {}


def test_what_the_user_has_set_for_other_work_with_uv_does_not_matter(
    tmp_path: Path, serve_index: Callable[[Index], Index], make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that there is no Python in the search path, nor that the cache was named from where the user is."""
    index = serve_index(Index().add("top", "1.0"))
    monkeypatch.chdir(tmp_path)
    runner, cache = Runner({"PATH": "/nowhere", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url, **OTHERWISE}), Cache(Path("cache"))
    (cache.root / "work").mkdir(parents=True)
    package = read_package(make_folder({"requirements.txt": "top==1.0"}))
    lock = make_lock(
        package, VERSION, BasePlatform("2.36", "amd64"), runner=runner, cache=cache.root / "wheels", folder=cache.root / "work"
    )
    made = environments(runner, cache)
    layer = cache.root / "work/layer"
    layer.mkdir()
    made.fetch(lock, layer)
    made.install(lock, layer)
    assert list(layer.glob("env/lib/python*/site-packages/top/__init__.py"))
    assert list((tmp_path / "cache").glob("wheels/*/archive-v0/*/top"))


def environments(runner: Runner, cache: Cache, *, only_wheels: bool = True) -> Environments:
    facts = SimpleNamespace(source="base", digest="sha256:one", glibc="2.36", architecture="amd64")
    base = ComingBase(facts, SimpleNamespace)  # type: ignore[arg-type, return-value]
    kit = Kit(None, runner, None, cache, None)  # type: ignore[arg-type]
    return Environments(kit, base, Python(VERSION, "python", None, "base"), only_wheels=only_wheels)


def test_a_package_that_is_built_sees_no_secret(
    tmp_path: Path, serve_index: Callable[[Index], Index], make_folder: Callable[..., Path]
) -> None:
    index = serve_index(Index().add_sdist("built", "1.0", PROJECT))
    environ = dict.fromkeys((*NEEDED, *SECRETS), "nothing") | {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url,
    }  # fmt: skip
    runner, cache = Runner(environ), Cache(tmp_path / "cache")
    cache.root.mkdir()
    package = read_package(make_folder({"requirements.txt": "built==1.0"}))
    lock = make_lock(
        package, VERSION, BasePlatform("2.36", "amd64"), runner=runner, cache=tmp_path / "of-lock", folder=tmp_path, only_wheels=False
    )
    environments(runner, cache, only_wheels=False).fetch(lock, tmp_path / "layer")

    builds = [set(each.split("\n")) for each in (tmp_path / "seen").read_text().split("END\n")[:-1]]
    assert len(builds) == 2, "once for the lock, once for its wheel"
    for seen in builds:
        assert set(NEEDED) <= seen
        assert not set(SECRETS) & seen


def test_a_ca_that_requests_trusts_is_trusted_by_uv_and_the_container_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").touch()
    monkeypatch.chdir(tmp_path)  # uv runs elsewhere
    file = str(tmp_path / "ca.pem")
    assert trusted({"REQUESTS_CA_BUNDLE": "ca.pem", "CURL_CA_BUNDLE": "/other"}) == {"SSL_CERT_FILE": file}
    assert named({"CURL_CA_BUNDLE": file, "SSL_CERT_FILE": ""}) == {"SSL_CERT_FILE": file}
    assert trusted({"REQUESTS_CA_BUNDLE": str(tmp_path)}) == {"SSL_CERT_DIR": str(tmp_path)}
    for said in ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS"):
        assert named({"REQUESTS_CA_BUNDLE": file, said: "/own"}) == {said: "/own"}
    (tmp_path / "apptainer").write_text(f'#!/bin/sh\necho "$SSL_CERT_FILE" >"{tmp_path}/trusts"\n')
    (tmp_path / "apptainer").chmod(0o755)
    tool, runner = ContainerTool(tmp_path / "apptainer", "apptainer", "1.4.5"), Runner({"REQUESTS_CA_BUNDLE": file})
    tool.build_sandbox(runner, "docker://x", tmp_path / "x", shown="x", tmpdir=tmp_path)
    assert (tmp_path / "trusts").read_text() == f"{file}\n"


def test_uv_asks_an_index_whose_certificate_requests_trusts(tmp_path: Path) -> None:
    authority, index = Authority(tmp_path / "tls"), Index().add("top", "1.0")
    authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / "fullchain.pem", authority.folder / "privkey.pem")
    serving = Serving(index, tls=context)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url.replace("http:", "https:")}
    argv = ["pip", "install", "--no-config", "--no-cache", "--target", tmp_path / "into", "--python", sys.executable, "top"]
    try:
        with pytest.raises(ProgramError, match=r"(?i)certificate|UnknownIssuer"):
            run_uv(Runner(environ), argv, "What", within=tmp_path)
        run_uv(Runner({**environ, "REQUESTS_CA_BUNDLE": str(authority.ca_file)}), argv, "What", within=tmp_path)
    finally:
        serving.stop()
    assert (tmp_path / "into/top").is_dir()
