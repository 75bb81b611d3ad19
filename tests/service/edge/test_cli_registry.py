"""`aihub` on a registry that another version made, or that is years old."""

import json
import os
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, event, select, text

from backend.backup.make import backup
from backend.backup.restore import restore_backup
from backend.cli.failures import sentence
from backend.cli.main import aihub
from backend.errors import ServiceError
from backend.registry.database import Registry
from backend.registry.keyring import KeyringError
from backend.registry.models import Port, now
from tests.service.edge.admin import Admin
from tests.service.edge.world import World

NOBODY = 65534


def test_a_registry_of_a_newer_version_is_told_and_left_as_it_is(admin: Admin, world: World, tmp_path: Path) -> None:
    settings = world.service.settings
    with world.registry.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    backup(world.registry, settings, tmp_path / "backup")
    for command in ("init", "serve"):
        with pytest.raises(ServiceError) as caught:
            CliRunner().invoke(aihub, ["--settings", str(admin.file), command], catch_exceptions=False)
        said = sentence(caught.value)
        assert said is not None
        assert "revision 9999, which a newer version of the service made" in said
        assert "Use that version again" in said
    (found,) = (each for each in json.loads(admin.run("check", "--json", code=1).stdout) if each["name"] == "registry")
    assert "aihub init" not in found["detail"] + found["cure"]
    with pytest.raises(ServiceError, match="registry_newer"):
        restore_backup(tmp_path / "backup", replace(settings, state_dir=tmp_path / "other", database_url=None, socket=None))
    assert world.registry.revision() == "9999"
    assert not (tmp_path / "other" / "registry.db").exists()


def test_a_port_that_has_rested_is_free_again_for_the_check_too(admin: Admin, world: World) -> None:
    settings = world.service.settings
    span = range(settings.port_first, settings.port_last + 1)
    with world.registry.session() as session:
        session.add_all(Port(port=port, server_id=None, rests_until=now() - timedelta(days=1)) for port in span)
        session.add_all(Port(port=port, server_id="elsewhere", rests_until=None) for port in range(span.stop, span.stop + 200))
    (found,) = (each for each in admin.json("check") if each["name"] == "ports")
    assert (found["state"], found["detail"]) == ("ok", f"{span[0]}-{span[-1]}: 0 of 100 given out, 0 resting")
    with world.registry.session() as session:
        for port in session.scalars(select(Port).where(Port.server_id.is_(None), Port.port > span[3])):
            port.rests_until = now() + timedelta(days=1)
    (found,) = (each for each in admin.json("check") if each["name"] == "ports")
    assert (found["state"], found["detail"]) == ("warning", f"{span[0]}-{span[-1]}: 0 of 100 given out, 96 resting")


def test_a_registry_outside_of_the_state_is_the_accounts_too_when_root_puts_it_back(world: World) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other accounts
        home = Path(name)
        home.chmod(0o755)
        backup(world.registry, world.service.settings, home / "copy")
        admin, state, registry = Admin(world, home), home / "state", home / "fast disk" / "aihub" / "registry.db"
        state.mkdir(mode=0o700)
        os.chown(state, NOBODY, NOBODY)
        text_of_state = json.dumps(str(world.service.settings.state_dir))
        settings = admin.file.read_text().replace(text_of_state, json.dumps(str(state)))
        admin.file.write_text(f"{settings}database_url: sqlite:///{registry}\n")
        admin.run("restore", str(home / "copy"))
        assert {path.stat().st_uid for path in (registry, registry.parent, registry.parent.parent, *state.rglob("*"))} == {NOBODY}
        assert home.stat().st_uid == 0


def test_keys_that_are_lost_are_not_made_anew(admin: Admin, world: World) -> None:
    """Else what is made from then on is lost when the right ones are put back."""
    keys = world.service.settings.keys_file
    content = keys.read_bytes()
    keys.unlink()
    admin.run("init")  # there is no server yet
    keys.write_bytes(content)
    world.made()
    keys.unlink()
    with pytest.raises(KeyringError, match=r"keys.json, which opens what the registry holds: put it back from the backup"):
        CliRunner().invoke(aihub, ["--settings", str(admin.file), "init"], catch_exceptions=False)
    assert not keys.exists()


def test_a_disk_without_room_for_a_registry_is_said(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")

    @event.listens_for(registry._engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 2")

    with pytest.raises(ServiceError, match="disk_full"):
        registry.migrate()
