"""A scheduler's warning to the whole job: the shell around the program waits until that has tidied up."""

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ood.rendering import SERVER
from tests.ood.staging import stage
from tests.support.box import until

# Stands for `mlwf job`, which takes its time to end a lease: until there is a file `go`.
PROGRAM = """#!{python}
import pathlib, signal, threading

def tidies(number, frame):
    for each in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    pathlib.Path("tidying").touch()
    while not pathlib.Path("go").exists():
        threading.Event().wait(0.01)
    pathlib.Path("tidied").touch()
    raise SystemExit(0)

for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, tidies)
pathlib.Path("progress.json").write_text('{{"server": {{}}}}' if {started} else "{{}}")
pathlib.Path("runs").touch()
while True:
    signal.pause()
"""


@pytest.mark.parametrize("started", [True, False], ids=["held", "starting"])
@pytest.mark.parametrize("warning", [signal.SIGUSR2, signal.SIGTERM])
def test_a_warned_job_ends_when_its_program_has_tidied_up(tmp_path: Path, warning: signal.Signals, started: bool) -> None:
    program, site, folder = tmp_path / "mlwf", tmp_path / "site.yml", tmp_path / "session"
    program.write_text(PROGRAM.format(python=sys.executable, started=started))
    program.chmod(0o755)
    site.write_text(yaml.safe_dump({"batch_connect": {"mlwf": str(program)}}))
    script = stage(folder, SERVER, site=site, owner=pwd.getpwuid(os.geteuid()))
    with subprocess.Popen(["bash", script], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        until(((folder / "connection.yml") if started else (folder / "runs")).exists, what="the session")
        os.killpg(job.pid, warning)
        until((folder / "tidying").exists, what="the program to notice")
        os.killpg(job.pid, warning)  # Grid Engine sends it twice
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.5)
        (folder / "go").touch()
        job.wait(30)
    assert (folder / "tidied").exists()
