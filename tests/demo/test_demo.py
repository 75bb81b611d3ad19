"""`bin/demo`: up, status, env, down, and what happens when something of it dies."""

import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from botocore.config import Config
from mlwf.client import Client

from demo.home import Home
from demo.processes import Process, read
from tests.support.demo import ROOT, Demo, in_foreground, new_demo

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demo that is up for the tests of this module; each leaves it up."""
    with new_demo() as made:
        made.run("up")
        made.read_variables()
        yield made


def _process(demo: Demo, part: str) -> Process:
    process = read(Home(demo.home / "demo").process_file(part))
    assert process is not None
    return process


def test_up_twice_starts_nothing_twice(demo: Demo) -> None:
    before = [_process(demo, part) for part in ("store", "service", "console")]
    assert "runs already" in demo.run("up").stdout
    assert [_process(demo, part) for part in ("store", "service", "console")] == before


def test_the_service_knows_the_caller_and_the_console_shows_its_page(demo: Demo) -> None:
    with Client(demo.variables["MLWF_SERVICE"]) as client:
        me = client.me()
    assert demo.variables["DEMO_GROUP"] in [group.name for group in me.groups]
    answer = requests.get(demo.variables["CONSOLE_URL"], timeout=30)
    assert answer.status_code == 200
    assert "App for MLflow Server" in answer.text


def test_the_keys_of_env_open_the_bucket(demo: Demo) -> None:
    variables = demo.variables
    session = boto3.session.Session(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    client = session.client("s3", endpoint_url=variables["S3_ENDPOINT_URL"], config=config)
    client.put_object(Bucket=variables["DEMO_BUCKET"], Key="kept", Body=b"content")
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == [variables["DEMO_BUCKET"]]


def test_a_shell_with_keys_for_another_store_uses_the_demos(demo: Demo) -> None:
    asks = "import botocore.session as b; print(b.get_session().get_credentials().get_frozen_credentials()[::2])"
    names = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    theirs = {**demo.environment, **dict.fromkeys(names, "theirs")}
    script = f'eval "$({ROOT}/bin/demo env)" && {shlex.quote(sys.executable)} -c {shlex.quote(asks)}'
    said = subprocess.run(["bash", "-c", script], env=theirs, cwd=demo.home, capture_output=True, text=True, check=True)
    assert said.stdout == f"{(demo.variables['AWS_ACCESS_KEY_ID'], None)}\n"


def test_the_page_names_what_env_sets(demo: Demo) -> None:
    _, _, after = (ROOT / "docs/howto/demo.md").read_text("utf-8").partition("\n## What `env` gives\n")
    rows = re.findall(r"^\|([^|]*`[^|]*)\|", after.partition("\n## ")[0], flags=re.MULTILINE)
    exported = re.findall(r"^export (\w+)=", demo.run("env").stdout, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(exported)


@pytest.mark.parametrize("part", ["store", "service", "console"])
def test_a_part_that_was_killed_is_seen_and_started_again(demo: Demo, part: str) -> None:
    os.kill(_process(demo, part).pid, signal.SIGKILL)
    status = demo.run("status", check=False)
    assert status.returncode == 3
    assert status.stdout.count("stopped") == 1
    demo.run("up")
    assert demo.run("status").returncode == 0
    assert requests.get(demo.variables["CONSOLE_URL"], timeout=30).status_code == 200


def test_down_leaves_no_process_and_up_finds_ports_keys_and_data(demo: Demo) -> None:
    before = demo.read_variables()
    demo.run("down")
    assert demo.processes() == []
    assert demo.run("status", check=False).returncode == 3
    demo.run("down")  # twice is fine
    demo.run("up")
    assert demo.read_variables() == before


def test_what_it_keeps_is_the_owners_alone(demo: Demo) -> None:
    home = demo.home / "demo"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    secret = demo.variables["AWS_SECRET_ACCESS_KEY"].encode()
    holders = {path for path in home.rglob("*") if path.is_file() and secret in path.read_bytes()}
    assert holders == {home / "aws" / "credentials", home / "store" / "s3.json"}
    assert [str(path) for path in holders if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    words = [
        Path(f"/proc/{_process(demo, part).pid}/{kind}") for part in ("store", "service", "console") for kind in ("cmdline", "environ")
    ]
    assert [str(path) for path in words if secret in path.read_bytes()] == []


def test_the_foreground_demo_recovers_from_kill_9_of_itself() -> None:
    with new_demo() as demo:
        with in_foreground(demo) as process:
            process.kill()
            process.wait()
        assert demo.run("status").returncode == 0, "its parts go on without it"
        assert "runs already" in demo.run("up").stdout
        demo.run("down")
        assert demo.processes() == []


def test_down_elsewhere_ends_the_foreground_demo() -> None:
    with new_demo() as demo, in_foreground(demo) as process:
        demo.run("down")
        assert process.wait(timeout=60) == 0
        assert demo.processes() == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DEMO_IDLE_SECONDS", "soon", "no whole number of seconds"),
        ("DEMO_RUNTIME", "swarm", "write DEMO_RUNTIME=process or DEMO_RUNTIME=docker"),
        ("DEMO_HOME", "/proc/demo", "set DEMO_HOME to a folder that you may write"),
    ],
)
def test_wrong_settings_are_said_in_one_sentence(tmp_path: Path, variable: str, value: str, said: str) -> None:
    environment = {"PATH": os.environ["PATH"], "DEMO_HOME": str(tmp_path / "demo"), variable: value}
    run = subprocess.run([ROOT / "bin/demo", "up"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1
