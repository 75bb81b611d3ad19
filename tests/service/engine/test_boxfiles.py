import configparser
import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlwf.secret import Secret

from backend import atomic
from backend.domain import StorageKey, User
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from tests.service.engine.contract_boxfiles import BoxFilesContract, box_of

ID = "k3v9x2m7q4ab"


@pytest.fixture
def boxes(tmp_path: Path) -> BoxDirectories:
    return BoxDirectories(tmp_path / "servers")


class TestBoxDirectories(BoxFilesContract):
    pass


def test_config_is_as_the_reference_has_it_and_nobody_elses(boxes: BoxDirectories):
    boxes.install(box_of(ID, users=(User(name="alice", bcrypt="$2b$10$x"),)))
    config = boxes.directory(ID) / "config"
    assert json.loads((config / "settings.json").read_text()) == {"server_id": ID, "listen": "127.0.0.1:1"}
    assert json.loads((config / "users.json").read_text()) == {"users": [{"name": "alice", "bcrypt": "$2b$10$x"}]}
    assert json.loads((config / "keys.json").read_text()) == {
        "webhook_secret_encryption_key": "w",
        "crypto_kek_passphrase": "k",
        "flask_secret_key": "f",
    }
    credentials = configparser.RawConfigParser()
    credentials.read(config / "s3" / "credentials")
    assert dict(credentials["default"]) == {"aws_access_key_id": "AKIA", "aws_secret_access_key": "s3cr3t"}
    for path in (boxes.directory(ID), *boxes.directory(ID).rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_only_what_differs_is_replaced_and_by_rename(boxes: BoxDirectories):
    boxes.install(box_of(ID))
    config = boxes.directory(ID) / "config"
    before = {path: path.stat().st_ino for path in config.rglob("*") if path.is_file()}
    boxes.install(box_of(ID, secret=Secret("another")))
    changed = {path.name for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"credentials"}


@pytest.mark.parametrize(
    "name", ["keys.json", "s3/credentials", "settings.json", "users.json", "tokens.json", "revoked.json", "ticket_keys.json"]
)
def test_whether_all_is_as_it_should_be_is_told_without_writing(boxes: BoxDirectories, name: str):
    box = box_of(ID)
    assert not boxes.is_installed(box)
    assert not boxes.directory(ID).exists(), "nothing was written"
    boxes.install(box)
    assert boxes.is_installed(box)
    assert not boxes.is_installed(box_of(ID, secret=Secret("another")))
    place = boxes.directory(ID) / "config" / name
    right = place.read_text()
    place.with_name(f".{place.name}.new").touch()
    assert not boxes.is_installed(box), "a write was cut short"
    assert not boxes.install(box)
    assert boxes.is_installed(box)
    for wrong in (None, "", right[:-2], "{}"):
        place.unlink() if wrong is None else place.write_text(wrong)
        assert not boxes.is_installed(box)
    assert boxes.install(box)
    assert boxes.is_installed(box)
    assert place.read_text() == right


@pytest.mark.parametrize("secret", ["a\nrole_arn = b", "a\rb", "\x00", ""])
def test_a_key_that_would_be_read_as_a_setting_is_refused(boxes: BoxDirectories, secret: str):
    box = box_of(ID)
    bad = replace(box, key=StorageKey(access_key_id="AKIA", secret_access_key=Secret(secret)))
    with pytest.raises(ValueError, match="aws_secret_access_key"):
        boxes.install(bad)
    assert not (boxes.directory(ID) / "config" / "s3" / "credentials").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_what_was_in_force(boxes: BoxDirectories, monkeypatch: pytest.MonkeyPatch, number: int):
    boxes.install(box_of(ID))

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(ServiceError) as caught:
            boxes.install(box_of(ID, secret=Secret("another")))
    assert caught.value.code == "disk_full"
    assert boxes.install(box_of(ID)) is False, "the old is in force"
    assert [path for path in boxes.directory(ID).rglob("*.new")] == []  # noqa: C416 (shown when it fails)


def test_remains_of_a_removal_that_was_cut_short_are_known_and_removed(boxes: BoxDirectories, monkeypatch: pytest.MonkeyPatch):
    boxes.install(box_of(ID))

    def killed(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", _on_second_call(killed))
        with pytest.raises(KeyboardInterrupt):
            boxes.remove(ID)
    assert not boxes.directory(ID).exists(), "no half of it is taken for a box"
    assert boxes.ids() == [ID]
    boxes.remove(ID)
    assert boxes.ids() == []


def _on_second_call(action: Callable[..., None]) -> Callable[..., None]:
    calls: list[object] = []

    def called(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            action(*args)

    return called
