"""What is made of the last words of a one-shot container on a box's folder: Python's, as keeper_script.py said them on a full disk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.errors import ServiceError
from backend.runtimes.keeper import ContainerKeeper


class Failing:
    """A daemon whose container fails with these last words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def images(self, _name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(id="sha256:abc", created="2026")]

    def run(self, _what: str, _arguments: dict[str, Any], **_more: Any) -> tuple[int, str]:
        return 1, f'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n{self.words}\n'


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("OSError: [Errno 28] No space left on device: '/in/mlflow.db' -> '/box/data/.mlflow.db.new'", "disk_full"),
        ("OSError: [Errno 122] Quota exceeded", "disk_full"),  # in an image with musl
        ("sqlite3.OperationalError: database or disk is full", "disk_full"),
        ("OSError: [Errno 39] Directory not empty: '/box/data/No space left on device'", "snapshot_failed"),
        ("sqlite3.DatabaseError: database disk image is malformed", "snapshot_failed"),
    ],
)
def test_a_full_disk_is_known_by_its_number_and_by_no_files_name(tmp_path: Path, said: str, code: str):
    box = tmp_path / "box"
    (box / "data").mkdir(parents=True)
    (box / "data" / "mlflow.db").touch()
    keeper = ContainerKeeper(engine=Failing(said), image="box:{version}")  # type: ignore[arg-type]
    with pytest.raises(ServiceError) as caught:
        keeper.copy_database(box, tmp_path / "taken.db")
    assert caught.value.code == code
