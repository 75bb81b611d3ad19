import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from backend.domain import BoxState, Observation
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from backend.runtimes import proctable
from backend.runtimes.health import HEALTH_SECONDS
from backend.runtimes.process import ProcessRuntime, ask
from demo.ports import free_ports
from tests.service.engine.contract_runtime import Bench, RuntimeContract
from tests.service.engine.support import SIZE, VERSION, install_version, until

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    "TZ": "Asia/Tokyo",
    "https_proxy": "http://proxy:3128",
    "SECRET": "of-the-service",
}


def guard_of(directory: Path) -> int:
    pid = proctable.guard_pid(directory)
    assert pid is not None
    return pid


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    servers, envs = tmp_path / "servers", tmp_path / "envs"
    program = (Path(__file__).parent / "fake_box.py").read_text()
    install_version(envs, VERSION, f"#!{sys.executable}\n{program}")

    def open_runtime() -> ProcessRuntime:
        return ProcessRuntime(servers_dir=servers, envs_dir=envs, environment=ENVIRONMENT)

    boxes = BoxDirectories(servers)
    bench = Bench(
        runtime=open_runtime(),
        boxes=boxes,
        kill=lambda server_id: os.kill(guard_of(boxes.directory(server_id)), signal.SIGKILL),
        ports=free_ports(4),
        reopen=open_runtime,
    )
    yield bench
    for server_id in boxes.ids():
        bench.runtime.stop(server_id=server_id, directory=boxes.directory(server_id), timeout=0)


def seen_by_box(directory: Path) -> dict:
    return json.loads((directory / "run" / "seen.json").read_text())


def ways(directory: Path, **ways: object) -> None:
    (directory / "fake.json").write_text(json.dumps(ways))


class TestProcessRuntime(RuntimeContract):
    pass


def test_it_says_that_it_isolates_nothing(bench: Bench):
    assert (bench.runtime.name, bench.runtime.isolates) == ("process", False)


def test_nothing_of_the_service_reaches_a_box(bench: Bench, tmp_path: Path):
    with (tmp_path / "open-in-the-service").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        _id, directory, _address = bench.start()
    seen = seen_by_box(directory)
    assert "SECRET" not in seen["environment"]
    assert seen["environment"]["TZ"] == "Asia/Tokyo"
    assert "https_proxy" not in seen["environment"]
    assert seen["descriptors"]["0"] == "/dev/null"
    assert seen["descriptors"]["1"] == seen["descriptors"]["2"] == str(directory / "log" / "guard.out")
    assert not any("open-in-the-service" in name for name in seen["descriptors"].values())
    assert seen["session"] == guard_of(directory) != os.getsid(0)
    assert stat.S_IMODE((directory / "log" / "guard.out").stat().st_mode) == 0o600


def test_a_migration_that_fails_says_why(bench: Bench, tmp_path: Path):
    server_id, directory, _address = bench.start()
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
    (tmp_path / "envs" / f"mlflow-{VERSION}" / "bin" / "no-migration").touch()
    with pytest.raises(ServiceError) as caught:
        bench.runtime.migrate(server_id=server_id, directory=directory, mlflow_version=VERSION, timeout=60)
    assert (caught.value.code, caught.value.params["why"], caught.value.log) == (
        "migration_failed",
        "no such table",
        "it begins\nno such table",
    )


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EACCES])
def test_a_process_that_the_machine_refuses_is_a_failure_with_its_word(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int):
    server_id, directory, _address = bench.box()
    box = {"server_id": server_id, "directory": directory, "mlflow_version": VERSION}

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as busy:
        busy.setattr("backend.runtimes.process.subprocess.Popen", refuse)
        with pytest.raises(ServiceError) as start:
            bench.runtime.start(**box, size=SIZE)
        with pytest.raises(ServiceError) as migration:
            bench.runtime.migrate(**box, timeout=60)
    why = os.strerror(number)
    assert (start.value.code, start.value.params) == ("box_failed_to_start", {"why": why})
    assert (migration.value.code, migration.value.params) == ("migration_failed", {"version": VERSION, "why": why})
    bench.runtime.start(**box, size=SIZE)


def test_a_full_disk_is_left_to_who_knows_what_was_done(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    server_id, directory, _address = bench.box()

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("backend.runtimes.process.subprocess.Popen", full)
    with pytest.raises(OSError, match="No space left"):
        bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=VERSION, size=SIZE)


def test_a_migration_that_a_killed_service_left_is_ended_before_another(bench: Bench, tmp_path: Path):
    server_id, directory, _address = bench.start()
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
    slow = tmp_path / "envs" / f"mlflow-{VERSION}" / "bin" / "slow-migration"
    slow.touch()
    code = f"""
from pathlib import Path
from backend.runtimes.process import ProcessRuntime
runtime = ProcessRuntime(servers_dir=Path({str(directory.parent)!r}), envs_dir=Path({str(tmp_path / "envs")!r}), environment={{}})
runtime.migrate(server_id={server_id!r}, directory=Path({str(directory)!r}), mlflow_version={VERSION!r}, timeout=60)
"""
    service = subprocess.Popen([sys.executable, "-c", code], cwd=Path.cwd())
    database = str(directory / "data" / "mlflow.db")

    def migrations() -> list[int]:
        lines = {int(each.name): each / "cmdline" for each in Path("/proc").iterdir() if each.name.isdecimal()}
        return [pid for pid, line in lines.items() if database.encode() in words_of(line)]

    try:
        left = until(migrations)
        service.kill()
        service.wait()
        slow.unlink()
        assert (len(left), migrations()) == (1, left)
        bench.runtime.migrate(server_id=server_id, directory=directory, mlflow_version=VERSION, timeout=60)
        assert (migrations(), bench.schema_of(directory)) == ([], VERSION)
    finally:
        for pid in migrations():
            os.kill(pid, signal.SIGKILL)


def words_of(line: Path) -> list[bytes]:
    try:
        return line.read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_a_box_outlives_the_process_that_started_it(bench: Bench, tmp_path: Path):
    server_id, directory, address = bench.box()
    code = f"""
import os
from pathlib import Path
from backend.runtimes.process import ProcessRuntime
from backend.settings import SIZES
servers, envs = Path({str(directory.parent)!r}), Path({str(tmp_path / "envs")!r})
runtime = ProcessRuntime(servers_dir=servers, envs_dir=envs, environment=dict(os.environ))
runtime.start(server_id={server_id!r}, directory=Path({str(directory)!r}), mlflow_version={VERSION!r}, size=SIZES[0])
os.kill(os.getpid(), 9)
"""
    service = subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), check=False)
    assert service.returncode == -signal.SIGKILL
    assert bench.settled(server_id, directory, address).state is BoxState.ASLEEP
    assert bench.runtime.running() == [server_id]
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
    assert bench.runtime.running() == []


def test_no_zombie_is_left_of_a_box_that_ended(bench: Bench):
    server_id, directory, address = bench.start()
    pid = guard_of(directory)
    os.kill(pid, signal.SIGKILL)
    until(lambda: bench.runtime.observe(server_id=server_id, directory=directory, address=address).state is BoxState.ABSENT)
    until(lambda: bench.runtime.observe(server_id=server_id, directory=directory, address=address) and proctable.read_process(pid) is None)


def test_what_a_killed_guard_left_is_ended_before_a_new_start(bench: Bench):
    server_id, directory, address = bench.start()
    orphan = int((directory / "run" / "child.pid").read_text())
    os.kill(guard_of(directory), signal.SIGKILL)
    until(lambda: proctable.guard_pid(directory) is None)
    assert proctable.read_process(orphan) is not None
    assert [process.pid for process in proctable.processes_of(directory)] == [orphan]
    bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=VERSION, size=SIZE)
    assert bench.settled(server_id, directory, address).state is BoxState.ASLEEP
    assert orphan not in [process.pid for process in proctable.processes_of(directory)]


def test_stop_ends_what_a_killed_guard_left(bench: Bench):
    server_id, directory, _address = bench.start()
    orphan = int((directory / "run" / "child.pid").read_text())
    os.kill(guard_of(directory), signal.SIGKILL)
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
    found = proctable.read_process(orphan)
    assert found is None or found.zombie


def test_one_that_does_not_listen_is_killed_after_its_time(bench: Bench):
    server_id, directory, _address = bench.start()
    ways(directory, deaf=True)
    bench.runtime.stop(server_id=server_id, directory=directory, timeout=0.2)
    assert proctable.processes_of(directory) == []


def test_no_zombie_is_left_of_a_box_that_was_ended(bench: Bench):
    """A process that is killed lets go of its files a moment before it can be waited for."""
    server_id, directory, _address = bench.start()
    for _each in range(10):
        pid = guard_of(directory)
        bench.runtime.stop(server_id=server_id, directory=directory, timeout=0)
        assert proctable.read_process(pid) is None
        bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=VERSION, size=SIZE)


def test_a_guard_so_young_that_it_holds_no_lock_is_ended_too(bench: Bench, tmp_path: Path):
    _id, directory, _address = bench.box()
    slow = tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    slow.chmod(0o755)
    young = subprocess.Popen([str(slow), "-P", "-m", "tracking_server", str(directory)], start_new_session=True, cwd="/")
    until(lambda: [process.pid for process in proctable.processes_of(directory)] == [young.pid])
    bench.runtime.stop(server_id=_id, directory=directory, timeout=20)
    assert young.wait(20) == -signal.SIGKILL


def test_a_process_that_only_has_the_recorded_number_is_let_alone(bench: Bench):
    server_id, directory, _address = bench.box()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, cwd="/")
    try:
        (directory / "run").mkdir()
        (directory / "run" / "guard.lock").write_text(f"{stranger.pid}\n")
        assert bench.runtime.running() == []
        bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_box_that_cannot_run_says_why_with_its_log(bench: Bench):
    server_id, directory, address = bench.box()
    ways(directory, die="the settings are of a newer version")
    # the guard took its lock before it found out, as the real one does, so the start itself may have looked well
    raised: ServiceError | None = None
    try:
        bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=VERSION, size=SIZE)
    except ServiceError as error:
        raised = error
    assert raised is None or (raised.code, raised.params) == ("box_failed_to_start", {"why": "the settings are of a newer version"})
    until(lambda: bench.runtime.observe(server_id=server_id, directory=directory, address=address).state is BoxState.ABSENT)
    seen = bench.runtime.observe(server_id=server_id, directory=directory, address=address)
    assert seen.detail == "the settings are of a newer version"
    assert "the settings are of a newer version" in bench.runtime.logs(server_id=server_id, directory=directory, lines=10)


def test_an_ill_box_says_so(bench: Bench):
    server_id, directory, address = bench.start()
    ways(directory, state="failed", reason="MLflow ended with status 3")
    seen = bench.runtime.observe(server_id=server_id, directory=directory, address=address)
    assert (seen.state, seen.detail) == (BoxState.FAILED, "MLflow ended with status 3")


def test_a_box_that_answers_nothing_is_silent(bench: Bench):
    server_id, directory, address = bench.box()
    ways(directory, mute=True)
    bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=VERSION, size=SIZE)
    seen = bench.runtime.observe(server_id=server_id, directory=directory, address=address)
    assert seen.state is BoxState.SILENT
    assert not seen.stranger


def test_what_an_ill_box_says_is_short_and_can_be_written_down(bench: Bench):
    server_id, directory, address = bench.start()
    ways(directory, state="failed", reason="no \ud800 memory" * 100)
    seen = bench.runtime.observe(server_id=server_id, directory=directory, address=address)
    assert seen.detail == ("no ? memory" * 100)[:500]


@pytest.mark.parametrize("body", [b'{"server_id": "a-stranger", "state": "awake"}', b"<html>", b"[]", b"\xff", b"[" * 16000])
def test_another_program_on_the_port_is_a_stranger(body: bytes):
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        seen = ask("k3v9x2m7q4ab", ("127.0.0.1", server.server_port))
        server.shutdown()
    assert (seen.state, seen.stranger) == (BoxState.SILENT, True)


def test_one_that_does_not_speak_http_is_silent():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        seen = ask("k3v9x2m7q4ab", ("0.0.0.0", listener.getsockname()[1]))  # noqa: S104 (asked on loopback then)
        thread.join()
    assert seen.state is BoxState.SILENT


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-More: ", b"1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
)
def test_an_answer_that_does_not_end_is_not_waited_for(first: bytes, again: bytes):
    """As code in a box's nginx could give it: whoever looks must be free to end that box."""
    over = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(first)
                while not over.wait(0.05):
                    connection.sendall(again)

        answering = threading.Thread(target=answer)
        answering.start()
        seen: list[Observation] = []
        asking = threading.Thread(target=lambda: seen.append(ask("k3v9x2m7q4ab", listener.getsockname())), daemon=True)
        asking.start()
        asking.join(5 * HEALTH_SECONDS)
        states = [each.state for each in seen]
        over.set()
        answering.join()
    assert states == [BoxState.SILENT]
