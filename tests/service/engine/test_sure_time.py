"""What a clock that is ahead destroys: nothing, before it has said so for an hour."""

import time

import pytest
from sqlalchemy import select

from backend.plans.sure_time import SureTime
from backend.registry.models import Operation
from tests.service.engine.support import Site


class Clocks:
    """The clock on the wall, which somebody may set, and the one that only goes on."""

    def __init__(self) -> None:
        self.passed, self.wall = 0.0, time.time()

    def go_on(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += seconds

    def sure_time(self) -> SureTime:
        return SureTime(clock=lambda: self.passed, wall=lambda: self.wall)


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
