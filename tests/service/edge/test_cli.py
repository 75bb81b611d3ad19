"""`aihub`: every command as an admin uses it; exit status 2 for wrong use, 1 for a failure, each told in one sentence."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from weakref import WeakSet

import pytest
from click.testing import CliRunner
from mlwf.secret import Secret
from sqlalchemy import event, insert, select

from backend import __version__
from backend.cli import context, records
from backend.cli.main import _COMMANDS, aihub
from backend.domain import Status
from backend.errors import ServiceError
from backend.plans.world import read_payload
from backend.registry.keyring import Keyring
from backend.registry.models import AuditEntry, Operation, Server, now
from backend.wishes.tickets import read_keys
from tests.service.edge.admin import Admin
from tests.service.edge.live import AIHUB
from tests.service.edge.world import GROUP, World, make_world

ROOT = Path(__file__).parents[3]
NOBODY = 65534


def told(*argv: str, file: Path, code: int) -> str:
    """What a real run says on standard error."""
    environment = {"PATH": os.environ["PATH"], "AIHUB_SETTINGS": str(file), "LANG": "C.UTF-8"}
    done = subprocess.run([AIHUB, *argv], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(("after", "code"), [(">/dev/full", 1), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_streams_that_are_full_or_closed(after: str, code: int) -> None:
    """A listing into a full place ended in two tracebacks."""
    script = "from backend.cli.main import main; main()"
    argv = ["sh", "-c", f'exec "$@" {after}', "sh", sys.executable, "-c", script, "openapi"]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | {"LANG": "C.UTF-8"}, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    full = "aihub: The output, or a file that belongs to it, cannot be written: No space left on device. "
    assert done.stderr == (f"{full}Free some space, or send the output elsewhere.\n" if code else "")


@pytest.mark.parametrize("name", ["", *_COMMANDS, "servers list", "servers delete", "keys rotate", "keys tickets"])
def test_help_teaches(name: str) -> None:
    result = CliRunner().invoke(aihub, [*name.split(), "--help"])
    assert result.exit_code == 0
    _usage, *lines = result.output.splitlines()
    assert len(lines) > 3
    assert [line for line in lines if line.endswith("...")] == [], "a line of a list of commands is cut"


def test_help_is_quick() -> None:
    """Nothing heavy is imported for it; the time is the processor's, the best of three, since the machine has other work."""
    script = "import sys; from backend.cli import main; sys.argv = ['aihub', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    script += "print([m for m in ('sqlalchemy', 'flask', 'pydantic', 'boto3', 'yaml', 'rich', 'cryptography') if m in sys.modules])"
    times, output = [], ""
    for _ in range(3):
        before = _processor_seconds()
        output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        times.append(_processor_seconds() - before)
    assert output.splitlines()[-1] == "[]"
    assert 0 < min(times) < 1.0


def _processor_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_wrong_use_is_2_and_a_failure_is_1(admin: Admin, tmp_path: Path) -> None:
    assert "No such command" in told("nonsense", file=admin.file, code=2)
    assert "write GROUP/ENV" in told("servers", "start", "wine", file=admin.file, code=2)
    assert "There is no tracking server wine in group g" in told("servers", "start", "g/wine", file=admin.file, code=1)
    assert "the character set in use here (utf-8) lacks" in told("servers", "start", "g\udc83/wine", file=admin.file, code=1)
    assert "did you mean state_dir?" in told("check", file=_written(tmp_path, "state_dri: /x\n"), code=1)
    assert "run `aihub init` first" in told("servers", "list", file=_written(tmp_path, f"state_dir: {tmp_path}/none\n"), code=1)
    assert "there is no such file" in told("settings", file=tmp_path / "nothing.yml", code=1)


def test_mlwfs_words_are_understood_too(admin: Admin) -> None:
    for words in ("server list", "token list"):
        assert CliRunner().invoke(aihub, [*words.split(), "--help"]).exit_code == 0
    commands = CliRunner().invoke(aihub, ["--help"]).output
    assert ("\n  servers " in commands, "\n  server " in commands, "\n  token " in commands) == (True, False, False)
    for options in ((), ("3.17.2", "--mlflow-version", "3.17.2")):
        assert "Give the new MLflow version, once." in told("server", "upgrade", "g/wine", *options, file=admin.file, code=2)
    for options in (("3.17.2",), ("--mlflow-version", "3.17.2")):
        assert "There is no tracking server wine in group g" in told("servers", "upgrade", "g/wine", *options, file=admin.file, code=1)


def test_help_names_what_is_given() -> None:
    assert "--since DATE" in CliRunner().invoke(aihub, ["audit", "--help"]).output
    assert "GROUP/ENV [MLFLOW_VERSION]" in CliRunner().invoke(aihub, ["servers", "upgrade", "--help"]).output


def _written(folder: Path, text: str) -> Path:
    file = folder / "other.yml"
    file.write_text(text)
    return file


def test_init_again_keeps_what_is_there(admin: Admin, world: World) -> None:
    stored = world.service.keyring.encrypt(Secret("x"))
    output = admin.run("init").output
    assert "made" not in output
    assert Keyring(world.service.settings.keys_file).decrypt(stored) == Secret("x")
    assert world.service.settings.state_dir.stat().st_mode & 0o777 == 0o700


def test_listing_and_showing(admin: Admin, world: World) -> None:
    assert "none" in admin.run("servers", "list").output
    server_id = world.made()
    assert "wine" in admin.run("servers", "list").output
    (listed,) = admin.json("servers", "list")
    shown = json.loads(admin.run("servers", "show", "gaa50000/wine").output)
    assert listed == shown == admin.json("servers", "show", "gaa50000/wine")
    assert (shown["id"], shown["storage"]["bucket"]) == (server_id, "wine-bucket")
    assert world.client.put("/api/v1/servers/gaa50000/wine/leases/job-17", json={"seconds": 600}).status_code == 200
    leases = world.get("/servers/gaa50000/wine")["leases"]
    assert admin.json("servers", "show", "gaa50000/wine")["leases"] == admin.json("servers", "list")[0]["leases"] == leases != []
    admin.run("servers", "show", "gaa50000/none", code=1)
    assert "the-secret-key-of-the-test" not in json.dumps(listed)


def test_an_admins_wishes_are_written_and_audited(admin: Admin, world: World) -> None:
    server_id = world.made()
    output = admin.run("servers", "stop", "gaa50000/wine").output
    assert "requested" in output
    assert "it will do this once it is started" in output
    assert world.row(server_id).desired == "stopped"
    with world.registry.reading() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert entry is not None
        assert (entry.scheme, entry.action, entry.uid) == ("cli", "stop", os.geteuid())
    operation = admin.json("operations")[0]
    assert (operation["kind"], operation["state"]) == ("stop", "pending")
    world.finish(operation["id"], status=Status.STOPPED)
    assert "so already" in admin.run("servers", "stop", "gaa50000/wine").output
    assert [row["action"] for row in admin.json("audit")] == ["stop", "create"]
    assert [row["user"] for row in admin.json("audit", "--user", "alice")] == ["alice"]
    assert admin.json("operations", "--state", "failed") == []


@pytest.mark.parametrize(("command", "table"), [("audit", AuditEntry), ("operations", Operation)])
def test_a_long_listing_is_never_in_memory_whole(
    admin: Admin, world: World, monkeypatch: pytest.MonkeyPatch, command: str, table: type[AuditEntry | Operation]
) -> None:
    """A million lines of an audit are more than a small host's memory."""
    monkeypatch.setattr(records, "PART", 3, raising=False)
    for number in range(10):
        world.made(env_name=f"wine-{number}")
    there: WeakSet[AuditEntry | Operation] = WeakSet()
    most = []

    def loaded(row: AuditEntry | Operation, _context: object) -> None:
        there.add(row)
        most.append(len(there))

    event.listen(table, "load", loaded)
    try:
        text = admin.run(command, "--json").stdout
    finally:
        event.remove(table, "load", loaded)
    listed = json.loads(text)
    assert [each["env_name"] for each in listed] == [f"wine-{number}" for number in reversed(range(10))]
    assert text == json.dumps(listed, ensure_ascii=False, indent=2) + "\n"
    assert len(most) == 10
    assert max(most) <= 2 * 3, "the part that is shown, and the next"


def test_a_long_listing_takes_no_longer_than_all_of_it_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder made for each row cost half of the time again."""
    made, dumps = [], json.dumps
    monkeypatch.setattr(json, "dumps", lambda *args, **how: made.append(args) or dumps(*args, **how))
    rows = [{"number": number, "steps": [{"state": "é\n"}], "error": None} for number in range(250)]
    context.show(iter(rows), {}, as_json=True)
    assert len(made) == 3
    assert capsys.readouterr().out == dumps(rows, ensure_ascii=False, indent=2) + "\n"
    context.show(iter(()), {}, as_json=True)
    assert capsys.readouterr().out == "[]\n"


def test_an_old_sqlite_takes_a_long_listing(world: World) -> None:
    """That of RHEL 8 takes 999 values in a question."""

    def older(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    entry = {"user": "alice", "uid": 1001, "scheme": "test", "action": "ticket", "group_name": GROUP.name, "env_name": "wine"}
    with world.registry.session() as session:
        session.execute(insert(AuditEntry), [entry] * 1200)
    event.listen(world.registry._engine, "connect", older)
    world.registry.close()
    found = list(records._in_parts(world.registry, AuditEntry, select(AuditEntry).order_by(AuditEntry.id.desc())))
    assert [row.id for row in found] == sorted((row.id for row in found), reverse=True)
    assert len(found) == 1200


def test_one_finds_the_servers_in_trouble_among_all(admin: Admin, world: World) -> None:
    """An alert says that there is one, and the list may have a thousand lines."""
    for name in ("well", "ill", "stopped"):
        server_id = world.made(env_name=name)
        with world.registry.session() as session:
            row = session.get_one(Server, server_id)
            row.status = Status.STOPPED if name == "stopped" else Status.RUNNING
            row.reason = {"code": "disk_low", "params": {"free": "1"}, "log": None} if name == "ill" else None
    assert [each["env_name"] for each in admin.json("servers", "list", "--troubled")] == ["ill"]
    told = admin.run("servers", "list", "--troubled").output.splitlines()
    assert (len(told), admin.json("servers", "list")[0]["reason"]["detail"] in told[1]) == (2, True)


def test_delete_and_purge_ask_first(admin: Admin, world: World) -> None:
    server_id = world.made()
    assert "add --yes" in admin.run("servers", "delete", "gaa50000/wine", code=2).output  # nobody is there to answer
    with pytest.raises(ServiceError, match="no_such_server"):
        CliRunner().invoke(aihub, ["--settings", str(admin.file), "servers", "delete", "gaa50000/none"], catch_exceptions=False)
    admin.run("servers", "delete", "gaa50000/wine", text="n\n", code=1)
    assert world.row(server_id).desired == "running"
    admin.run("servers", "delete", "gaa50000/wine", text="y\n")
    (operation,) = admin.json("operations", "--state", "pending")
    world.finish(operation["id"], status=Status.DELETED, deleted_at=now(), restorable_until=now())
    assert admin.json("servers", "list") == []
    assert admin.json("servers", "list", "--deleted")[0]["allowed"] == ["restore"]
    admin.run("servers", "purge", "gaa50000/wine", "--yes", "--no-wait")
    assert admin.json("operations", "--state", "pending")[0]["kind"] == "purge"


def test_an_older_deleted_server_is_purged_and_restored_by_its_id(admin: Admin, world: World) -> None:
    ids = []
    for _ in range(3):
        ids.append(world.made())
        admin.run("servers", "delete", "gaa50000/wine", "--yes", "--no-wait")
        (operation,) = admin.json("operations", "--state", "pending")
        world.finish(operation["id"], status=Status.DELETED, deleted_at=now(), restorable_until=now(), desired="absent")
    admin.run("servers", "purge", "gaa50000/wine", "--id", "zzzzzzzzzzzz", "--yes", code=1)
    assert admin.json("servers", "show", "gaa50000/wine", "--deleted", "--id", ids[0])["id"] == ids[0]
    assert admin.json("servers", "show", "gaa50000/wine", "--deleted")["id"] == ids[2]
    admin.run("servers", "purge", "gaa50000/wine", "--id", ids[0], "--yes", "--no-wait")
    admin.run("servers", "restore", "gaa50000/wine", "--id", ids[1], "--no-wait")
    asked = {each["server_id"]: each["kind"] for each in admin.json("operations", "--state", "pending")}
    assert asked == {ids[0]: "purge", ids[1]: "restore"}


def test_keys_rotate(admin: Admin, world: World) -> None:
    world.made()
    keyring = world.service.keyring
    first = keyring.newest
    assert "3 stored secrets" in admin.run("keys", "rotate").output
    assert keyring.newest != first
    keyring.rotate()  # as if the last run had been killed after this
    output = admin.run("keys", "rotate").output
    assert "is there already" in output
    assert keyring.is_settled(world.registry)


def test_backup_and_restore_on_an_empty_machine(admin: Admin, world: World, tmp_path: Path) -> None:
    server_id = world.made()
    world.finish(world.client.post("/api/v1/servers/gaa50000/wine/stop").json["id"], status=Status.STOPPED)
    admin.run("init")
    assert "files" in admin.run("backup", str(tmp_path / "copy")).output
    admin.run("backup", str(tmp_path / "copy"), code=1)
    other = make_world(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert other is not None
    elsewhere = Admin(other, tmp_path / "other")
    elsewhere.run("restore", str(tmp_path / "copy"), code=1)  # not empty
    empty = elsewhere.file
    empty.write_text(empty.read_text().replace(str(tmp_path / "other" / "state"), str(tmp_path / "empty")))
    elsewhere.run("restore", str(tmp_path / "copy"))
    elsewhere.run("init")
    (row,) = elsewhere.json("servers", "list")
    assert row["id"] == server_id
    assert (
        Keyring(tmp_path / "empty" / "keys.json").decrypt(world.row(server_id).secret_access_key).reveal() == "the-secret-key-of-the-test"
    )


def test_a_backup_without_one_database_is_made_and_says_so(admin: Admin, world: World, tmp_path: Path) -> None:
    server_id = world.made()
    admin.run("init")
    data = world.service.settings.servers_dir / server_id / "data"
    data.mkdir(parents=True)
    (data / "mlflow.db").write_bytes(b"no database" * 1000)
    result = admin.run("backup", str(tmp_path / "copy"), code=1)
    assert (tmp_path / "copy" / "damaged" / server_id / "mlflow.db").read_bytes() == b"no database" * 1000
    told = f"gaa50000/wine {server_id} (file is not a database)"
    assert told in str(result.exception)
    empty = admin.file
    empty.write_text(empty.read_text().replace(str(world.service.settings.state_dir), str(tmp_path / "empty")))
    assert f"as damaged as they were: {told}" in admin.run("restore", str(tmp_path / "copy")).stderr


def test_a_server_is_deleted_with_a_damaged_database(admin: Admin, world: World) -> None:
    world.made()
    admin.run("servers", "delete", "gaa50000/wine", "--damaged", "--yes", "--no-wait")
    with world.registry.reading() as session:
        asked = session.scalars(select(Operation).where(Operation.kind == "delete")).one()
    assert read_payload(world.service.keyring, asked.payload)["damaged"] is True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it for another account")
def test_what_root_makes_belongs_to_the_services_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other accounts
        home = Path(name)
        home.chmod(0o755)
        world = make_world(home)
        monkeypatch.setattr("backend.serving.wiring.make_directory", lambda _settings: world.directory)
        world.made()
        admin, state = Admin(world, home), world.service.settings.state_dir
        for path in (state, *state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        admin.run("init")
        admin.run("keys", "rotate")
        assert {path.stat().st_uid for path in state.rglob("*")} == {NOBODY}
        assert (os.geteuid(), os.getegid()) == (0, 0)
        assert "run `aihub serve` as that account" in str(CliRunner().invoke(aihub, ["--settings", str(admin.file), "serve"]).exception)
        admin.run("backup", str(home / "copy"))
        put_back = Admin(world, home)
        put_back.file.write_text(put_back.file.read_text().replace(str(state), str(home / "moved")))
        (home / "moved").mkdir(mode=0o700)
        os.chown(home / "moved", NOBODY, NOBODY)
        put_back.run("restore", str(home / "copy"))
        assert {path.stat().st_uid for path in (home / "moved").rglob("*")} == {NOBODY}
        os.chown(home / "moved" / "keys.json", 0, 0)
        (found,) = (each for each in json.loads(put_back.run("check", "--json", code=1).stdout) if each["name"] == "owner")
        assert (found["state"], found["cure"]) == ("failure", f"chown {NOBODY}:{NOBODY} it")
        assert "keys.json belongs to another account" in found["detail"]


def test_settings_and_openapi(admin: Admin) -> None:
    assert admin.json("settings")["inside_host"] == "mlflow01.example.org"
    assert "inside_host: " in admin.run("settings").output
    assert json.loads(admin.run("openapi").output)["openapi"] == "3.1.0"


def test_versions_agree() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert __version__ in CliRunner().invoke(aihub, ["--version"]).output


def test_the_page_names_every_command() -> None:
    page = (ROOT / "docs/reference/aihub.md").read_text()
    for name in _COMMANDS:
        assert f"`aihub {name}" in page, name


def test_a_servers_ticket_key_is_rotated(admin: Admin, world: World) -> None:
    server_id = world.made()

    def ids() -> list[str]:
        stored = world.row(server_id).ticket_keys
        assert stored is not None
        return [key.id for key in read_keys(world.service.keyring.decrypt(stored))]

    (first,) = ids()
    admin.run("keys", "tickets", "gaa50000/wine")
    assert ids()[1:] == [first]
    admin.run("keys", "tickets", "gaa50000/wine", "--at-once")
    assert len(ids()) == 1
    assert admin.json("audit")[0]["action"] == "ticket_key"
    with pytest.raises(AssertionError, match="no_such_server"):
        admin.run("keys", "tickets", "gaa50000/none")
