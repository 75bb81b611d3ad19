"""A year of runs: what MLflow asks its database is done by a plan that is good for many of them."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.box.parts import settings
from tests.support.box import environment
from tracking_server.layout import Box
from tracking_server.mlflow_process import database
from tracking_server.mlflow_process.plan import Plan

BY_NAME = ["metrics.loss DESC", "params.lr ASC", "tags.team DESC"]
ASK = """
import json, sqlite3, sys
from mlflow.entities import ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
store, asked, plans = SqlAlchemyStore("sqlite:///" + sys.argv[1], "/x"), [], {}
event.listen(store.engine, "before_cursor_execute", lambda _one, _two, text, values, *_more: asked.append((text, values)))
for order in json.loads(sys.argv[2]):
    asked.clear()
    store.search_runs(["0"], "", ViewType.ACTIVE_ONLY, order_by=[order])
    text, values = next(each for each in asked if "clause_1" in each[0])
    plans[order] = [row[3] for row in sqlite3.connect(sys.argv[1]).execute("EXPLAIN QUERY PLAN " + text, values)]
print(json.dumps(plans))
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "data").mkdir()
    return Plan(Box(tmp_path), settings(), {}, "")


def numbers(plan: Plan) -> dict[str, str]:
    with closing(sqlite3.connect(plan.box.database)) as connection:
        return dict(connection.execute("SELECT tbl, stat FROM sqlite_stat1").fetchall())


def test_runs_in_order_of_a_name_are_not_compared_each_with_each(plan: Plan) -> None:
    """MLflow's page does this at a press on a column's head."""
    place = environment()
    database.prepare(plan, place)
    argv = [place / "bin" / "python", "-P", "-c", ASK, plan.box.database, json.dumps(BY_NAME)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    plans = json.loads(done.stdout.splitlines()[-1])
    assert list(plans) == BY_NAME
    scans = [step for steps in plans.values() for step in steps if step.startswith("SCAN") and step != "SCAN runs"]
    assert scans == [], plans


def test_a_database_keeps_the_numbers_that_it_has(plan: Plan) -> None:
    """Of an admin's ANALYZE, say; and a start that finds them writes nothing."""
    place = environment()
    database.prepare(plan, place)
    told = numbers(plan)
    assert set(told) == {"latest_metrics", "params", "tags"}
    with closing(sqlite3.connect(plan.box.database)) as connection, connection:
        connection.execute("DELETE FROM sqlite_stat1 WHERE tbl = 'tags'")
        connection.execute("UPDATE sqlite_stat1 SET stat = '10 2 1' WHERE tbl = 'params'")
    database.prepare(plan, place)
    assert numbers(plan) == {**told, "params": "10 2 1"}
    before = plan.box.database.read_bytes()
    database.prepare(plan, place)
    assert plan.box.database.read_bytes() == before


def test_a_full_disk_keeps_no_server_down_and_is_said(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "_SIZES", "INSERT INTO nowhere VALUES (?1)")  # SQLite says both by the same kind of error
    database.prepare(plan, environment())
    assert numbers(plan) == {}
    assert "were not written (no such table: nowhere)" in capsys.readouterr().err
