"""What becomes of a server when its leases are over."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.domain import Caller, Desired
from backend.errors import ServiceError
from backend.reconcile.renewable import Renewable
from backend.registry.models import AuditEntry, Lease, Operation, now
from backend.wishes.kick import Kick
from backend.wishes.leases import GRACE_SECONDS, AtEnd, Leases, LeaseWish, Sweeper
from tests.service.engine.support import ALICE, GROUP, Site

EVERY = 30.0
OTHERS = {"user": "somebody", "scheme": "munge", "seconds": 600, "at_end": "keep"}


class Clock:
    """A clock that a test moves."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


class Leased:
    """A site with one server, its leases, and a sweeper whose world a test rules."""

    def __init__(self, home: Path) -> None:
        self.site = Site(home, envs_dir=home.parent / "envs")
        self.server_id = self.site.made().id
        self.leases = Leases(
            registry=self.site.registry,
            directory=self.site.directory,
            settings=self.site.settings,
            kick=Kick(self.site.settings.kick_socket),
        )
        self.clock, self.wall, self.can_renew = Clock(), Clock(), True
        self.sweeper = Sweeper(registry=self.site.registry, can_renew=lambda: self.can_renew, every=EVERY, clock=self.clock, wall=self.wall)
        self.sweeper.sweep()

    def hold(self, name: str, at_end: AtEnd = AtEnd.STOP, *, seconds: int = 600) -> None:
        wish = LeaseWish(seconds=seconds, at_end=at_end, note="")
        self.leases.hold(ALICE, GROUP.name, "wine", name, wish, request_id=None)

    def end(self, name: str) -> None:
        self.leases.end(ALICE, GROUP.name, "wine", name, request_id=None)

    def run_out(self, name: str, *, ago: float = 1.0) -> None:
        """Its holder died: the time passed, and nobody renewed."""
        self.pass_time(GRACE_SECONDS)
        self.end_time(name, ago=ago)

    def end_time(self, name: str, *, ago: float = 1.0) -> None:
        """Until when it holds is over."""
        with self.site.registry.session() as session:
            session.get_one(Lease, (self.server_id, name)).until = now() - timedelta(seconds=ago)

    def pass_time(self, seconds: float) -> bool:
        """So much time passes, with its looks. Whether a stop was asked for."""
        asked = []
        while seconds > 0:
            self.clock.time += min(seconds, EVERY)
            self.wall.time += min(seconds, EVERY)
            seconds -= EVERY
            asked.append(self.sweeper.sweep())
        return any(asked)

    @property
    def names(self) -> list[str]:
        with self.site.registry.reading() as session:
            return sorted(session.scalars(select(Lease.lease_id)))

    @property
    def stops(self) -> list[Operation]:
        with self.site.registry.reading() as session:
            return list(session.scalars(select(Operation).where(Operation.kind == "stop")))


@pytest.fixture
def leased(tmp_path: Path) -> Leased:
    return Leased(tmp_path / "s")


def test_the_end_of_the_last_lease_stops_the_server(leased: Leased) -> None:
    leased.hold("a")
    leased.hold("b")
    leased.end("a")
    assert not leased.sweeper.sweep()
    assert leased.names == ["b"]
    leased.end("b")
    assert leased.sweeper.sweep()
    assert (leased.names, leased.site.one().desired) == ([], Desired.STOPPED)
    leased.site.reconciler().reconcile_all()
    assert leased.site.one().status == "stopped"
    (stop,) = leased.stops
    assert (stop.requested_by, stop.state) == ("alice", "succeeded")
    with leased.site.registry.reading() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert entry is not None
        assert (entry.action, entry.user, entry.uid, entry.operation_id) == ("stop_at_lease_end", "alice", ALICE.uid, stop.id)


@pytest.mark.parametrize(("first", "last", "stops"), [("stop", "keep", 0), ("keep", "stop", 1)])
def test_the_last_lease_says_what_happens(leased: Leased, first: str, last: str, stops: int) -> None:
    leased.hold("a", AtEnd(first))
    leased.hold("b", AtEnd(last))
    leased.end("a")
    leased.end("b")
    assert leased.sweeper.sweep() == bool(stops)
    assert (len(leased.stops), leased.names) == (stops, [])


def test_a_holder_that_died_is_noticed_by_the_time(leased: Leased) -> None:
    leased.hold("a")
    assert not leased.sweeper.sweep()
    leased.run_out("a")
    assert leased.sweeper.sweep()
    assert len(leased.stops) == 1


def test_time_in_which_nobody_could_renew_does_not_count(leased: Leased) -> None:
    leased.hold("a", seconds=300)
    leased.can_renew = False
    leased.run_out("a", ago=86400)
    assert not leased.sweeper.sweep()
    leased.can_renew = True
    leased.clock.time += 86400
    assert not leased.sweeper.sweep(), "the service has just come back"
    assert not leased.pass_time(299)
    leased.hold("a", seconds=300)
    assert not leased.pass_time(2), "its holder renewed it"
    leased.run_out("a")
    assert leased.sweeper.sweep()


@pytest.mark.parametrize(
    ("here", "wall"),
    [(1, 3600), (3600, 3600), (EVERY, EVERY + 3600)],
    ids=["a machine that stood still", "a service", "a clock set forward"],
)
def test_time_in_which_nobody_was_there_does_not_count(leased: Leased, here: float, wall: float) -> None:
    """Its job runs elsewhere and could not renew; or a minute ago its lease had an hour to go."""
    leased.hold("a", seconds=300)
    leased.pass_time(GRACE_SECONDS)
    leased.end_time("a", ago=3000)
    leased.clock.time += here
    leased.wall.time += wall
    assert not leased.sweeper.sweep()
    assert not leased.pass_time(299)
    assert leased.names == ["a"]
    assert leased.pass_time(2), "it had its own length again"


def test_a_clock_that_is_set_right_and_a_busy_host_keep_no_lease(leased: Leased) -> None:
    leased.hold("a", seconds=300)
    for here, wall in ((EVERY, EVERY + 9), (EVERY + 59, EVERY + 59), (EVERY, -3600)) * 3:
        leased.clock.time += here
        leased.wall.time += wall
        assert not leased.sweeper.sweep()
    leased.end_time("a")
    assert leased.sweeper.sweep()


def test_a_lease_by_a_clock_that_was_ahead_has_its_own_length_again(leased: Leased) -> None:
    """Else nobody would ever notice that its holder is dead, and the server would stay up."""
    leased.hold("a", seconds=600)
    leased.hold("b", AtEnd.STOP, seconds=600)
    leased.end_time("a", ago=-365 * 86400)
    leased.sweeper.sweep()
    with leased.site.registry.reading() as session:
        found = session.get_one(Lease, (leased.server_id, "a"))
        assert abs((found.until - now()).total_seconds() - 600) < 60
    leased.end_time("b", ago=-605)
    leased.sweeper.sweep()
    with leased.site.registry.reading() as session:
        found = session.get_one(Lease, (leased.server_id, "b"))
        assert (found.until - now()).total_seconds() > 600, "one that was renewed while the clock was set by seconds stays"


def test_what_is_under_way_ends_first(leased: Leased) -> None:
    leased.hold("a")
    leased.site.set_users("alice")
    leased.end("a")
    assert not leased.sweeper.sweep()
    assert leased.names == ["a"]
    leased.site.reconciler().reconcile_all()
    leased.sweeper.sweep()
    assert (leased.names, leased.site.one().desired) == ([], Desired.STOPPED)


def test_who_starts_it_after_a_lease_ended_keeps_it(leased: Leased) -> None:
    """A job ends while somebody restarts the server: the consequence waits for the stop's end, and comes after their start."""
    leased.hold("a")
    leased.site.ask("stop")
    leased.end("a")
    started: list[Operation] = []

    def at(point: str) -> None:
        if point == "stop.ended":
            started.append(leased.site.ask("start"))

    leased.site.reconciler(at=at).reconcile_all()
    assert (len(started), leased.site.operation(started[0]).state) == (1, "succeeded")
    leased.sweeper.sweep()
    assert (leased.names, leased.site.one().desired) == ([], Desired.RUNNING)
    leased.hold("b")
    leased.end("b")
    leased.sweeper.sweep()
    assert leased.site.one().desired == Desired.STOPPED, "a lease that was taken since decides as always"


def test_a_start_by_a_clock_that_was_ahead_keeps_no_server(leased: Leased) -> None:
    """Else no lease's end would stop it until that time."""
    started = leased.site.ask("start")
    with leased.site.registry.session() as session:
        session.get_one(Operation, started.id).created_at = now() + timedelta(days=365)
    leased.hold("a")
    leased.end("a")
    assert leased.sweeper.sweep()


def test_a_server_that_was_stopped_or_deleted_meanwhile_is_left_alone(leased: Leased) -> None:
    leased.hold("a")
    leased.site.ask("delete")
    leased.site.reconciler().reconcile_all()
    leased.run_out("a")
    assert not leased.sweeper.sweep()
    assert leased.names == []
    leased.site.ask("restore")
    leased.site.reconciler().reconcile_all()
    assert leased.site.one().status in {"running", "sleeping"}


def test_a_purged_servers_leases_go_with_it(leased: Leased) -> None:
    leased.hold("a")
    leased.site.ask("delete")
    leased.site.reconciler().reconcile_all()
    with leased.site.registry.session() as session:
        session.delete(session.get_one(type(leased.site.one()), leased.server_id))
    assert leased.names == []


def test_the_reconciler_sweeps(leased: Leased) -> None:
    leased.hold("a")
    leased.end("a")
    leased.site.reconciler().reconcile_all()
    assert (leased.names, leased.site.one().status) == ([], "stopped")


@pytest.fixture
def listening(leased: Leased) -> Iterator[socket.socket]:
    """The API's socket as the supervisor holds it: one can connect to it whether or not somebody answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(leased.site.settings.socket))
        server.listen()
        yield server


@contextmanager
def answering(listening: socket.socket, status: int) -> Iterator[None]:
    """The API's part, which answers with that status."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/api/v1/health" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def address_string(self) -> str:
            return "a Unix socket has none"

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("", 0), Api, bind_and_activate=False)
    server.socket.close()
    server.socket = listening.dup()
    server.get_request = lambda: (server.socket.accept()[0], ("", 0))  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def renewable_of(leased: Leased, monkeypatch: pytest.MonkeyPatch) -> Renewable:
    monkeypatch.setattr("backend.reconcile.renewable.SECONDS", 0.3)
    leased.hold("a")
    return Renewable(settings=leased.site.settings, registry=leased.site.registry, directory=leased.site.directory)


def test_an_api_that_hangs_or_fails_behind_its_socket_renews_nothing(
    leased: Leased, listening: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    can_renew = renewable_of(leased, monkeypatch)
    assert not can_renew()
    assert not can_renew()
    with answering(listening, 502):
        assert not can_renew()
    with answering(listening, 200):
        assert can_renew()
    assert [record.message for record in caplog.records if "part api does not answer" in record.message] == [caplog.messages[0]]


def test_nobody_renews_where_nobody_listens(leased: Leased, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not renewable_of(leased, monkeypatch)()


def test_another_listener_that_hangs_counts_too(leased: Leased, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs on compute nodes come by that one alone."""
    can_renew = renewable_of(leased, monkeypatch)
    with answering(listening, 200), socket.create_server(("127.0.0.1", 0)) as hangs:
        assert can_renew()
        settings = replace(leased.site.settings, token_listen=f"127.0.0.1:{hangs.getsockname()[1]}")
        assert not Renewable(settings=settings, registry=leased.site.registry, directory=leased.site.directory)()


def test_a_directory_that_is_away_stops_no_server(leased: Leased, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is refused then, by every listener: a job cannot renew, whatever it does."""
    can_renew = renewable_of(leased, monkeypatch)
    leased.sweeper._can_renew = can_renew
    with answering(listening, 200):
        leased.pass_time(GRACE_SECONDS)
        leased.site.directory.down = True
        leased.end_time("a")
        assert not leased.pass_time(2 * GRACE_SECONDS)
        leased.site.directory.down = False
        assert not leased.pass_time(600)
        assert leased.pass_time(EVERY), "it had its own length again, and nobody renewed"


def test_a_full_disk_stops_no_server(leased: Leased, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """No renewal can be written then; when there is room again, every lease is over that ran out meanwhile."""
    can_renew = renewable_of(leased, monkeypatch)
    with answering(listening, 200):
        assert can_renew()
        with monkeypatch.context() as full:
            full.setattr("backend.reconcile.renewable.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 4096})())
            assert not can_renew()
        assert can_renew()


def test_each_look_asks_for_another_holder(leased: Leased, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some accounts are the host's own, and are found while the site's directory is away."""
    can_renew = renewable_of(leased, monkeypatch)
    with leased.site.registry.session() as session:
        for uid in (1, 5000):
            session.add(Lease(**OTHERS, server_id=leased.server_id, lease_id=f"of-{uid}", uid=uid, until=now()))
    asked: list[int] = []

    def caller(*, uid: int) -> Caller:
        asked.append(uid)
        raise ServiceError("directory_failed" if uid == 5000 else "caller_unknown", uid=uid, why="it is away")

    monkeypatch.setattr(leased.site.directory, "caller", caller)
    with answering(listening, 200):
        assert [can_renew() for _ in range(4)] == [True, True, False, True]
    assert asked == [1, ALICE.uid, 5000, 1]
