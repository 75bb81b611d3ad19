"""uv, and whatever it builds, sees named variables only."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image.base import ComingBase
from mlwf.image.cache import Cache
from mlwf.image.environment import Environments
from mlwf.image.kit import Kit
from mlwf.image.lock import BasePlatform, make_lock
from mlwf.image.package import read_package
from mlwf.image.process import Runner
from mlwf.image.pythons import Python
from mlwf.image.uv_program import named

from tests.image.index import Index
from tests.image.test_environment import VERSION

NEEDED = ("PATH", "HOME", "UV_DEFAULT_INDEX", "UV_INDEX_SITE_PASSWORD", "no_proxy", "LC_ALL", "CC")
SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLWF_TOKEN", "GITHUB_TOKEN",
    "APPTAINER_DOCKER_PASSWORD", "UV_PUBLISH_TOKEN", "UV_GITHUB_TOKEN", "SSH_AUTH_SOCK", "HF_TOKEN", "PYTHONPATH",
)  # fmt: skip
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


@pytest.mark.parametrize("name", [*NEEDED, "https_proxy", "HTTPS_PROXY", "SSL_CERT_FILE", "UV_TORCH_BACKEND", "UV_FIND_LINKS", "NETRC"])
def test_what_uv_needs_it_gets(name: str) -> None:
    assert named({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_not_for_uv_it_does_not_get(name: str) -> None:
    assert named({name: "value"}) == {}


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
    facts = SimpleNamespace(source="base", digest="sha256:one", glibc="2.36", architecture="amd64")
    base = ComingBase(facts, SimpleNamespace)  # type: ignore[arg-type, return-value]
    kit = Kit(None, runner, None, cache, None)  # type: ignore[arg-type]
    Environments(kit, base, Python(VERSION, "python", None, "base"), only_wheels=False).fetch(lock, tmp_path / "layer")

    builds = [set(each.split("\n")) for each in (tmp_path / "seen").read_text().split("END\n")[:-1]]
    assert len(builds) == 2, "once for the lock, once for its wheel"
    for seen in builds:
        assert set(NEEDED) <= seen
        assert not set(SECRETS) & seen
