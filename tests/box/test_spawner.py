"""MLflow started by another container's first process: who is heard, what happens when a part is gone, and what a liar can do."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.box import DIES_WITH_US, ROOT, Box, alive, until
from tracking_server.guard.loop import Timer
from tracking_server.guard.mlflow import Launch, MlflowProcess, State
from tracking_server.guard.spawner_client import SpawnerStarter
from tracking_server.guard.starters import Ending, Files, Running

MakeBox = Callable[..., Box]
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
spawned = pytest.mark.parametrize("own_box", ["spawner"], indirect=True)


def spawner_of(box: Box) -> "subprocess.Popen[bytes]":
    assert box.spawner is not None
    return box.spawner


def start_the_guard_alone(box: Box) -> None:
    """Whoever is behind the spawner's socket."""
    argv = [*DIES_WITH_US, box.environment / "bin" / "python", "-P", "-m", "tracking_server", "--spawner", "../spawn/spawn.sock", box.home]
    with (box.home / "guard.stderr").open("ab") as output:
        box.process = subprocess.Popen(argv, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    until(box.answers, what="the guard's answer")


@pytest.mark.box
@spawned
def test_a_spawner_that_comes_late_is_waited_for(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start_spawner()
    spawner_of(box).kill()
    spawner_of(box).wait()
    start_the_guard_alone(box)
    assert box.health()["state"] in ("asleep", "waking")
    box.start_spawner()
    box.wait_state("awake")


@pytest.mark.box
@spawned
def test_a_killed_spawner_takes_mlflow_along_and_who_waits_is_answered_by_the_next(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.wait_state("awake")
    mlflow = box.mlflow_process().pid
    spawner_of(box).kill()
    spawner_of(box).wait()
    until(lambda: not alive([mlflow]), what="the end of MLflow")
    until(lambda: box.health()["state"] == "asleep", what="the guard's notice of it")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(box.request, "GET", SEARCH)
        until(lambda: box.health()["state"] == "waking", what="the wake")
        box.start_spawner()
        assert waiting.result().status_code == 200


@pytest.mark.box
@spawned
def test_a_spawner_hears_no_other_user_id(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start_spawner(guard_uid=os.getuid() + 1)
    box.start()
    answer = box.request("GET", SEARCH)
    assert answer.status_code == 503
    assert "does not answer" in answer.json()["message"]
    assert f"user id {os.getuid()} is not the guard's" in (box.home / "guard.stderr").read_text()
    assert box.find_all("mlflow_process") == []


@pytest.mark.box
@spawned
def test_a_signal_to_the_spawner_ends_mlflow_gently_and_then_it(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.wait_state("awake")
    mlflow = box.mlflow_process().pid
    spawner_of(box).send_signal(signal.SIGTERM)
    assert spawner_of(box).wait(30) == 0
    assert not alive([mlflow])
    until(lambda: "MLflow ended with status 0" in (box.home / "log" / "guard.log").read_text(), what="the guard's notice of it")


def test_wrong_use_of_the_spawner_is_status_2(tmp_path: Path) -> None:
    script = ROOT / "tracking_server" / "spawner.py"
    for arguments in ([], ["root", "/box"], ["1", "box"]):
        done = subprocess.run(["python3", "-I", "-S", script, *arguments], capture_output=True, check=False, cwd=tmp_path)
        assert done.returncode == 2
    assert subprocess.run(["python3", "-I", "-S", script, "1", tmp_path], capture_output=True, check=False).returncode == 1


@pytest.mark.box
@pytest.mark.parametrize(
    "lie", [b"\xff\xfe", b"ended lots", b"ended 99999999999", b"x" * 5000, b"refused " + b"y" * 5000, b"database maybe"]
)
def test_a_lying_spawner_harms_only_its_mlflow(own_box: MakeBox, lie: bytes) -> None:
    """Whoever broke into MLflow can put a socket of their own in the spawner's place."""
    box = own_box(idle_seconds=0)
    (box.home / "spawn").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as liar:
        liar.bind(str(box.home / "spawn" / "spawn.sock"))
        liar.listen()
        liar.settimeout(60)
        answering = threading.Thread(target=_lie_to, args=(liar, lie), daemon=True)
        answering.start()
        start_the_guard_alone(box)
        with pytest.raises(requests.Timeout):
            box.request("GET", SEARCH, timeout=0.5)
        answering.join(30)
        assert not answering.is_alive()
        health = box.health()
        assert health["state"] in ("asleep", "waking", "failed")
        assert len(health["reason"] or "") < 1200
    assert box.process.poll() is None


def _lie_to(liar: socket.socket, lie: bytes) -> None:
    for _ in range(2):
        line, _ = liar.accept()
        with line:
            line.send(lie)


class Never:
    """A starter that keeps the pipe for MLflow's words."""

    def __init__(self) -> None:
        self.status = -1

    def start(self, files: Files, ended: Callable[[Ending], None]) -> Running:
        self.status = os.dup(files.status)
        return self

    def look(self, known: Callable[[bool], None]) -> None:
        known(True)

    def drain(self) -> None:
        raise AssertionError

    def kill(self) -> None:
        raise AssertionError


class QuietLoop:
    """Nothing happens by itself."""

    def watch(self, *_arguments: object) -> None: ...

    def unwatch(self, *_arguments: object) -> None: ...

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return Timer(seconds, call)


def test_words_that_no_launcher_of_ours_says_are_passed_over() -> None:
    never = Never()
    with socket.socket(socket.AF_UNIX) as listener:
        mlflow = MlflowProcess(
            loop=QuietLoop(),
            listener=listener,
            log=lambda _text: None,
            output=lambda: os.open(os.devnull, os.O_WRONLY),
            launch=lambda: Launch({}, 1.0),
            starter=never,
        )
        mlflow.wake()
        words: list[object] = [
            1,
            None,
            [],
            {},
            {"state": 3},
            {"state": "draining"},
            {"reason": ["x"]},
            {"reason": "r" * 9000},
            {"state": "ready"},
        ]
        os.write(never.status, b"\xff\n[[[[[\n" + b"".join(json.dumps(word).encode() + b"\n" for word in words[:-2]))
        mlflow._told()
        assert (mlflow.state, mlflow.reason) == (State.WAKING, None)
        os.write(never.status, json.dumps(words[-2]).encode() + b"\n")
        for _ in range(3):
            mlflow._told()
        os.write(never.status, json.dumps(words[-1]).encode() + b"\n")
        mlflow._told()
        assert mlflow.state is State.AWAKE
        os.close(never.status)
        mlflow._ended(Ending(0))
        assert mlflow.state is State.ASLEEP


class TurnedLoop(QuietLoop):
    """Timers come when it is turned, in their order."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self._timers.append(Timer(seconds, call))
        return self._timers[-1]

    def turn(self) -> None:
        timers, self._timers = sorted(self._timers), []
        for timer in timers:
            if timer.call is not None and timer.at < 1:
                timer.call()
            elif timer.call is not None:
                self._timers.append(timer)


def test_new_keys_while_the_spawner_is_away_are_those_that_mlflow_starts_with(tmp_path: Path) -> None:
    place = tmp_path / "spawn.sock"
    loop, plan = TurnedLoop(), {"keys": "old"}
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as spawner:
        mlflow = MlflowProcess(
            loop=loop,  # type: ignore[arg-type]
            listener=listener,
            log=lambda _text: None,
            output=lambda: os.open(os.devnull, os.O_WRONLY),
            launch=lambda: Launch(dict(plan), 1.0),
            starter=SpawnerStarter(loop, str(place)),  # type: ignore[arg-type]
        )
        mlflow.wake()
        loop.turn()  # nobody there
        plan["keys"] = "new"
        mlflow.restart()
        assert mlflow.state is State.DRAINING
        spawner.bind(str(place))
        spawner.listen()
        spawner.settimeout(10)
        loop.turn()
        assert mlflow.state is State.ASLEEP
        mlflow.wake()  # who waits in the listener is noticed by the real loop
        loop.turn()
        line, _ = spawner.accept()
        word, (given, *rest), _flags, _address = socket.recv_fds(line, 100, 9)
        assert (word, json.loads(os.read(given, 1000))) == (b"start", {"keys": "new"})
        for each in (given, *rest):
            os.close(each)
        line.close()
        mlflow._running.hang_up()  # type: ignore[union-attr]
