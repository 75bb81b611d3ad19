"""What 0.1.0 left in the middle of everything is taken over: an operation of each kind, asked for and not begun.

``state-0.1.0.tar.gz`` is the state that 0.1.0's own service made, with this folder's stand-ins for MLflow and the object store.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.domain import FINISHED, OperationKind
from backend.registry.models import Operation, Server
from tests.service.engine.support import NEWER, SECRET, VERSION, Site, until

STATE = Path(__file__).parent / "state-0.1.0.tar.gz"
ENDS = {
    "users": "running", "keys": "running", "stopped": "stopped", "started": "running", "deleted": "deleted", "restored": "running",
    "upgraded": "running", "rolled": "running", "resized": "running", "new": "running",
}  # fmt: skip


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Site]:
    with tarfile.open(STATE) as archive:
        archive.extractall(tmp_path, filter="data")
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs", port_first=21000, ports=24)
    yield site
    site.registry.close()
    site.kick.close()


def operations(site: Site) -> list[Operation]:
    with site.registry.reading() as session:
        found = list(session.scalars(select(Operation)))
        session.expunge_all()
        return found


def servers(site: Site) -> dict[str, Server]:
    with site.registry.reading() as session:
        found = {row.env_name: row for row in session.scalars(select(Server))}
        session.expunge_all()
        return found


def test_what_0_1_0_was_asked_for_is_done(older: Site) -> None:
    open_before = [each for each in operations(older) if each.state not in FINISHED]
    assert {each.kind for each in open_before} == set(OperationKind)
    reconciler = older.reconciler()

    def done() -> bool:
        reconciler.reconcile_all()
        return all(each.state in FINISHED for each in operations(older))

    until(done)
    assert {f"{each.kind} {each.env_name}": each.error for each in operations(older) if each.state != "succeeded"} == {}
    reconciler.reconcile_all()
    found = servers(older)
    assert {name: row.status.replace("sleeping", "running") for name, row in found.items()} == ENDS
    assert {name: [user["name"] for user in row.users] for name, row in found.items()} == {
        name: {"users": ["alice", "bob"], "new": []}.get(name, ["alice"]) for name in ENDS
    }
    secrets = {name: older.keyring.decrypt(row.secret_access_key).reveal() for name, row in found.items()}
    assert secrets == {name: "a new secret" if name == "keys" else SECRET for name in ENDS}
    assert (found["upgraded"].mlflow_version, found["rolled"].mlflow_version, found["resized"].size) == (NEWER, VERSION, "medium")
    assert [row.env_name for row in found.values() if older.kept.exists(row.id)] == ["deleted"]
