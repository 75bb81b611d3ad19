"""What an unpacked base says and holds, as an enemy would have made it."""

import json
import shutil
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
    kit = SimpleNamespace(tool=SimpleNamespace(run=lambda *_asked, timeout: SAID), runner=None)
    facts = _probe(kit, tmp_path, "base", "sha256:1")  # type: ignore[arg-type]
    assert facts.pythons == {"3.11.2": "/usr/bin/python3"}


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
