"""`mlwf lease`: taken before the command, renewed while it runs, ended with it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlwf.cli import lease
from mlwf.client import Client, ServiceError, ServiceUnavailable
from mlwf.errors import MlwfError
from mlwf.lease import HeldLease

from mlwf import lease as leases
from tests.mlwf.fake_service import FakeService
from tests.support.box import until

Run = Callable[..., int]


def calls(service: FakeService) -> list[str]:
    """The leases' requests and the start, in order, without repetition."""
    found: list[str] = []
    for method, path, _body, _headers in service.requests:
        kind = method if "/leases/" in path else "start" if path.endswith("/start") else ""
        if kind and found[-1:] != [kind]:
            found.append(kind)
    return found


def test_a_command_runs_between_start_and_end(service: FakeService, mlwf: Run) -> None:
    service.add("g", "wine")["status"] = "stopped"
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    assert mlwf("lease", "hold", "g/wine", "--at-end", "stop", "--note", "job 17", "--", *command) == 7
    assert calls(service) == ["PUT", "start", "DELETE"]
    (body,) = [body for method, path, body, _headers in service.requests if method == "PUT"]
    assert body == {"seconds": 900, "at_end": "stop", "note": "job 17"}
    assert service.servers["g/wine"]["leases"] == []


def test_a_command_that_is_not_there(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("lease", "hold", "g/wine", "--", "/no/such/program") == 2
    assert "/no/such/program cannot be run" in capsys.readouterr().err
    assert calls(service) == ["PUT", "DELETE"]


def test_no_server_no_lease(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("lease", "hold", "g/none", "--", "true") == 1
    assert "There is no g/none" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_what_ends_a_job_reaches_the_command_and_ends_the_lease(service: FakeService, number: signal.Signals) -> None:
    service.add("g", "wine")
    script = f"import signal, sys, time; signal.signal({number}, lambda *_: sys.exit(9)); print('up', flush=True); time.sleep(60)"
    program = "from mlwf.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "lease", "hold", "g/wine", "--seconds", "6", "--", sys.executable, "-c", script]
    environment = {**os.environ, "MLWF_SERVICE": service.address}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        until(lambda: len([1 for method, path, *_rest in service.requests if method == "PUT"]) >= 2, what="a renewal")
        process.send_signal(number)
        assert process.wait(30) == 9
    assert service.servers["g/wine"]["leases"] == []


def test_what_ends_a_job_ends_the_wait_for_its_server(service: FakeService) -> None:
    """A server that starts, and a job that is deleted meanwhile: it was killed ten minutes before it would have listened."""
    service.add("g", "wine")["operation"] = "op_of_somebody"
    argv = [sys.executable, "-c", "from mlwf.cli.main import main; main()", "lease", "hold", "g/wine", "--", "true"]
    with subprocess.Popen(argv, env={**os.environ, "MLWF_SERVICE": service.address}) as process:
        until(lambda: any("/operations/" in path for _method, path, *_rest in service.requests), what="the wait")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert service.servers["g/wine"]["leases"] == []


def test_what_ends_a_job_while_its_command_is_started_reaches_it(service: FakeService, mlwf: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    service.add("g", "wine")
    usual = subprocess.Popen

    def start(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        process = usual(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"up\n"
        os.kill(os.getpid(), signal.SIGUSR1)
        return process

    monkeypatch.setattr(lease.subprocess, "Popen", start)
    script = (
        "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(9)); print('up', flush=True); signal.sigtimedwait([], 20)"
    )
    assert mlwf("lease", "hold", "g/wine", "--", sys.executable, "-c", script) == 9


def test_a_service_that_is_away_is_told_once_and_waited_for(service: FakeService) -> None:
    service.add("g", "wine")
    told: list[str] = []

    def renewals() -> int:
        return len([1 for method, *_rest in service.requests if method == "PUT"])

    held = HeldLease(lambda: Client(service.address), "g", "wine", seconds=1, at_end="keep", warn=told.append)
    with held:
        away: tuple[int, dict[str, Any]] = (503, {"code": "directory_failed", "detail": "NSS is away", "cure": "Wait."})
        service.refuse = away
        before = renewals()
        until(lambda: renewals() >= before + 2, what="two tries")
        service.refuse = None
        before = renewals()
        until(lambda: renewals() > before, what="a renewal that went well")
    assert len(told) == 1
    assert "NSS is away" in told[0]


@pytest.mark.parametrize(("status", "tried_again"), [(403, True), (409, True), (404, False), (422, False)])
def test_only_what_nothing_can_change_ends_the_renewals(service: FakeService, status: int, tried_again: bool) -> None:
    """A list of groups that NSS cut short reads like a leave: 403, or 409 where a group seems to be another one."""
    service.add("g", "wine")
    told: list[str] = []

    def renewals() -> int:
        return len([1 for method, *_rest in service.requests if method == "PUT"])

    held = HeldLease(lambda: Client(service.address), "g", "wine", seconds=1, at_end="keep", warn=told.append)
    with held:
        service.refuse = (status, {"code": "any", "detail": "It is refused.", "cure": "Wait."})
        until(lambda: told, what="the warning")
        service.refuse = None
        before = renewals()
        if tried_again:
            until(lambda: renewals() > before, what="a renewal that went well")
        else:
            held._thread.join(10)
            assert (held._thread.is_alive(), renewals()) == (False, before)
    assert len(told) == 1


def test_another_server_that_gets_the_name_is_not_held(service: FakeService) -> None:
    """Its own was deleted: the end of the job would stop the other one."""
    service.add("g", "wine")
    told: list[str] = []
    held = HeldLease(lambda: Client(service.address), "g", "wine", seconds=1, at_end="stop", warn=told.append)
    with held:
        service.servers["g/wine"] |= {"id": "n3wn3wn3wn3w", "leases": []}
        held._thread.join(10)
        assert (held._thread.is_alive(), service.servers["g/wine"]["leases"]) == (False, [])
    assert told == ["The lease could not be renewed: It is another one by now. Look."]


def test_a_directory_that_does_not_answer_does_not_end_the_wait_for_the_server(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the job, and with `--at-end stop` the server."""
    monkeypatch.setattr(leases, "AGAIN_SECONDS", 0.05)
    service.add("g", "wine")["status"] = "stopped"
    service.refuse = (503, {"code": "directory_failed", "detail": "NSS is away"})
    with Client(service.address) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(leases.ensure_up, client, "g", "wine")
        until(lambda: len(service.requests) >= 2 or waiting.done(), what="another try")
        service.refuse = None
        assert waiting.result(20).status == "running"
        service.refuse = (503, {"code": "ports_exhausted", "detail": "No port is free"})
        with pytest.raises(ServiceError, match="No port is free"):
            leases.ensure_up(client, "g", "wine")


def test_a_status_that_a_newer_service_has_is_none_to_start_for_ever(service: FakeService) -> None:
    """A start that went well says that the server is up, whatever word that service has for it."""
    found = service.add("g", "wine")
    found["status"] = "hibernating"
    service.status_of["start"] = "hibernating"
    with Client(service.address) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(leases.ensure_up, client, "g", "wine")
        until(lambda: len(service.requests) > 20 or waiting.done(), what="its end, or too many requests")
        service.status_of["start"] = "running"  # for a wait that would never end
        assert waiting.result(20).status == "hibernating"
    assert [path for method, path, *_rest in service.requests if method == "POST"] == ["/api/v1/servers/g/wine/start"]


def test_a_server_that_dies_at_once_is_not_started_for_ever(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "AGAIN_SECONDS", 0.05)
    service.add("g", "wine")["status"] = "stopped"
    service.status_of["start"] = "failed"
    with Client(service.address) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(leases.ensure_up, client, "g", "wine")
        until(lambda: len(service.requests) > 60 or waiting.done(), what="its end, or too many requests")
        service.status_of["start"] = "running"  # for a wait that would never end
        with pytest.raises(MlwfError, match="g/wine does not stay up: it was started 5 times"):
            waiting.result(20)


AWAY = [(502, "<html>bad gateway"), (503, "<html>unavailable"), (504, "<html>timeout"), (429, "<html>too many requests")]


def test_a_service_that_is_started_anew_does_not_end_the_wait_for_the_server(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was asked for when it went: the server, what somebody else does to it, or the start."""
    monkeypatch.setattr(leases, "AGAIN_SECONDS", 0.01)
    found = service.add("g", "wine")
    found |= {"status": "stopped", "operation": "op_1"}
    service.refuse_next = [None, *AWAY, None, *AWAY]
    with Client(service.address) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(leases.ensure_up, client, "g", "wine")
        until(lambda: len(service.requests) > 10 or waiting.done(), what="an answer to the second look at the operation")
        found["operation"] = None
        assert waiting.result(20).status == "running"
        found["status"] = "stopped"
        service.refuse_next = [None, *AWAY]
        assert leases.ensure_up(client, "g", "wine").status == "running"
        monkeypatch.setattr(leases, "START_SECONDS", 0)
        found["status"] = "stopped"
        service.refuse_next = [None, *AWAY]
        with pytest.raises(ServiceUnavailable):
            leases.ensure_up(client, "g", "wine")


def test_a_server_that_another_could_not_make_is_none(service: FakeService) -> None:
    """Its operation is seen no more by those who did not ask for it, once the server is gone."""
    making = {**service.add("g", "wine"), "status": "creating", "operation": "op_1"}
    service.servers.clear()
    service.refuse_next = [(200, making), (404, {"code": "no_such_operation", "detail": "There is no operation op_1.", "cure": "Look."})]
    with Client(service.address) as client, pytest.raises(ServiceError, match="There is no g/wine"):
        leases.ensure_up(client, "g", "wine")


def test_a_service_that_never_answered_is_not_waited_for(service: FakeService) -> None:
    service.add("g", "wine")
    service.refuse = (502, "<html>bad gateway")
    with Client(service.address) as client, pytest.raises(ServiceUnavailable):
        leases.ensure_up(client, "g", "wine")
    assert len(service.requests) == 1


def test_list_and_end(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    with Client(service.address) as client:
        client.hold_lease("g", "wine", "left-by-a-job", seconds=60, at_end="stop", note="job 3")
    assert mlwf("lease", "list", "g/wine") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[::4] == ["left-by-a-job", "stop"]
    assert mlwf("lease", "list", "g/wine", "--json") == 0
    assert json.loads(capsys.readouterr().out)["leases"][0]["note"] == "job 3"
    assert mlwf("lease", "end", "g/wine", "left-by-a-job") == 0
    assert service.servers["g/wine"]["leases"] == []
