"""What an unpacked base says and holds, as an enemy would have made it."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.errors import MlwfError
from mlwf.image.base.converted import _prepare, _probe

SAID = (
    "x86_64\nglibc 2.36\n3.11.2 /usr/bin/python3\n3.11./../../../home/u.2 /usr/bin/python3\n"
    "3.12.1 bin/python\n3.12.2 /a b\n3.13.1 /x\x1b[2J\n"
)


def test_what_a_base_says_of_itself_names_no_path_here(tmp_path: Path) -> None:
    kit = SimpleNamespace(tool=SimpleNamespace(run=lambda *_asked, timeout, cure: SAID), runner=None)
    facts = _probe(kit, tmp_path, "base", "sha256:1")  # type: ignore[arg-type]
    assert facts.pythons == {"3.11.2": "/usr/bin/python3"}


def test_a_python_beside_the_one_that_is_called_python3_is_the_bases_own(tmp_path: Path) -> None:
    """As on Rocky 9 with its package python3.11. What is no Python of a version is not run."""
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    for name, version in (("python3", "3.9.18"), ("python3.9", "3.9.18"), ("python3.11", "3.11.9"), ("python3.12", "")):
        says = f'echo "{version} /usr/bin/{name}"' if version else "echo 'No module named venv' >&2; exit 1"
        (programs / name).write_text(f"#!/bin/sh\n{says}\n")
    (programs / "python3.11-config").write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'; echo '3.11.1 /usr/bin/python3.11-config'\n")
    for each in programs.iterdir():
        each.chmod(0o755)

    def run(_runner: object, root: Path, command: list[str], *_more: object, timeout: int, **_cure: str) -> str:
        script = command[-1].replace("/usr/", f"{root}/usr/").replace("/opt/", f"{root}/opt/")
        assert script.count(str(root)) >= 5
        path = {"PATH": f"{programs}:/usr/bin:/bin"}
        return subprocess.run([*command[:-1], script], env=path, capture_output=True, text=True, check=True, timeout=timeout).stdout

    kit = SimpleNamespace(tool=SimpleNamespace(run=run), runner=None)
    facts = _probe(kit, tmp_path, "base", "sha256:1")  # type: ignore[arg-type]
    assert facts.pythons == {"3.9.18": "/usr/bin/python3", "3.11.9": "/usr/bin/python3.11"}
    assert not (tmp_path / "ran").exists()


def test_links_of_a_base_are_not_followed(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "base"
    meta = root / ".singularity.d"
    (meta / "env").mkdir(parents=True)
    home.mkdir()
    (home / "secret").write_text('{"key": "of the user"}')
    (meta / "env/10-x.sh").symlink_to(home / "secret")
    (meta / "labels.json").symlink_to(home / "secret")
    assert "of the user" not in json.dumps(_prepare(root, "base"))
    assert (home / "secret").read_text() == '{"key": "of the user"}'
    for place in (meta / "env", meta):
        shutil.rmtree(place)
        place.symlink_to(home)
        with pytest.raises(MlwfError, match="is not a folder"):
            _prepare(root, "base")
        place.unlink()
    assert [each.name for each in home.iterdir()] == ["secret"]
