import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backend.reconcile.lanes import Job, Lanes
from tests.service.engine.support import until


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def lanes_of(*, quick: int = 2, slow: int = 4, share: int = 2) -> tuple[Lanes, list[str]]:
    woken: list[str] = []
    return Lanes(prompt=1, quick=quick, slow=slow, share=share, wake=lambda: woken.append("woken")), woken


def test_what_has_one_key_never_runs_twice_at_once(gate: threading.Event):
    lanes, woken = lanes_of()
    ran: list[str] = []
    lanes.slow("a", lambda: gate.wait(20) and ran.append("first"))
    lanes.slow("a", lambda: ran.append("second"))
    lanes.quick("a", lambda: ran.append("look"))
    lanes.slow("b", lambda: ran.append("other"))
    until(lambda: ran == ["other"])
    assert woken == []
    gate.set()
    assert lanes.wait_idle(20)
    assert ran == ["other", "first"]
    assert woken == ["woken"], "it is asked for again, once"


def test_a_look_that_is_left_out_wakes_nobody(gate: threading.Event):
    lanes, woken = lanes_of()
    lanes.slow("a", lambda: gate.wait(20) and None)
    lanes.quick("a", lambda: None)
    gate.set()
    assert lanes.wait_idle(20)
    assert woken == []


def test_what_is_asked_at_each_pass_wakes_nobody(gate: threading.Event):
    """Each that ended would call for a pass, which asks for all of them anew: a whole core for as long as something stays untold."""
    lanes, woken = lanes_of()
    lanes.prompt("a", lambda: gate.wait(20) and None)
    lanes.prompt("a", lambda: None)
    gate.set()
    assert lanes.wait_idle(20)
    assert woken == []


def test_work_that_waits_keeps_no_look_waiting(gate: threading.Event):
    lanes, _woken = lanes_of(quick=1, slow=2)
    for key in "abcd":
        lanes.slow(key, lambda: gate.wait(20) and None)
    looked = threading.Event()
    lanes.quick("e", looked.set)
    assert looked.wait(10)
    gate.set()
    assert lanes.wait_idle(20)


def test_an_owner_has_a_share_of_the_lane_and_is_asked_again_when_some_of_it_is_free(gate: threading.Event):
    lanes, woken = lanes_of(share=2)
    ran: list[str] = []
    for key in "abc":
        lanes.slow(key, lambda key=key: gate.wait(20) and ran.append(key), owner="mallory")
    for key, owner in (("d", "alice"), ("e", None)):
        lanes.slow(key, lambda key=key: ran.append(key), owner=owner)
    until(lambda: sorted(ran) == ["d", "e"])
    assert woken == []
    gate.set()
    assert lanes.wait_idle(20)
    assert (sorted(ran), woken) == (["a", "b", "d", "e"], ["woken"])
    lanes.slow("c", lambda: ran.append("c"), owner="mallory")
    assert lanes.wait_idle(20)
    assert ran[-1] == "c"


def test_work_that_a_look_asks_for_is_still_that_keys(gate: threading.Event):
    lanes, _woken = lanes_of()
    ran: list[str] = []

    def look() -> Job:
        def work() -> None:
            gate.wait(20)
            ran.append(threading.current_thread().name.split("-")[0])

        return work

    lanes.quick("a", look)
    lanes.quick("a", lambda: ran.append("too early"))
    gate.set()
    assert lanes.wait_idle(20)
    assert ran == ["work"]


def test_one_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture):
    lanes, _woken = lanes_of(quick=1)
    ran: list[str] = []

    def fail() -> None:
        raise RuntimeError("a mistake")

    lanes.quick("a", fail)
    lanes.quick("b", lambda: ran.append("b"))
    assert lanes.wait_idle(20)
    lanes.quick("a", lambda: ran.append("a"))
    assert lanes.wait_idle(20)
    assert ran == ["b", "a"]
    assert "a mistake" in caplog.text


@contextmanager
def refused_threads() -> Iterator[None]:
    """As long as the unit's TasksMax is reached, by whatever else is in it."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        yield


def test_a_thread_that_is_refused_wedges_no_key_and_no_lane():
    lanes, _woken = lanes_of(quick=1, slow=1, share=1)
    ran: list[str] = []
    with refused_threads(), pytest.raises(RuntimeError):
        lanes.slow("a", lambda: ran.append("a"), owner="alice")
    with refused_threads(), pytest.raises(RuntimeError):
        lanes.quick("leases", lambda: ran.append("leases"))
    lanes.slow("a", lambda: ran.append("a"), owner="alice")
    lanes.quick("leases", lambda: ran.append("leases"))
    assert lanes.wait_idle(20)
    assert sorted(ran) == ["a", "leases"]


def test_where_a_thread_is_there_work_waits_for_it_and_for_the_next_one(gate: threading.Event):
    lanes, _woken = lanes_of(slow=2)
    ran: list[str] = []
    lanes.slow("a", lambda: gate.wait(20) and ran.append("a"))
    with refused_threads():
        lanes.slow("b", lambda: ran.append("b"))
    lanes.slow("c", lambda: ran.append("c"))
    until(lambda: ran == ["b", "c"])
    gate.set()
    assert lanes.wait_idle(20)
    assert ran == ["b", "c", "a"]


def test_work_that_a_look_asks_for_and_gets_no_thread_for_is_asked_for_again():
    lanes, _woken = lanes_of(quick=1)
    ran: list[str] = []
    lanes.quick("b", lambda: ran.append("look"))
    assert lanes.wait_idle(20)
    with refused_threads():
        lanes.quick("a", lambda: lambda: ran.append("work"))
        assert lanes.wait_idle(20)
    lanes.quick("a", lambda: lambda: ran.append("work"))
    assert lanes.wait_idle(20)
    assert ran == ["look", "work"]
