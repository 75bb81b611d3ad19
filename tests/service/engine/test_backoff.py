from backend.plans.backoff import Backoff


def test_it_waits_longer_each_time_and_ten_minutes_at_most():
    clock = [0.0]
    backoff = Backoff(clock=lambda: clock[0])
    waits = []
    for _ in range(10):
        assert backoff.is_due("a")
        backoff.tried("a")
        began = clock[0]
        while not backoff.is_due("a"):
            clock[0] += 1
        waits.append(clock[0] - began)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert backoff.is_due("b")


def test_only_a_minute_of_health_makes_it_forget():
    clock = [0.0]
    backoff = Backoff(clock=lambda: clock[0])
    backoff.tried("a")
    backoff.tried("a")
    clock[0] = 100
    backoff.well("a")
    clock[0] = 159
    backoff.well("a")
    backoff.tried("a")
    clock[0] = 178
    assert not backoff.is_due("a"), "20 s, since the two tries before still count"
    backoff.well("a")
    clock[0] = 238
    backoff.well("a")
    backoff.tried("a")
    clock[0] = 243
    assert backoff.is_due("a")


def test_who_asks_anew_need_not_wait():
    backoff = Backoff(clock=lambda: 0.0)
    backoff.tried("a")
    assert not backoff.is_due("a")
    backoff.forget("a")
    assert backoff.is_due("a")


def test_what_is_to_be_tried_often_waits_no_longer_than_that_and_knows_since_when():
    clock = [100.0]
    backoff = Backoff(clock=lambda: clock[0])
    assert backoff.seconds("a") == 0
    waits = []
    for _ in range(5):
        backoff.tried("a", longest=30)
        began = clock[0]
        while not backoff.is_due("a"):
            clock[0] += 1
        waits.append(clock[0] - began)
    assert (waits, backoff.seconds("a")) == ([5, 10, 20, 30, 30], 95)
    backoff.forget("a")
    assert backoff.seconds("a") == 0
