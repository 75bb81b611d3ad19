"""Killed parts, a taken port, a second guard, a database that cannot be used."""

import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import requests

from backend.files.snapshots import mark_of
from tests.support.box import STARTERS, Box, alive, until

pytestmark = pytest.mark.box
MakeBox = Callable[..., Box]


def pids_of_the_guard(box: Box) -> list[int]:
    """Of the guard and all that it started or had started: the spawner lives on."""
    return [process.pid for process in box.processes() if box.spawner is None or process.pid != box.spawner.pid]


def create_run(box: Box) -> str:
    run_id: str = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    return run_id


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_a_killed_mlflow_is_started_again_and_its_database_is_whole(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    run_id = create_run(box)
    enough = threading.Event()

    def write() -> None:
        step = 0
        while not enough.is_set():
            step += 1
            metric = {"run_id": run_id, "key": "m", "value": step, "timestamp": 1, "step": step}
            with suppress(requests.RequestException):
                box.request("POST", "/api/2.0/mlflow/runs/log-metric", json=metric)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    until(lambda: len(box.api("GET", "runs/get", params={"run_id": run_id})["run"]["data"].get("metrics", [])), what="a metric")
    killed = box.mlflow_process()
    killed.kill()
    until(lambda: box.request("GET", "/api/2.0/mlflow/runs/get", params={"run_id": run_id}).status_code == 200, what="MLflow back")
    assert box.mlflow_process().pid != killed.pid
    enough.set()
    for writer in writers:
        writer.join()
    with closing(sqlite3.connect(box.home / "data" / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_killed_nginx_master_takes_its_workers_along_and_comes_again(own_box: MakeBox) -> None:
    box = own_box()
    box.start()
    master, worker = box.find("nginx: master"), box.find("nginx: worker")
    master.kill()
    until(lambda: not alive([master.pid, worker.pid]), what="the old nginx gone")
    until(box.answers, what="nginx back")
    assert box.find("nginx: master").pid != master.pid


def test_a_killed_leash_does_not_leave_nginx_without_one(own_box: MakeBox) -> None:
    box = own_box()
    box.start()
    leash, worker = box.find("kill -KILL 0"), box.find("nginx: worker")
    leash.kill()
    until(lambda: not alive([worker.pid]), what="the old nginx gone, which would hold the port")
    until(
        lambda: [each for each in box.find_all("kill -KILL 0") if each.pid != leash.pid],
        what="a new leash",
    )
    until(box.answers, what="nginx back")


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_nothing_outlives_a_killed_guard_and_the_next_one_starts_cleanly(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    run_id = create_run(box)
    pids = pids_of_the_guard(box)
    assert len(pids) == 5
    assert box.process is not None
    box.process.kill()
    box.process.wait()
    box.start()
    until(lambda: not alive(pids), what="the end of all that was the guard's")
    assert box.spawner is None or box.spawner.poll() is None
    assert box.api("GET", "runs/get", params={"run_id": run_id})["run"]["info"]["run_id"] == run_id


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_a_signal_lets_the_request_under_way_finish(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.wait_state("awake")
    pids = pids_of_the_guard(box)
    body = b'{"experiment_id": "0", "run_name": "late"}'
    head = f"POST /mlflow/api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nContent-Type: application/json\r\n"
    request = requests.Request("POST", box.url, auth=box.auth).prepare()
    head += f"Authorization: {request.headers['Authorization']}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:5])
        assert box.process is not None
        box.process.send_signal(signal.SIGTERM)
        until(lambda: "the guard stops" in (box.home / "log" / "guard.log").read_text(), what="the signal taken")
        connection.sendall(body[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert box.process.wait(30) == 0
    assert not alive(pids)


def test_a_second_guard_is_refused_and_touches_nothing(own_box: MakeBox) -> None:
    box = own_box()
    box.start()
    log = (box.home / "log" / "guard.log").read_bytes()
    argv = [box.environment / "bin" / "python", "-P", "-m", "tracking_server", box.home]
    second = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert second.returncode == 1
    assert "another guard runs" in second.stderr
    assert (box.home / "log" / "guard.log").read_bytes() == log
    assert box.answers()


def test_what_is_not_a_box_is_status_2(own_box: MakeBox, tmp_path: Path) -> None:
    box = own_box()
    argv = [box.environment / "bin" / "python", "-P", "-m", "tracking_server"]
    assert subprocess.run([*argv, tmp_path], capture_output=True, check=False, cwd="/").returncode == 2
    assert subprocess.run(argv, capture_output=True, check=False, cwd="/").returncode == 2
    assert list(tmp_path.iterdir()) == []


def refused_start(box: Box) -> str:
    """The reason with which a box that cannot run ends."""
    box.spawn()
    assert box.process is not None
    assert box.process.wait(30) == 1
    reason = (box.home / "guard.stderr").read_text().splitlines()[-1]
    assert (box.home / "log" / "guard.log").read_text().splitlines()[-1].endswith(reason)
    return reason


def test_a_port_that_a_stranger_has_is_said(own_box: MakeBox) -> None:
    box = own_box()
    with socket.create_server(("127.0.0.1", box.port)):
        assert f"port {box.port} of 127.0.0.1 is taken by another program" in refused_start(box)


def test_another_version_and_a_bad_key_are_said(own_box: MakeBox) -> None:
    box = own_box(mlflow_version="3.0.0")
    assert "wants MLflow 3.0.0" in refused_start(box)
    box.write_settings(mlflow_version="3.17.2", colour="red")
    assert "unknown key 'colour'" in refused_start(box)


def test_an_nginx_that_is_not_there_is_said(own_box: MakeBox) -> None:
    box = own_box(nginx="/no/nginx")
    assert "/no/nginx cannot be started" in refused_start(box)


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_a_database_of_another_schema_fails_with_the_cure_and_waiting_requests_are_answered(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0.2)
    box.start()
    create_run(box)  # asleep is a new box, too, for a moment: without a database
    box.wait_state("asleep")
    with closing(sqlite3.connect(box.home / "data" / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    answer = box.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1")
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert "schema older" in answer.json()["message"]
    assert "upgrade" in answer.json()["message"]
    health = requests.get(f"{box.url}/-/health", timeout=10)
    assert (health.status_code, health.json()["state"]) == (503, "failed")
    assert "schema older" in health.json()["reason"]
    assert str(box.home) not in health.json()["reason"]
    upload = box.request("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x/y", data=b"x" * 5_000_000)
    assert upload.status_code == 503


def guard_log(box: Box) -> str:
    return (box.home / "log" / "guard.log").read_text()


def test_settings_that_cannot_be_taken_leave_the_last_good_ones(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.replace("settings.json", "{")
    until(lambda: "settings stay as they were" in (box.home / "log" / "guard.log").read_text(), what="the complaint")
    create_run(box)
    in_the_way = box.home / "run" / "nginx.conf.part"  # as a disk that is full for a moment: what nginx is to be given cannot be written
    in_the_way.mkdir()
    box.write_settings(allow_gateway=True)
    until(lambda: guard_log(box).count("settings stay as they were") == 2, what="the second complaint")
    written = (box.home / "config" / "settings.json").stat().st_mtime_ns
    assert box.health()["config"]["settings.json"] != written
    in_the_way.rmdir()
    until(lambda: box.health()["config"]["settings.json"] == written, what="the settings taken over")
    assert guard_log(box).count("settings stay as they were") == 2
    until(lambda: "new settings" in (box.home / "log" / "guard.log").read_text(), what="the new settings")
    until(lambda: box.request("GET", "/api/3.0/mlflow/gateway/endpoints/list").status_code != 403, what="the gateway let through")


def test_another_address_to_listen_on_waits_for_the_next_start_and_the_other_settings_do_not(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.write_settings(listen=f"127.0.0.2:{box.port}", allow_gateway=True)
    written = (box.home / "config" / "settings.json").stat().st_mtime_ns
    until(lambda: box.health()["config"]["settings.json"] == written, what="the settings taken over")
    until(lambda: box.request("GET", "/api/3.0/mlflow/gateway/endpoints/list").status_code != 403, what="the gateway let through")
    mlflow = box.mlflow_process().pid
    box.write_settings(listen=f"127.0.0.3:{box.port}")
    written = (box.home / "config" / "settings.json").stat().st_mtime_ns
    until(lambda: box.health()["config"]["settings.json"] == written, what="the settings taken over again")
    create_run(box)
    assert box.mlflow_process().pid == mlflow, "nothing that it knows has changed"
    assert [guard_log(box).count(f"127.0.0.{last}:{box.port} counts from its next start") for last in (2, 3)] == [1, 1]
    assert f"listen 127.0.0.1:{box.port} " in (box.home / "run" / "nginx.conf").read_text(), "where it says that it listens"
    box.stop()
    box.spawn()
    until(lambda: somebody_listens("127.0.0.3", box.port), what="the new address")
    assert not somebody_listens("127.0.0.1", box.port)
    assert f"listen 127.0.0.3:{box.port} " in (box.home / "run" / "nginx.conf").read_text()


def somebody_listens(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


@pytest.mark.parametrize("name", ["server_id", "mlflow_version"])
def test_what_makes_it_another_server_is_not_taken_over(own_box: MakeBox, name: str) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.write_settings(**{name: {"server_id": "x3v9x2m7q4ab", "mlflow_version": "3.0.0"}[name]})
    until(lambda: f"{name} cannot change while the box runs" in guard_log(box), what="the complaint")


def test_mlflow_that_never_starts_is_failed_and_comes_back_when_the_cause_is_gone(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    keys = (box.home / "config" / "keys.json").read_text()
    box.replace("keys.json", '{"webhook_secret_encryption_key": "x"}')
    box.start()
    box.wait_state("failed")
    assert box.request("GET", "/").status_code == 503
    box.replace("keys.json", keys)
    box.wait_state("awake", seconds=30)
    assert box.request("GET", "/").status_code == 200


def test_only_a_write_changes_the_databases_file(own_box: MakeBox) -> None:
    """By that an upgrade whose version does not start knows that nobody has written since, and is taken back."""
    box = own_box()

    def mark_after(action: Callable[[], object]) -> list[int] | None:
        box.start()
        action()
        assert box.stop() == 0
        return mark_of(box.home / "data" / "mlflow.db")

    def read() -> object:
        return box.api("POST", "runs/search", json={"experiment_ids": ["0"]})

    assert mark_after(lambda: create_run(box)) is None, "it may lie beside the file until the next start"
    before = mark_after(read)
    assert before is not None
    assert mark_after(read) == before
    assert mark_after(lambda: create_run(box)) != before
