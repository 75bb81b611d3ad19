"""What one mishap must not take the guard along with: no thread, no process, no open file to spare, a line written by half."""

import errno
import fcntl
import io
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracking_server.guard import child
from tracking_server.guard.mlflow import Launch, MlflowProcess, State
from tracking_server.guard.nginx_process import NginxProcess
from tracking_server.guard.spawner_client import SpawnerStarter
from tracking_server.guard.spent import Spent
from tracking_server.guard.starters import Files
from tracking_server.guard.verifier import LANES, Verdict, Verifier

SOON, LATE = 1000.0, 2000.0
NO_MORE = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class ByHand:
    """A loop whose timers, ends and posted calls are the test's to make."""

    def __init__(self) -> None:
        self.timers: deque[Callable[[], None]] = deque()
        self.ends: dict[int, Callable[[int], None]] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._there = threading.Semaphore(0)

    def later(self, _seconds: float, call: Callable[[], None]) -> Any:
        self.timers.append(call)
        return SimpleNamespace(cancel=lambda: None)

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        self.ends[pid] = call

    def post(self, call: Callable[[], None]) -> None:
        self._posted.append(call)
        self._there.release()

    def watch(self, *_what: Any) -> None:
        return

    def unwatch(self, _file: Any) -> None:
        return

    def take_posted(self) -> None:
        assert self._there.acquire(timeout=10), "nothing was posted"
        self._posted.popleft()()


def verifier_of(loop: ByHand, check: Callable[[bytes, bytes], bool]) -> Verifier:
    verifier = Verifier(loop, check=check)  # type: ignore[arg-type]
    verifier.set_users(dict.fromkeys(("alice", "bob", "carol"), b"$2b$04$line"))
    return verifier


def test_who_tries_one_users_password_from_everywhere_shuts_nobody_else_out() -> None:
    loop, hold, said, tried = ByHand(), threading.Event(), [], []

    def check(password: bytes, _line: bytes) -> bool:
        assert hold.wait(10)
        return password == b"right"

    verifier = verifier_of(loop, check)
    for number in range(10 * LANES):
        verifier.verify("alice", b"wrong %d" % number, f"127.0.{number // 256}.{number % 256}", tried.append)
    assert tried.count(Verdict.BUSY) == len(tried) > 0, "there is an end to her own"
    verifier.verify("bob", b"right", "::1", said.append)
    verifier.set_users(dict.fromkeys(("bob", "carol"), b"$2b$04$line"))
    hold.set()
    while not said:
        loop.take_posted()
    assert said == [Verdict.RIGHT]


def test_a_thread_that_the_machine_refuses_is_one_answer_not_the_end_of_logins(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loop, said = ByHand(), []
    verifier = verifier_of(loop, lambda password, _line: password == b"right")
    with monkeypatch.context() as patch:

        def refused(_self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refused)
        for name in ("alice", "bob", "carol"):
            verifier.verify(name, b"right", "::1", said.append)
    assert said == [Verdict.BUSY] * 3
    assert "can't start new thread" in capfd.readouterr().err
    verifier.verify("alice", b"right", "::1", said.append)
    loop.take_posted()
    assert said[3:] == [Verdict.RIGHT]


def test_one_thread_alone_does_the_work_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, said, go_on = ByHand(), [], threading.Event()
    verifier = verifier_of(loop, lambda _password, _line: go_on.wait(10))
    verifier.verify("alice", b"right", "::1", said.append)

    def refused(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    verifier.verify("bob", b"right", "::1", said.append)
    assert said == []
    go_on.set()
    loop.take_posted()
    loop.take_posted()
    assert said == [Verdict.RIGHT] * 2


def test_a_check_that_fails_is_nobodys_wrong_password(capfd: pytest.CaptureFixture[str]) -> None:
    loop, said, broken = ByHand(), [], ["once", "twice", "thrice"]

    def check(_password: bytes, _line: bytes) -> bool:
        if broken:
            raise MemoryError(broken.pop())
        return True

    verifier = verifier_of(loop, check)
    for _again in range(4):
        verifier.verify("alice", b"right", "::1", said.append)
        loop.take_posted()
    assert said == [Verdict.BUSY] * 3 + [Verdict.RIGHT]
    assert "MemoryError: once" in capfd.readouterr().err


def test_a_check_that_fails_on_a_full_disk_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    loop, said, broken = ByHand(), [], ["once"]

    def check(_password: bytes, _line: bytes) -> bool:
        if broken:
            raise MemoryError(broken.pop())
        return True

    verifier = verifier_of(loop, check)
    for _again in range(2):
        verifier.verify("alice", b"right", "::1", said.append)
        loop.take_posted()
    assert said == [Verdict.BUSY, Verdict.RIGHT]


@pytest.mark.parametrize("torn", ["session", "session 19", "session 1999.00", "\0\0\0", "sess\u00e9 1999.000"])
def test_a_torn_line_of_what_is_spent_takes_no_other_along(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "spent"
    Spent(path, now=SOON).add("first", LATE, now=SOON)
    with path.open("a") as file:
        file.write(f"{torn}\nsecond {LATE:.3f}\n")
    again = Spent(path, now=SOON)
    assert ("first" in again, "second" in again) == (True, True)
    assert not again.survived, "what the line said is not known"
    assert Spent(path, now=SOON).survived, "written anew, without the line"


def test_what_was_written_by_half_is_not_spent_and_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spent"
    spent, write = Spent(path, now=SOON), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:4]))
        with pytest.raises(OSError, match="No space left"):
            spent.add("first", LATE, now=SOON)
    assert "first" not in spent
    assert spent.add("second", LATE, now=SOON)
    again = Spent(path, now=SOON)
    assert ("second" in again, again.survived) == (True, True)


def test_nginx_is_tried_again_where_the_machine_has_no_process_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, said = ByHand(), []
    refused: list[str] = []
    pids = iter(range(1_000_000_001, 1_000_000_099))

    def spawn(argv: list[str], **_how: Any) -> int:
        if argv[0] in refused:
            refused.remove(argv[0])
            raise NO_MORE
        return next(pids)

    monkeypatch.setattr(child, "spawn", spawn)
    monkeypatch.setattr(child, "kill_group", lambda _group: None)
    nginx = NginxProcess(loop, said.append, tmp_path / "error.log", {})  # type: ignore[arg-type]
    nginx.on_hopeless = said.append
    nginx.start()
    master = max(loop.ends)
    refused += ["sh", "nginx"]
    loop.ends[master](1)
    for _refused in ("sh", "nginx"):
        loop.timers.popleft()()
    assert [text for text in said if "Resource temporarily unavailable" in text] == said[1:]
    assert len(said) == 3
    loop.timers.popleft()()
    assert max(loop.ends) > master
    assert not loop.timers
    nginx.kill()


def test_mlflow_that_drains_by_itself_is_ended_where_that_has_no_end() -> None:
    """One of its workers failed, and a request of another one's never ends."""
    loop, killed = ByHand(), []
    starter = SimpleNamespace(start=lambda _files, _ended: SimpleNamespace(kill=lambda: killed.append(True)))
    listener, output = socket.socket(socket.AF_UNIX), lambda: os.open(os.devnull, os.O_WRONLY)
    with listener:
        mlflow = MlflowProcess(loop=loop, listener=listener, log=print, output=output, launch=lambda: Launch({}, 1.0), starter=starter)  # type: ignore[arg-type]
        mlflow.wake()
        mlflow._take(b'{"state": "ready"}')
        loop.timers.clear()
        mlflow._take(b'{"state": "draining"}')
        assert (mlflow.state, killed) == (State.DRAINING, [])
        loop.timers.popleft()()
        assert killed == [True]


@pytest.mark.parametrize("refused", ["the log", "the first pipe", "the second pipe", "the start"])
def test_a_start_that_the_machine_refuses_shows_no_path_and_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    loop, said, pipes = ByHand(), [], count(1)
    pipe = os.pipe

    def pipe_or_none() -> tuple[int, int]:
        if refused == {1: "the first pipe", 2: "the second pipe"}.get(next(pipes)):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pipe()

    def start(*_what: Any) -> None:
        raise NO_MORE

    log = tmp_path / "away" / "mlflow.log" if refused == "the log" else Path(os.devnull)
    starter = SimpleNamespace(start=start)
    with socket.socket(socket.AF_UNIX) as listener, monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe_or_none)
        mlflow = MlflowProcess(
            loop=loop,  # type: ignore[arg-type]
            listener=listener,
            log=said.append,
            output=lambda: os.open(log, os.O_WRONLY),
            launch=lambda: Launch({}, 1.0),
            starter=starter,  # type: ignore[arg-type]
        )
        before = set(Path("/proc/self/fd").iterdir())
        mlflow.wake()
        assert set(Path("/proc/self/fd").iterdir()) == before
    assert mlflow.reason is not None
    assert mlflow.reason.startswith("MLflow cannot be started (")
    assert "/" not in mlflow.reason
    assert (str(log) in said[0]) is (refused == "the log"), "the admin sees which file it is"


@pytest.mark.parametrize(
    "start",
    [
        lambda: child.spawn(["true"], environment={}, files=dict.fromkeys(range(4), 0)),
        lambda: SpawnerStarter(ByHand(), "spawn.sock").start(Files(0, 0, 0, 0), list),  # type: ignore[arg-type]
    ],
    ids=["the guard", "the spawner"],
)
def test_a_start_with_too_few_files_to_spare_leaves_none_of_them_open(monkeypatch: pytest.MonkeyPatch, start: Callable[[], object]) -> None:
    """Else each try would take some of the few that are left."""
    duplicated, tries = fcntl.fcntl, count(1)

    def duplicated_or_not(*what: Any) -> int:
        if next(tries) == 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return duplicated(*what)

    monkeypatch.setattr(fcntl, "fcntl", duplicated_or_not)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Too many open files"):
        start()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_the_spawner_is_dialled_again_where_there_was_no_file_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, ended = ByHand(), []
    SpawnerStarter(loop, str(tmp_path / "spawn.sock")).look(ended.append)  # type: ignore[arg-type]

    def refused(*_kind: Any) -> socket.socket:
        raise NO_MORE

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refused)
        loop.timers.popleft()()
    assert (len(loop.timers), ended) == (1, [])
