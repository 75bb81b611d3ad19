"""The service's numbers: read by the library's own parser, moved by real operations, and never taken back."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, text

from backend import __version__
from backend.api.metrics import create_app
from backend.api.numbers import TROUBLES, collectors
from backend.domain import OperationKind, Status
from backend.errors import ServiceError
from backend.reconcile import heartbeat
from backend.reconcile.rounds import Round
from backend.registry.database import Registry, _alembic
from backend.registry.models import Operation, now
from backend.registry.tally import BOUNDS, bound_of
from backend.settings import Settings
from tests.service.engine.support import GROUP, Site

ENDED = "aihub_operations_total"
LASTED = "aihub_operation_duration_seconds"


class Numbers:
    """One answer, by name and labels."""

    def __init__(self, site: Site) -> None:
        self.text = generate_latest(collectors(site.settings, site.registry)).decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value for family in self.families.values() for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        return self.samples[(name, *sorted(labels.items()))]


@pytest.fixture
def busy(site: Site) -> Site:
    site.create()
    site.reconciler().reconcile_all()
    return site


def test_servers_by_status_and_what_is_free(site: Site) -> None:
    before = Numbers(site)
    assert before.of("aihub_build_info", version=__version__, runtime="process") == 1
    assert [before.of("aihub_servers", status=status) for status in Status] == [0] * len(Status)
    site.create()
    asked = Numbers(site)
    assert asked.of("aihub_servers", status="creating") == 1
    assert asked.of("aihub_operations_unfinished", kind="create", state="pending") == 1
    assert 0 <= asked.of("aihub_operations_oldest_age_seconds") < 60
    site.reconciler().reconcile_all()
    made = Numbers(site)
    assert [made.of("aihub_servers", status=status) for status in ("creating", "running")] == [0, 1]
    assert made.of("aihub_operations_unfinished", kind="create", state="pending") == 0
    assert made.of("aihub_operations_oldest_age_seconds") == 0
    assert before.of("aihub_ports_free") - made.of("aihub_ports_free") == 1
    assert 0 < made.of("aihub_state_volume_free_bytes") < made.of("aihub_state_volume_size_bytes")


def test_a_real_operation_moves_the_counters_and_forgetting_it_does_not(busy: Site) -> None:
    made = Numbers(busy)
    assert made.of(ENDED, kind="create", state="succeeded") == 1
    assert made.of(f"{LASTED}_count", kind="create", state="succeeded") == 1
    assert made.of(f"{LASTED}_bucket", kind="create", state="succeeded", le="+Inf") == 1
    assert made.of(f"{LASTED}_sum", kind="create", state="succeeded") > 0
    busy.store.error = ServiceError("storage_bucket_missing", bucket="b", endpoint="e")
    busy.set_storage("another-secret")
    busy.reconciler().reconcile_all()
    assert Numbers(busy).of(ENDED, kind="storage", state="failed") == 1
    with busy.registry.session() as session:
        session.execute(delete(Operation))
    later = Numbers(busy)
    assert [later.of(ENDED, kind=kind, state=state) for kind, state in (("create", "succeeded"), ("storage", "failed"))] == [1, 1]


def test_what_ends_as_it_begins_is_counted_once(busy: Site) -> None:
    assert busy.ask("start").finished_at is not None  # it runs already
    assert Numbers(busy).of(ENDED, kind="start", state="succeeded") == 1
    with busy.registry.session() as session:
        for operation in session.query(Operation):
            operation.finished_at = now()  # an end that is written again
    assert Numbers(busy).of(ENDED, kind="start", state="succeeded") == 1


def test_a_histogram_is_one(busy: Site) -> None:
    with busy.registry.session() as session:
        for seconds in (0.5, 1.0, 1.1, 25.0, 100000.0):
            at = datetime(2026, 1, 1, tzinfo=UTC)
            ended = at + timedelta(seconds=seconds)
            session.add(
                Operation(
                    kind="stop", state="failed", group_name="g", env_name="e", requested_by="u", steps=[], created_at=at, finished_at=ended
                )
            )
    found = Numbers(busy)
    buckets = [found.of(f"{LASTED}_bucket", kind="stop", state="failed", le=bound) for bound in (*map(str, BOUNDS), "+Inf")]
    assert buckets == [2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5]
    assert found.of(f"{LASTED}_count", kind="stop", state="failed") == 5
    assert found.of(f"{LASTED}_sum", kind="stop", state="failed") == pytest.approx(100027.6)
    assert [bound_of(seconds) for seconds in (0, 1, 1.0001, 1800, 1800.1)] == ["1.0", "1.0", "2.5", "1800.0", "+Inf"]


def test_what_is_wrong_is_counted_by_its_code(busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = Numbers(busy)
    assert [healthy.of("aihub_servers_troubled", reason=reason) for reason in TROUBLES] == [0] * len(TROUBLES)
    monkeypatch.setattr("backend.files.disk.used_bytes", lambda _directory: busy.settings.server_disk + 1)
    busy.reconciler().reconcile_all()
    assert Numbers(busy).of("aihub_servers_troubled", reason="server_too_large") == 1
    box = next(iter(busy.runtime.boxes.values()))
    box.stranger, box.state = True, box.state.SILENT
    busy.reconciler().reconcile_all()
    troubled = Numbers(busy)
    assert [troubled.of("aihub_servers_troubled", reason=reason) for reason in ("server_too_large", "port_taken")] == [0, 1]
    assert troubled.of("aihub_servers", status="failed") == 1


def test_no_name_of_anybody(busy: Site) -> None:
    text = Numbers(busy).text
    assert [word for word in (GROUP.name, "wine", "alice", busy.one().id, "bucket-a") if word in text] == []


def test_names_follow_the_conventions(busy: Site) -> None:
    found = Numbers(busy)
    assert all(name.startswith("aihub_") for name in found.families)
    assert all(family.documentation.endswith(".") for family in found.families.values())
    counters = [name for name, *_ in found.samples if name.endswith("_total")]
    assert {ENDED} == set(counters)
    kinds = {dict(labels)["kind"] for name, *labels in found.samples if name == ENDED}
    assert kinds == set(OperationKind)


def test_the_page_has_every_name_and_no_other(busy: Site) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/metrics.md").read_text()
    told = {(line.split("`")[1], line.split("|")[2].strip()) for line in page.splitlines() if line.startswith("| `aihub_")}
    types = {"info": "_info", "counter": "_total"}
    named = {
        (family.name.removesuffix(types.get(kind, "")) + types.get(kind, ""), kind)
        for family in collectors(busy.settings, busy.registry).collect()
        for kind in [family.type]
    }
    assert told == named


def test_the_reconcilers_sign_of_life(site: Site) -> None:
    never = Numbers(site)
    assert never.of("aihub_reconciler_last_pass_timestamp_seconds") == 0
    heartbeat.beat(site.settings.run_dir, 0.25)
    beaten = Numbers(site)
    assert abs(beaten.of("aihub_reconciler_last_pass_timestamp_seconds") - now().timestamp()) < 60
    assert beaten.of("aihub_reconciler_last_pass_duration_seconds") == 0.25


def test_a_round_lasts_until_its_last_look() -> None:
    told: list[float] = []
    together = Round(told.append)
    first, second = together.of(lambda: None), together.of(lambda: None)
    third = together.of(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    together.close()  # all are handed out
    first()
    with pytest.raises(ZeroDivisionError):
        third()
    assert told == []
    second()
    assert len(told) == 1
    assert told[0] > 0


def test_what_was_known_before_is_counted_by_the_migration() -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(f"sqlite:///{Path(folder)}/registry.db")
        try:
            with registry._engine.begin() as connection:
                command.upgrade(_alembic(connection), "0009")
                row = "('{id}', 'create', 'g', 'e', 'u', 'succeeded', '[]', '2026-01-01 00:00:00.000000', '2026-01-01 00:00:0{end}.000000')"
                rows = ", ".join(row.format(id=number, end=number) for number in (1, 2, 3))
                names = "id, kind, group_name, env_name, requested_by, state, steps, created_at, finished_at"
                connection.execute(text(f"INSERT INTO operations ({names}) VALUES {rows}"))  # noqa: S608
            registry.migrate()
            with registry.reading() as session:
                found = session.execute(text("SELECT kind, state, bound, count, seconds FROM operation_tallies ORDER BY bound")).all()
            assert [tuple(each) for each in found] == [
                ("create", "succeeded", "1.0", 1, 1.0),
                ("create", "succeeded", "2.5", 1, 2.0),
                ("create", "succeeded", "5.0", 1, 3.0),
            ]
        finally:
            registry.close()


def test_a_broken_registry_is_a_failure_and_not_a_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(state_dir=tmp_path)
    registry = Registry(settings.database_url)  # never migrated
    try:
        answer = create_app(collectors(settings, registry)).test_client().get("/metrics")
    finally:
        registry.close()
    assert answer.status_code == 503
    assert answer.text == "The service's registry or disk cannot be read: see the service's log.\n"
    assert "no such table" in caplog.text
