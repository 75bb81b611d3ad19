"""The box's pure parts: settings, nginx text, mount table, users file."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlwf.mounts import NETWORK

from tests.box.parts import NoLoop, settings
from tests.support.box import ROOT, users_document
from tests.support.half_written import ROWS, mode_of, verdict_on, write_half
from tracking_server import layout
from tracking_server.guard.access import Access
from tracking_server.guard.http import Connection, Request, Respond, Response
from tracking_server.guard.identity import Principal, parse_basic
from tracking_server.guard.loop import Loop
from tracking_server.guard.users import UsersError, parse_users
from tracking_server.guard.watch import Watch
from tracking_server.mlflow_process import database
from tracking_server.mlflow_process.plan import Plan
from tracking_server.nginx import nginx_text
from tracking_server.settings import REQUIRED, TABLE, Settings, SettingsError, parse


def test_the_reference_page_lists_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "reference" / "box.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", page.partition("## settings.json")[2].partition("\n## ")[0], re.MULTILINE)
    documented = {name: (default, text) for names, default, text in rows for name in re.findall(r"`(\w+)`", names)}
    default_texts = {row.name: "required" if row.default is REQUIRED else f"`{json.dumps(row.default)}`".replace('"', "") for row in TABLE}
    assert documented == {row.name: (default_texts[row.name], row.help) for row in TABLE}
    assert [row.name for row in TABLE] == list(Settings._fields)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"server_id": "UPPER"}, "'server_id' must be"),
        ({"listen": "127.0.0.1:70000"}, "'listen' must be"),
        ({"listen": "127.0.0.1:80; evil on"}, "'listen' must be"),
        ({"public_hosts": []}, "'public_hosts' must be"),
        ({"public_hosts": ["*"]}, "'public_hosts' must be"),
        ({"origins": ["*"]}, "'origins' must be"),
        ({"prefix": "/x"}, "'prefix' must be"),
        ({"prefix": "a/../b"}, "'prefix' must be"),
        ({"endpoint_url": "file:///x"}, "'endpoint_url' must be"),
        ({"idle_seconds": -1}, "'idle_seconds' must be"),
        ({"idle_seconds": True}, "'idle_seconds' must be"),
        ({"workers": 0}, "'workers' must be"),
        ({"genai_jobs": "yes"}, "'genai_jobs' must be"),
        ({"allow_gateway": "yes"}, "'allow_gateway' must be"),
        ({"artifact_access": "other"}, "'artifact_access' must be"),
        ({"s3_ca_file": "relative.pem"}, "'s3_ca_file' must be"),
        ({"bucket": None}, "'bucket' must be"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        settings(**changes)


def test_hosts_and_origins_are_those_that_clients_send() -> None:
    found = settings(
        public_hosts=["MLFlow01.Example.org:21000", "mlflow01.example.org:21000"],
        origins=["https://Portal.example.org:443", "http://[::1]:80", "http://Portal.example.org:443"],
        sign_in_origins=["https://Console.example.org:8443"],
    )
    assert found.public_hosts == ("mlflow01.example.org:21000",)
    assert found.origins == ("https://portal.example.org", "http://[::1]", "http://portal.example.org:443")
    assert found.sign_in_origins == ("https://console.example.org:8443",)


def test_a_missing_setting_and_broken_json_are_named() -> None:
    with pytest.raises(SettingsError, match="lacks 'server_id'"):
        parse("{}")
    with pytest.raises(SettingsError, match="not JSON"):
        parse("{")


def test_the_whole_nginx_text() -> None:
    expected = (Path(__file__).parent / "expected-nginx.conf").read_text()
    assert nginx_text(settings(max_upload_bytes=1000), user=None) == expected


def test_an_upload_is_bounded_by_the_spool_too() -> None:
    for most, changes in (
        (5, {"tmp_bytes": 5}),
        (5, {"tmp_bytes": 5, "max_upload_bytes": 9}),
        (4, {"tmp_bytes": 5, "max_upload_bytes": 4}),
    ):
        assert f"client_max_body_size {most};" in nginx_text(settings(**changes), user=None)


def test_the_reference_page_states_nginxs_time_outs() -> None:
    (stated,) = re.findall(r"^\*\*Time-outs\*\* of nginx: .*\n.*\n", (ROOT / "docs" / "reference" / "box.md").read_text(), re.MULTILINE)
    in_force = re.findall(r"^    (\w+_timeout) (\d+s);$", nginx_text(settings(), user=None), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)` (\d+s)", stated)) == sorted(in_force)


def test_what_changes_the_nginx_text() -> None:
    usual = nginx_text(settings(), user=None)
    with_gateway = nginx_text(settings(allow_gateway=True), user="root")
    assert "/mlflow/(?:gateway|" in usual
    assert "/mlflow/(?:gateway|" not in with_gateway
    assert "location ^~ /mlflow/gateway/" in with_gateway
    assert "user root;\n" in with_gateway
    with_jobs = nginx_text(settings(genai_jobs=True), user=None)
    for word, here in (("jobs", False), ("invoke", False), ("assistant", True)):
        assert word in usual
        assert (word in with_jobs) is here


MOUNTS = r"""proc /proc proc rw 0 0
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
fs /mnt/with\040space lustre rw 0 0
ceph-fuse /ceph fuse.ceph-fuse rw 0 0
tmpfs /over tmpfs rw 0 0
server:/x /over nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/x", "ext4"),
        ("/home/x", "nfs4"),
        ("/home/local/x", "xfs"),
        ("/homework", "ext4"),
        ("/mnt/with space/x", "lustre"),
        ("/ceph", "fuse.ceph-fuse"),
        ("/over/x", "nfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert database.file_system(Path(path), MOUNTS) == kind


def test_the_box_and_the_tools_know_the_same_network_file_systems() -> None:
    """The box has nothing of mlwf's."""
    assert database.NETWORK_FILE_SYSTEMS == NETWORK


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "ceph", "fuse.ceph-fuse"])
def test_a_database_on_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    from tracking_server.layout import Box

    plan = Plan(Box(tmp_path), settings(), {}, "")
    with pytest.raises(database.DatabaseError, match=f"on {re.escape(kind)},"):
        database.prepare(plan, tmp_path, mounts=f"server:/x {tmp_path} {kind} rw 0 0\n")


@pytest.fixture
def box(tmp_path: Path) -> Plan:
    """A box without a database, and an environment beside it that makes one of the schema "abc"."""
    from tracking_server.layout import Box

    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "template.db")) as template, template:
        template.execute("CREATE TABLE experiments (artifact_location TEXT, creation_time BIGINT, last_update_time BIGINT)")
        template.execute("INSERT INTO experiments VALUES ('mlflow-artifacts:/', 0, 0)")
        template.execute("CREATE TABLE alembic_version AS SELECT 'abc' AS version_num")
        template.execute("CREATE TABLE runs (name TEXT)")
        template.executemany("INSERT INTO runs VALUES (?)", [(f"run {number}",) for number in range(ROWS)])
    (tmp_path / "version.json").write_text('{"schema_revision": "abc"}')
    return Plan(Box(tmp_path), settings(), {}, "")


def set_mode(plan: Plan, mode: str) -> None:
    with closing(sqlite3.connect(plan.box.database)) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)


def test_a_database_is_in_wal_mode_from_its_first_start_on_and_again_where_a_copy_took_its_place(box: Plan, tmp_path: Path) -> None:
    for _start in range(2):
        database.prepare(box, tmp_path)
        assert mode_of(box.box.database) == "wal"
        set_mode(box, "delete")  # as every copy is
    assert [path.name for path in box.box.data.iterdir()] == ["mlflow.db"]


def test_the_default_experiment_is_the_servers_own_and_not_as_old_as_its_image(box: Plan, tmp_path: Path) -> None:
    before = int(time.time() * 1000)
    database.prepare(box, tmp_path)
    with closing(sqlite3.connect(box.box.database)) as connection:
        ((location, created, updated),) = connection.execute("SELECT * FROM experiments").fetchall()
    assert location == "mlflow-artifacts:/0"
    assert before <= created == updated <= time.time() * 1000 + 1


def test_what_a_killed_mlflow_left_half_done_without_wal_is_taken_back(box: Plan, tmp_path: Path) -> None:
    database.prepare(box, tmp_path)
    write_half(box.box.database)
    database.prepare(box, tmp_path)
    assert (mode_of(box.box.database), verdict_on(box.box.database)) == ("wal", "ok")
    with closing(sqlite3.connect(box.box.database)) as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE name GLOB '*half'").fetchone() == (0,)


def test_a_backup_that_reads_a_copy_that_was_put_back_keeps_no_server_from_its_start(
    box: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.prepare(box, tmp_path)
    set_mode(box, "delete")
    with closing(sqlite3.connect(box.box.database)) as reader, monkeypatch.context() as patch:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0.05))
        database.prepare(box, tmp_path)
    assert mode_of(box.box.database) == "delete"
    database.prepare(box, tmp_path)
    assert mode_of(box.box.database) == "wal"


def test_a_database_that_cannot_be_read_or_is_of_another_schema_is_refused(box: Plan, tmp_path: Path) -> None:
    database.prepare(box, tmp_path)
    (tmp_path / "version.json").write_text('{"schema_revision": "def"}')
    with pytest.raises(database.DatabaseError, match="has schema abc and this MLflow needs def"):
        database.prepare(box, tmp_path)
    for damage in (b"no database" * 1000, b""):
        box.box.database.write_bytes(damage)
        with pytest.raises(database.DatabaseError, match=r"cannot be read .* restore it from a backup"):
            database.prepare(box, tmp_path)


@pytest.fixture
def disk(box: Plan) -> Iterator[Path]:
    """A small one of the database's own."""
    place = box.box.data
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    with (disk / "others").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def refusal(plan: Plan, environment: Path) -> str:
    with pytest.raises(database.DatabaseError) as caught:
        database.prepare(plan, environment)
    assert "backup" not in str(caught.value), "what came after it would be lost"
    assert str(environment) not in str(caught.value)
    return str(caught.value)


def test_a_full_disk_is_no_damage_and_a_whole_database_opens_again(box: Plan, disk: Path, tmp_path: Path) -> None:
    fill(disk)
    assert re.search(r"cannot be opened now \(No space left on device\).* has room", refusal(box, tmp_path))
    (disk / "others").unlink()
    database.prepare(box, tmp_path)
    fill(disk)
    assert re.search(r"cannot be opened now \(disk I/O error\).* has room", refusal(box, tmp_path))
    (disk / "others").unlink()
    database.prepare(box, tmp_path)


def test_a_disk_that_became_read_only_is_no_damage(box: Plan, disk: Path, tmp_path: Path) -> None:
    database.prepare(box, tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "can be written to" in refusal(box, tmp_path)


def test_a_lock_is_no_damage(box: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.prepare(box, tmp_path)
    with closing(sqlite3.connect(box.box.database)) as other, monkeypatch.context() as patch:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0.05))
        assert re.search(r"\(database is locked\).* end what else has it open", refusal(box, tmp_path))


def test_where_new_experiments_go() -> None:
    from tracking_server.layout import Box

    assert Plan(Box(Path("/b")), settings(), {}, "").artifact_root == "mlflow-artifacts:/"
    assert Plan(Box(Path("/b")), settings(artifact_access="direct"), {}, "").artifact_root == "s3://bucket/mlflow/k3v9x2m7q4ab"


@pytest.mark.parametrize("text", ["[]", "{", '{"users": {}}', '{"users": [{"name": "a"}]}', '{"users": [{"name": "a:b", "bcrypt": "x"}]}'])
def test_a_users_file_of_another_form_is_refused_without_a_name_in_the_message(text: str) -> None:
    with pytest.raises(UsersError) as caught:
        parse_users(text)
    assert "a:b" not in str(caught.value)


def test_users_are_names_and_hashes() -> None:
    assert list(parse_users(users_document({"alice": "x", "日本": "y"}))) == ["alice", "日本"]


def test_a_principal_is_printable_in_a_header() -> None:
    assert Principal("basic", "alice smith%日").as_header() == "basic:alice%20smith%25%E6%97%A5"


@pytest.mark.parametrize(
    ("blob", "credential"),
    [
        ("YTpi", ("a", b"b")),
        ("YTo=", ("a", b"")),
        ("YTpiOmM=", ("a", b"b:c")),
        ("YQ==", None),
        ("Ojo=", None),
        ("YTpiAA==", None),
        ("%", None),
    ],
)
def test_basic_credentials(blob: str, credential: tuple[str, bytes] | None) -> None:
    assert parse_basic(blob) == credential


def test_a_file_that_is_refused_is_tried_again_and_not_said_to_be_taken_over(tmp_path: Path) -> None:
    """As new settings while the disk is full: the file is right, and so it is when there is room again."""
    file, others = tmp_path / "settings.json", tmp_path / "users.json"
    answers: list[str | None] = ["no room", "no room", "no room still", "no room", None]
    said: list[str] = []
    calls: list[str] = []
    loop: Any = NoLoop()

    def taken() -> str | None:
        calls.append("settings")
        return answers.pop(0)

    watch = Watch(loop, {file: taken, others: lambda: None}, log=said.append)
    watch.take_over([file])
    assert watch.replaced_at() == {file: None, others: None}
    file.write_text("1")
    watch.look()
    watch.look()  # as whoever asks for the health, without knowing anything: what was refused is not tried again for him
    assert len(calls) == 2
    watch.look(again=True)
    assert (said, watch.replaced_at()[file]) == (["no room", "no room"], None)
    file.write_text("22")
    watch.look()
    assert (said, watch.replaced_at()[file]) == (["no room"] * 3, None)
    watch.look(again=True)
    assert watch.replaced_at()[file] == file.stat().st_mtime_ns
    watch.look()
    assert len(calls) == 5


def test_users_that_cannot_be_read_are_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, or no JSON: the last good ones stay, and whoever waits for the new ones goes on waiting."""
    box = layout.Box(tmp_path)
    box.users.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    access = Access(NoLoop(), box, settings=settings, log=lambda _text: None)  # type: ignore[arg-type]
    call = access.files[box.users]
    box.users.write_text(users_document({"alice": "x"}))
    assert (call(), access.closed()) == (None, False)
    box.users.unlink()
    box.users.mkdir()  # an error of the system's, also for root
    assert "the users stay as they were: " in (call() or "")
    assert not access.closed()


def test_a_request_that_its_handler_cannot_take_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    here, there = socket.socketpair()

    def handler(_request: Request, respond: Respond) -> None:
        respond(Response(200))
        loop.stop()

    def broken(_request: Request, _respond: Respond) -> None:
        raise ValueError("a defect")

    def another() -> None:
        Connection(loop, inside, handler)
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")

    other, inside = socket.socketpair()
    with here, other:
        Connection(loop, there, broken)
        here.sendall(b"GET / HTTP/1.1\r\n\r\n")
        loop.later(0, another)
        loop.run()
        assert here.recv(100).startswith(b"HTTP/1.1 500 ")
        assert other.recv(100).startswith(b"HTTP/1.1 200 ")
    signal.set_wakeup_fd(-1)  # the loop's bell
    there.close()
    inside.close()
    assert "ValueError: a defect" in capfd.readouterr().err
