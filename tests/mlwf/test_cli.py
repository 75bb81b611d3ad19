import datetime as dt
import json
import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mlwf.answers import Operation, Step
from mlwf.cli.create_image import command as image_command
from mlwf.cli.export_model import command as export_command
from mlwf.cli.output import local_time
from mlwf.cli.support import StepPrinter
from rich.console import Console

from tests.mlwf.fake_service import FakeService

Run = Callable[..., int]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-test"}


def _bodies(service: FakeService, method: str) -> list[object]:
    return [body for each, _path, body, _headers in service.requests if each == method]


def test_list_is_complete_in_a_pipe_and_as_json(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("gaa50000", "w" * 200)
    assert mlwf("server", "list") == 0
    text = capsys.readouterr().out
    assert f"gaa50000/{'w' * 200}" in text
    assert "http://mlflow01:21000/mlflow/" in text
    assert mlwf("server", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["servers"][0]["a_field_of_the_future"] == {"x": 1}


def test_a_terminal_says_what_a_step_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    waits = "The runtime docker does not answer (there is no socket); waiting for it, some 5 minutes"
    step = Step(name="stop_box", state="running", label="Stop the server", detail=waits)
    with StepPrinter(Console(force_terminal=True, width=200)) as printer:
        printer(Operation(id="op_1", kind="stop", state="running", steps=[step]))
    assert f"Stop the server: {waits}" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100, 40])
def test_on_a_terminal_the_users_are_folded_and_no_address(
    service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Four users at a server, and no list on 80 columns had an address whole, to be copied. On 40 nothing is cut off."""
    server = service.add("gaa50000", "wine")
    server["inside_url"] = "http://mlflow01.example.org:21001/mlflow/"
    server["users"]["names"] = ["tanaka", "suzuki", "sato-hiroshi", "yamada"]
    terminal = Console(width=width, soft_wrap=True)
    monkeypatch.setattr("mlwf.cli.output.console", lambda: terminal)
    assert mlwf("server", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.split()[:2] == ["gaa50000/wine", "running"] and server["inside_url"] in line for line in lines) == (width > 40)
    assert not Counter(server["inside_url"]) - Counter("".join(lines))


def test_show_says_the_warnings(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("server", "show", "g/wine") == 0
    assert "A former member knows the password. Update Auth Info." in capsys.readouterr().out


def test_show_cuts_nothing_off_in_a_pipe(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "w" * 200)
    assert mlwf("server", "show", f"g/{'w' * 200}") == 0
    assert any(line.rstrip().endswith(f"/aihub/{'w' * 200}/yml/basic_auth.yml") for line in capsys.readouterr().out.splitlines())


def test_create_shows_the_steps_and_what_to_do_next(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("server", "create", "gaa50000/wine", "--bucket", "b", env=KEYS) == 0
    text = capsys.readouterr().out
    assert text.index("Check the bucket and the key") < text.index("Service created") < text.index("mlwf server auth gaa50000/wine")
    assert _bodies(service, "POST") == [
        {
            "group": "gaa50000",
            "env_name": "wine",
            "bucket": "b",
            "access_key_id": "AKIAEXAMPLE",
            "secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
        }
    ]


def test_create_takes_the_keys_of_a_profile(service: FakeService, mlwf: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("[default]\naws_access_key_id = A1\naws_secret_access_key = S1\n[p2]\naws_access_key_id=A2\naws_secret_access_key=S2\n")
    assert mlwf("server", "create", "g/aa", "--bucket", "b", "--credentials-file", str(file)) == 0
    assert mlwf("server", "storage", "g/aa", "--credentials-file", str(file), "--profile", "p2") == 0
    assert _bodies(service, "POST")[0]["access_key_id"] == "A1"  # type: ignore[index]
    assert _bodies(service, "PUT") == [{"access_key_id": "A2", "secret_access_key": "S2"}]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("server", "create", "g/wine", "--bucket", "b"), "There is no key for the bucket"),
        (("server", "create", "wine", "--bucket", "b"), "is not GROUP/ENV"),
        (("server", "create", "g/Wine", "--bucket", "b"), "a letter or digit first"),
        (("server", "create", "g/wine"), "--bucket"),
        (("server", "delete", "g/wine"), "Add --yes"),
        (("server", "auth", "--generate", "g/wine", "x/y"), "Write GROUP/ENV before --generate"),
        (("server", "nonsense"), "nonsense"),
    ],
)
def test_wrong_use_is_status_2(
    service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], why: str
) -> None:
    service.add("g", "wine")
    assert mlwf(*args) == 2
    assert why in capsys.readouterr().err
    assert {method for method, *_ in service.requests} <= {"GET"}


def test_a_failure_is_status_1_with_the_cure(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.error = {"code": "wrong_key", "detail": "The store refuses the key.", "cure": "Make a new one."}
    assert mlwf("server", "create", "g/wine", "--bucket", "b", env=KEYS) == 1
    out, err = capsys.readouterr()
    assert "✗ Check the bucket and the key" in out
    assert err.strip() == "Error: The store refuses the key. Make a new one."
    assert mlwf("server", "start", "g/none", "--stacktrace") == 1
    assert "OperationFailedError" in capsys.readouterr().err


def test_a_groups_name_is_no_style_of_the_terminals(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("[lab]", "wine")
    assert mlwf("server", "stop", "[lab]/wine", "--no-wait") == 0
    assert "'mlwf server show [lab]/wine'" in capsys.readouterr().out


def test_no_wait_only_asks(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("server", "stop", "g/wine", "--no-wait") == 0
    assert "mlwf server show g/wine" in capsys.readouterr().out
    assert len(service.requests) == 1


def test_delete_says_what_is_kept_and_until_when(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("server", "delete", "g/wine", "--yes") == 0
    text = capsys.readouterr().out
    assert "a snapshot of the database, the settings and the port" in text
    assert "s3://b/mlflow/k3 stay as they are" in text
    until = dt.datetime(2026, 12, 8, 9, tzinfo=dt.UTC).astimezone()
    assert f"Can be restored until {until:%Y-%m-%d %H:%M} with" in text
    assert ("DELETE", "/api/v1/servers/g/wine?server_id=k3v9x2m7q4ab") in [each[:2] for each in service.requests], (
        "and no other of that name"
    )
    assert mlwf("server", "restore", "g/wine") == 0


def test_a_deleted_server_is_listed_with_its_id_and_restored_by_it(
    service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    deletion = {"deleted_at": "2026-11-24T09:00:00+00:00", "restorable_until": "2026-12-08T09:00:00+00:00", "kept": ["database"]}
    server_id = service.add("g", "wine")["id"]
    assert mlwf("server", "list") == 0
    assert server_id not in capsys.readouterr().out
    service.servers["g/wine"] |= {"status": "deleted", "deletion": deletion}
    assert mlwf("server", "list", "--deleted") == 0
    assert capsys.readouterr().out.split()[-3:] == [*local_time("2026-12-08T09:00:00+00:00").split(), server_id]
    assert mlwf("server", "restore", "g/wine", "--id", server_id) == 0
    assert ("POST", f"/api/v1/servers/g/wine/restore?server_id={server_id}") in [each[:2] for each in service.requests]


def test_auth_generates_reads_and_registers(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(service.add("g", "wine")["auth_file"])
    assert mlwf("server", "auth", "g/wine") == 1
    assert "--generate" in capsys.readouterr().err
    assert mlwf("server", "auth", "g/wine", "--generate", "alice") == 0
    text = capsys.readouterr().out
    (registered,) = _bodies(service, "PUT")
    (user,) = registered["users"]  # type: ignore[index]
    assert user["user_name"] == "alice"
    assert len(user["pass"]) >= 22
    assert user["pass"] not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750
    before = file.read_text()
    assert mlwf("server", "auth", "g/wine", "--generate", "bob") == 0
    assert file.read_text() == before
    assert "is there already" in capsys.readouterr().out


def test_auth_warns_about_a_file_that_all_can_read(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(service.add("g", "wine")["auth_file"])
    file.parent.mkdir(parents=True)
    file.write_text("{'user_name': 'a', 'pass': 'b'}")
    file.chmod(0o644)
    assert mlwf("server", "auth", "g/wine") == 0
    assert "chmod o-rwx" in capsys.readouterr().out


def test_env_prints_what_a_shell_can_read(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(service.add("g", "wine")["auth_file"])
    file.parent.mkdir(parents=True)
    file.write_text("- {user_name: 'al ice', pass: \"it's $(id)\"}\n- {user_name: bob, pass: 'x'}")
    assert mlwf("server", "env", "g/wine") == 0
    values = " ".join(f'"${{MLFLOW_TRACKING_{name}-unset}}"' for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
    script = f"{capsys.readouterr().out}printf '%s|%s|%s|%s' {values}"
    old = {**os.environ, "MLFLOW_TRACKING_TOKEN": "old"}
    run = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, env=old)
    assert run.stdout == "http://mlflow01:21000/mlflow/|al ice|it's $(id)|unset"
    assert mlwf("server", "env", "g/wine", "--user", "carol") == 1
    assert "al ice, bob" in capsys.readouterr().err


def test_env_prints_no_other_password_where_the_locale_has_not_its_letters(service: FakeService, tmp_path: Path) -> None:
    file = Path(service.add("g", "wine")["auth_file"])
    file.parent.mkdir(parents=True)
    file.write_text("{user_name: 'a', pass: 'パス'}", "utf-8")
    environ = {"MLWF_SERVICE": service.address, "PYTHONIOENCODING": "latin-1", "HOME": str(tmp_path)}
    argv = [Path(sys.executable).parent / "mlwf", "server", "env", "g/wine"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the character set in use here (latin-1) lacks" in done.stderr
    assert "LC_ALL=C.UTF-8" in done.stderr


def _completions(service: FakeService, words: str) -> list[str]:
    env = {
        "MLWF_SERVICE": service.address,
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_MLWF_COMPLETE": "bash_complete",
    }
    run = subprocess.run([Path(sys.executable).parent / "mlwf"], env=env, capture_output=True, text=True, check=False)
    return [line.partition(",")[2] for line in run.stdout.splitlines()]


def test_names_complete_through_the_service(service: FakeService) -> None:
    service.add("gaa50000", "wine")
    service.add("gbb", "x1") | {}
    service.servers["gbb/x1"]["status"] = "deleted"
    assert _completions(service, "mlwf server start g") == ["gaa50000/wine"]
    assert _completions(service, "mlwf server restore g") == ["gbb/x1"]
    assert _completions(service, "mlwf server create g") == ["gaa50000/"]


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete --no-files")])
def test_completion_prints_the_script(mlwf: Run, capsys: pytest.CaptureFixture[str], shell: str, sign: str) -> None:
    assert mlwf("completion", shell) == 0
    assert sign in capsys.readouterr().out


def test_help_teaches_by_example(mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (("server",), ("server", "create"), ("server", "auth"), ("server", "delete"), ("server", "storage")):
        assert mlwf(*args, "--help") == 0
        assert f"mlwf {args[0]}" in capsys.readouterr().out.split("Example", 1)[1]


def test_the_aws_library_is_only_there_for_who_needs_it() -> None:
    """It is half of the time and of the files of each press of Tab, and a home may be on a slow file server."""
    asked = "import sys, mlwf.cli.main as main; print('botocore' in sys.modules, sorted(main.cli.list_commands(None)))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert told == f"False {['cache', 'completion', 'doctor', 'job', 'lease', 'publish', 'server', 'token', 'verify']}\n"


def test_help_lists_what_users_use_alone(mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlwf("--help") == 0
    told = capsys.readouterr().out
    assert ("\n  lease " in told, "\n  job " in told, "/etc/aihub/mlwf.yml" in told) == (True, False, True)
    assert mlwf("job", "--help") == 0


@pytest.mark.parametrize("command", [export_command, image_command])
def test_each_program_tells_its_version(command: click.Command) -> None:
    told = CliRunner().invoke(command, ["--version"]).output
    assert told.split()[-1] == version("mlwf")


def test_no_service_is_one_sentence(mlwf: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mlwf.cli import main as cli

    monkeypatch.setenv("MLWF_SERVICE", "unix:///nowhere/s.sock")
    assert cli.run(["server", "list"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "there is no such socket" in line
    assert "/etc/aihub/mlwf.yml" in line


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("words", [("cache", "prune", "--max-gb"), ("token", "create", "g/e", "--days"), ("doctor", "--seconds")])
def test_an_amount_that_is_none_is_wrong_use(words: tuple[str, ...], number: str, mlwf: Run) -> None:
    assert mlwf(*words, number) == 2
