"""What a clock that is wrong destroys or hides: nothing."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.api import service as api_service
from backend.api.service import reconciler_seen
from backend.errors import ServiceError
from backend.reconcile import heartbeat
from backend.registry.models import Operation, Port, Server, now
from backend.sure_time import SureTime
from tests.service.engine.support import Site


class Clocks:
    """The clock on the wall, which somebody may set, and the one that only goes on."""

    def __init__(self) -> None:
        self.passed, self.wall = 0.0, time.time()

    def go_on(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += seconds

    def sure_time(self, file: Path | None = None) -> SureTime:
        return SureTime(file, clock=lambda: self.passed, wall=lambda: self.wall)

    def watched(self, sure: SureTime, hours: int) -> datetime | None:
        """What is sure after so many hours of looks."""
        for _ in range(hours):
            self.go_on(3601)
            sure.note()
        return sure.now()


def test_a_clock_that_is_ahead_for_a_while_destroys_nothing(site: Site):
    """The first look comes at the boot, when nobody has set the clock right yet."""
    server = site.made()
    site.upgrade()
    site.reconciler().reconcile_all()
    site.ask("delete")
    site.reconciler().reconcile_all()
    made = site.made("another")
    clocks = Clocks()
    clocks.wall += 400 * 86400
    reconciler = site.reconciler(sure_time=clocks.sure_time())

    def operations() -> int:
        with site.registry.reading() as session:
            return len(session.scalars(select(Operation)).all())

    before = operations()
    for _ in range(2):
        reconciler.reconcile_all()
        clocks.go_on(3590)
    clocks.wall -= 400 * 86400
    for _ in range(3):
        reconciler._tidied_at = float("-inf")
        reconciler.reconcile_all()
        clocks.go_on(3600)
    assert (site.kept.ids(), site.previous(), operations()) == ([server.id], [server.id], before)
    assert site.one("another").id == made.id
    clocks.go_on(400 * 86400)
    reconciler._tidied_at = float("-inf")
    reconciler.reconcile_all()
    assert (site.server(), site.kept.ids(), site.previous()) == (None, [], [])
    assert operations() == 0


def test_the_sure_time_is_the_clocks_own_but_for_what_it_was_ahead() -> None:
    clocks = Clocks()
    right, sure = clocks.wall, clocks.sure_time()
    sure.note()
    clocks.go_on(3599)
    sure.note()
    assert sure.now() is None, "after a start, nobody knows yet"
    clocks.go_on(2)
    sure.note()
    assert (found := sure.now()) is not None
    assert found.timestamp() == pytest.approx(right + 3601)
    clocks.wall += 1000
    sure.note()
    assert (found := sure.now()) is not None
    assert found.timestamp() == pytest.approx(right + 3601)
    for _ in range(2):
        clocks.go_on(3600)
        sure.note()
    assert (found := sure.now()) is not None
    assert found.timestamp() == pytest.approx(right + 3601 + 7200 + 1000), "it has said so for an hour, so it will be right"
    clocks.wall -= 5000
    sure.note()
    assert (found := sure.now()) is not None
    assert found.timestamp() == pytest.approx(clocks.wall), "set back, it is believed at once"


def test_a_clock_that_is_a_year_ahead_for_a_day_takes_a_day_and_no_year(tmp_path: Path) -> None:
    """A night with the wrong year, until somebody comes and sees it: what was deleted yesterday is still there."""
    clocks = Clocks()
    clocks.watched(clocks.sure_time(tmp_path / "sure"), hours=3)
    right = clocks.wall
    clocks.wall += 400 * 86400
    rebooted = clocks.sure_time(tmp_path / "sure")
    found = clocks.watched(rebooted, hours=24)
    assert found is not None
    assert found.timestamp() < right + 2 * 25 * 3601
    clocks.wall -= 400 * 86400
    rebooted.note()
    found = rebooted.now()
    assert found is not None
    assert found.timestamp() == pytest.approx(clocks.wall), "right again, it is believed"


def test_what_the_service_was_off_for_is_caught_up_in_as_long_again(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.watched(clocks.sure_time(tmp_path / "sure"), hours=3)
    clocks.go_on(48 * 3600)
    found = clocks.watched(clocks.sure_time(tmp_path / "sure"), hours=50)
    assert found is not None
    assert found.timestamp() == pytest.approx(clocks.wall)


def test_what_is_kept_by_a_clock_of_the_past_is_kept_from_the_time_that_was_sure(tmp_path: Path) -> None:
    """A host whose battery is empty boots in the past, and somebody deletes a server before its clock is set."""
    clocks = Clocks()
    clocks.watched(clocks.sure_time(tmp_path / "sure"), hours=3)
    right, clocks.wall = clocks.wall, 86400.0
    rebooted = clocks.sure_time(tmp_path / "sure")
    assert rebooted.not_before().timestamp() == pytest.approx(right, abs=3700)
    clocks.watched(rebooted, hours=30)
    assert rebooted.not_before().timestamp() == pytest.approx(right + 30 * 3601, abs=3700)
    clocks.wall = right + 30 * 3601
    assert rebooted.not_before().timestamp() == pytest.approx(clocks.wall)


def test_a_file_that_says_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / "sure").write_bytes(b"\0" * 20)
    clocks = Clocks()
    assert clocks.watched(clocks.sure_time(tmp_path / "sure"), hours=2) is not None


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = [0.0]
    sure = SureTime(tmp_path / "gone" / "sure", seconds=10, clock=lambda: at[0], wall=lambda: 1_000.0 + at[0])
    at[0] = 10.0
    sure.note()
    assert sure.now() == datetime.fromtimestamp(1_010.0, UTC), "what is known now is known all the same"
    assert "the sure time was not written" in caplog.text


def test_a_server_that_is_deleted_while_the_clock_is_in_the_past_is_kept_its_days(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    server = site.made()
    site.upgrade()
    site.reconciler().reconcile_all()
    site.settings.sure_time_file.write_text(f"{datetime.now(UTC).isoformat()}\n")
    past = Clocks()
    past.wall = 86400.0
    monkeypatch.setattr("backend.registry.models.datetime", _Past)
    site.ask("delete")
    site.reconciler(sure_time=past.sure_time(site.settings.sure_time_file)).reconcile_all()
    monkeypatch.undo()
    site.reconciler().reconcile_all()
    assert site.kept.ids() == [server.id]
    assert (row := site.one()) is not None
    assert row.restorable_until is not None
    assert row.restorable_until > datetime.now(UTC) + timedelta(days=site.settings.restore_days - 1)


class _Past(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(1970, 1, 2, tzinfo=UTC)


def test_a_port_that_rests_is_given_to_nobody_while_the_clock_is_ahead(site: Site) -> None:
    """The look at the clock and the request are of two processes."""
    taken = [site.made(f"env-{n}") for n in range(4)]
    site.ask("delete", "env-0")
    site.reconciler().reconcile_all()
    with site.registry.session() as session:
        session.get_one(Server, taken[0].id).restorable_until = datetime.now(UTC) - timedelta(days=1)
    site.reconciler().reconcile_all()
    assert site.server("env-0") is None
    with site.registry.session() as session:  # the clock is ahead: by it, the rest is over
        session.get_one(Port, taken[0].port).rests_until = datetime.now(UTC) - timedelta(hours=1)
    site.settings.sure_time_file.write_text(f"{(datetime.now(UTC) - timedelta(days=400)).isoformat()}\n")
    with pytest.raises(ServiceError) as caught:
        site.create("another")
    assert caught.value.code == "ports_exhausted"
    site.settings.sure_time_file.write_text(f"{datetime.now(UTC).isoformat()}\n")
    site.create("another")


def test_a_port_that_is_to_rest_for_no_day_is_free_at_once(tmp_path: Path) -> None:
    """The next thing that is sure may be an hour away."""
    site = Site(tmp_path / "state", ports=2, port_rest_days=0, restore_days=0)
    try:
        for env in ("a", "b"):
            site.made(env)
        site.settings.sure_time_file.write_text(f"{(datetime.now(UTC) - timedelta(hours=1)).isoformat()}\n")
        site.ask("delete", "a")
        site.reconciler().reconcile_all()
        site.reconciler().reconcile_all()
        assert site.server("a") is None
        site.create("c")
    finally:
        site.registry.close()
        site.kick.close()


def test_a_sign_of_life_by_a_clock_that_was_ahead_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended, and then the clock was set back: until it was that late again, it seemed to live."""
    heartbeat.beat(site.settings.run_dir, 0.1)
    assert reconciler_seen(site.settings)[1]
    monkeypatch.setattr(api_service, "now", lambda: now() - timedelta(hours=1))
    assert not reconciler_seen(site.settings)[1]
