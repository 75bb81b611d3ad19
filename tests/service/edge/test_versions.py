"""The MLflow versions on offer are those that are installed, whole; and what it costs to ask for another one."""

from pathlib import Path

import pytest

from backend import versions
from backend.errors import ServiceError
from backend.wishes.passwords import Hasher
from tests.service.edge.world import BOB, World, fake_environment, make_settings

SERVERS = "/api/v1/servers/gaa50000"


def test_newest_first_and_only_whole_ones(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    for version in ("3.9.1", "3.18.0"):
        fake_environment(settings.envs_dir, version)
    fake_environment(settings.envs_dir, "9.0.0")
    (settings.envs_dir / "mlflow-9.0.0" / "version.json").write_text("{")
    fake_environment(settings.envs_dir, "9.0.1")
    (settings.envs_dir / "mlflow-9.0.1" / "bin" / "python").chmod(0o644)
    fake_environment(settings.envs_dir, "9.0.2")
    (settings.envs_dir / "mlflow-9.0.2").rename(settings.envs_dir / "mlflow-9.0.3")
    (settings.envs_dir / "mlflow-3.17.2.lock").touch()
    assert list(versions.installed(settings)) == ["3.18.0", "3.17.2", "3.9.1"]
    assert versions.schema_revision(settings, None) == ("3.18.0", "abc123")
    assert versions.schema_revision(settings, "3.9.1") == ("3.9.1", "abc123")


def test_a_disks_fault_is_not_told_as_a_version_that_is_missing(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    note = settings.envs_dir / "mlflow-3.17.2" / "version.json"
    note.unlink()
    note.mkdir()  # reading it fails in a way that no installation brings about
    with pytest.raises(IsADirectoryError):
        versions.schema_revision(settings, None)


def test_a_version_that_is_removed_while_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on offer and what it is made of are one look at the disk."""
    looks = iter([{"3.17.2": "abc123"}, {}])
    monkeypatch.setattr(versions, "installed", lambda _settings: next(looks))
    assert versions.schema_revision(make_settings(tmp_path), "3.17.2") == ("3.17.2", "abc123")


def test_the_site_may_choose(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, mlflow_versions=("3.16.0", "3.17.2"))
    fake_environment(settings.envs_dir, "3.18.0")
    assert versions.offered(settings) == ["3.17.2"]
    with pytest.raises(ServiceError, match=r"MLflow 3\.18\.0 is not installed"):
        versions.schema_revision(settings, "3.18.0")


@pytest.mark.parametrize(("kind", "body"), [("upgrade", {"mlflow_version": "3.17.2"}), ("rollback", None)])
def test_who_is_refused_costs_no_hash(world: World, monkeypatch: pytest.MonkeyPatch, kind: str, body: dict[str, str] | None) -> None:
    """A hash takes a third of a second of a core and one of a few places, which others then lack."""
    monkeypatch.setattr(Hasher, "_hash", lambda *_: pytest.fail("a hash for nothing"))
    world.made()
    world.be(BOB)
    for path in (f"{SERVERS}/wine", f"{SERVERS}/no-such"):
        assert world.client.post(f"{path}/{kind}", json=body).json["code"] == "not_a_member"
