"""The bound of what uploads and downloads put on the box's disk: within one process, and over all workers and jobs."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import ROOT
from tracking_server.mlflow_process.downloads import arriving
from tracking_server.mlflow_process.spool import NO_ROOM, NoRoomError, Spool, SpoolMiddleware, Upload

# In processes of their own, as MLflow's workers and jobs are: each says what it was let, and lives until it is told to end.
_WORKERS = """
import os, signal, sys
from pathlib import Path
from tracking_server.mlflow_process.spool import Spool

spool = Spool(Path(sys.argv[1]), 100)

def worker(size):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"yes" if spool.promise(size) else b"no")
        signal.pause()
    return pid, os.read(told, 3).decode()

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

first, let = worker(80)
second, let_too = worker(30)
third, let_small = worker(20)
end(first)
fourth, let_then = worker(80)
for pid in (second, third, fourth):
    end(pid)
print(let, let_too, let_small, let_then, spool.promise(100))
"""


def _run(coroutine: Coroutine[Any, Any, Any]) -> None:
    """On a thread of its own: Playwright keeps a loop on the tests' thread, if a browser was started before."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


def test_a_download_counts_once_while_it_arrives(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)
    with arriving(tmp_path / "part", spool, 60) as file:
        for offset in (0, 30, 20):  # the last is fetched once more
            assert not spool.promise(41)
            file.seek(offset)
            file.write(b"x" * 30)
        assert spool.promise(40)
        spool.keep(40)
    assert not spool.promise(41)
    (tmp_path / "part").unlink()
    assert spool.promise(100), "nothing is left of it"


def test_of_a_download_that_fails_neither_bytes_nor_promise_are_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)

    def fetch(place: Path) -> None:
        with arriving(place, spool, 60) as file:
            file.write(b"x" * 30)
            raise ConnectionError

    for place, error in ((tmp_path / "part", ConnectionError), (tmp_path / "no" / "folder", FileNotFoundError)):
        with pytest.raises(error):
            fetch(place)
        assert list(tmp_path.iterdir()) == []
        assert spool.promise(100), "nothing is left of it"
        spool.keep(100)


def _put(path: str, length: int | None) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http", "method": "PUT", "path": path, "headers": headers}


ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/0/x"


def test_an_upload_that_does_not_fit_is_507_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 60)
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("must not be called")

    async def receive() -> Any:
        raise AssertionError("must not be read")

    async def send(message: Any) -> None:
        sent.append(message)

    for size in (41, 101):
        _run(SpoolMiddleware(app, Spool(tmp_path, 100))(_put(ARTIFACT, size), receive, send))
    assert [message["status"] for message in sent[::2]] == [507, 507]
    now, ever = (json.loads(message["body"]) for message in sent[1::2])
    assert now["error_code"] == ever["error_code"] == "RESOURCE_EXHAUSTED"
    assert "try again later" in now["message"]
    assert "more than 100 bytes" in ever["message"]
    assert "tmp_bytes" in ever["message"]
    assert [b"retry-after" in dict(message["headers"]) for message in sent[::2]] == [True, False]


def test_promises_count_until_they_arrive_or_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 30}

    assert spool.promise(80)
    upload = Upload(spool, receive, 80)
    assert not spool.has_room(21)
    _run(upload.receive())
    assert (spool.has_room(50), spool.has_room(51)) == (True, False)
    upload.end()
    assert spool.has_room(100)


def test_a_file_that_goes_while_it_is_looked_at_takes_no_other_out_of_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(b"x" * 30)
    scandir = os.scandir

    @contextlib.contextmanager
    def first_goes(folder: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            found = list(entries)
        Path(found[0].path).unlink()
        yield found

    monkeypatch.setattr(os, "scandir", first_goes)
    assert not Spool(tmp_path, 100).has_room(41)


def test_an_upload_without_a_length_is_stopped_when_it_fills_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 20 * 1024 * 1024)
    place = tmp_path / "spooled"

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 1024 * 1024}

    async def transfer() -> int:
        upload, size = Upload(spool, receive, 0), 0
        with place.open("wb") as file:
            while True:
                size += file.write((await upload.receive())["body"])
                file.flush()

    with pytest.raises(NoRoomError):
        _run(transfer())
    assert place.stat().st_size <= 20 * 1024 * 1024


def test_an_upload_without_a_length_that_never_fits_says_so(tmp_path: Path) -> None:
    """It has the spool to itself, and fills it."""
    spool = Spool(tmp_path, 20 * 1024 * 1024)
    assert spool.words(20 * 1024 * 1024) == NO_ROOM
    assert "more than 20971520 bytes" in spool.words(20 * 1024 * 1024 + 1)


def test_all_workers_are_below_one_bound_and_one_that_dies_lets_go(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _WORKERS, tmp_path]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["yes", "no", "yes", "yes", "True"]
