"""Locks made by the real uv against an index on loopback."""

import base64
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.environment.lock import BasePlatform, Lock, _packages
from mlwf.image.model.requirements import Policy

from tests.image.conftest import Locking
from tests.image.index import Index

Serve = Callable[[Index], Index]
MakeFolder = Callable[..., Path]


def test_every_package_with_its_version_and_hashes(serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    index = serve_index(Index().add("top", "1.0", requires=["below>=1"]).add("below", "1.5").add("below", "2.0").add("below", "3.0"))
    folder = make_folder({"requirements.txt": "-c constraints.txt\ntop==1.0", "constraints.txt": "below<3"})
    lock = locking(index).lock(folder)
    assert [(each.name, each.version, each.hashes) for each in lock.packages] == [
        ("below", "2.0", (index.sha256("below-2.0-py3-none-any.whl"),)),
        ("top", "1.0", (index.sha256("top-1.0-py3-none-any.whl"),)),
    ]
    assert lock.python == "3.11.7"


def test_the_same_again_without_network_and_what_is_missing(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]
) -> None:
    index = serve_index(Index().add("top", "1.0"))
    makes = locking(index)
    online = makes.lock(make_folder({"requirements.txt": "top==1.0"}))
    asked = len(index.asked)
    assert makes.lock(make_folder({"requirements.txt": "top==1.0"}), offline=True) == online
    assert len(index.asked) == asked
    with pytest.raises(MlwfError, match="--fetch-only"):
        makes.lock(make_folder({"requirements.txt": "other==1.0"}, name="other"), offline=True)


def test_wheels_only_unless_allowed(serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    makes = locking(serve_index(Index().add_sdist("top", "1.0").add("old", "1.0", tag="cp39-cp39-manylinux_2_17_x86_64")))
    for name in ("top", "old"):
        with pytest.raises(MlwfError) as caught:
            makes.lock(make_folder({"requirements.txt": f"{name}==1.0"}, name=name))
        assert "--allow-source-builds" in str(caught.value)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("glibc", "name"), [("2.17", "17"), ("2.27", "17"), ("2.28", "28"), ("2.30", "28"), ("2.36", "36"), ("2.44", "40")]
)
def test_platforms_as_uv_knows_them(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking], glibc: str, name: str
) -> None:
    platform = BasePlatform(glibc, "amd64")
    assert platform.as_uv() == f"x86_64-manylinux_2_{name}"
    makes = locking(serve_index(Index().add("top", "1.0", tag=f"cp311-cp311-manylinux_2_{name}_x86_64")))
    assert makes.lock(make_folder({"requirements.txt": "top"}), platform=platform).packages[0].version == "1.0"


@pytest.mark.parametrize(("glibc", "architecture"), [("", "amd64"), ("2.12", "amd64"), ("2.36", "riscv64")])
def test_bases_without_wheels(glibc: str, architecture: str) -> None:
    with pytest.raises(MlwfError, match="cannot be installed in this base image"):
        BasePlatform(glibc, architecture).as_uv()


def test_an_index_of_the_model_stands_in_the_lock(serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    site, other = serve_index(Index().add("top", "1.0")), serve_index(Index().add("rare", "2.0"))
    folder = make_folder({"requirements.txt": f"--extra-index-url {other.url}\ntop==1.0\nrare==2.0"})
    lock = locking(site).lock(folder, Policy(indexes=True))
    assert lock.text.splitlines()[0] == f"--extra-index-url {other.url}"
    assert [each.name for each in lock.packages] == ["rare", "top"]
    # Another index is another lock, even with the same packages.
    assert lock.digest != Lock(lock.text.partition("\n")[2], lock.python).digest


def test_a_password_of_the_index_is_nowhere(serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    index = serve_index(Index(password="hunter2-of-the-site").add("top", "1.0"))
    makes = locking(index, index.url_with_password)
    lock = makes.lock(make_folder({"requirements.txt": "top==1.0"}))
    with pytest.raises(MlwfError) as caught:
        makes.lock(make_folder({"requirements.txt": "none==1.0"}, name="none"))
    kept = [path.read_bytes() for path in makes.folder.rglob("*") if path.is_file()]
    assert len(kept) > 3
    encoded = base64.b64encode(f"site:{index.password}".encode())
    for text in (lock.text.encode(), str(caught.value).encode(), repr(caught.value.__cause__).encode(), *kept):
        assert index.password.encode() not in text
        assert encoded not in text


@pytest.mark.parametrize(
    "rest", ["\r-e artifacts", "\n  -e artifacts", "\n-r more.txt", "\x0c-e x", " -e x", "\n--extra-index-url https://x"]
)
def test_a_lock_holds_packages_and_nothing_else(rest: str) -> None:
    """Whatever a hash or a name of the model's uv.lock, or of an index, may hold: uv 0.13 itself takes no other hash."""
    good = "a[x]==1.0+cpu ; python_full_version == '3.11.*' and sys_platform == 'linux' \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n"
    good += "b @ https://x.example/b-1.whl \\\n    --hash=sha256:ef\n"
    assert [each["name"] for each in _packages(good)] == ["a", "b"]
    assert _packages("") == []
    for place in ("cd", "ef"):
        with pytest.raises(MlwfError, match="it has no fixed version"):
            _packages(good.replace(place, place + rest))


def test_nothing_of_the_folder_where_the_user_is(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a stranger's: uv runs the Python of a .venv, and takes a name for a file."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    index = Index().add("top", "1.0")
    lock = locking(serve_index(index)).lock(make_folder({"requirements.txt": "top==1.0"}))
    assert [each.name for each in lock.packages] == ["top"]
    assert not (tmp_path / "ran").exists()
