"""More than one worker: one that is told to end while they are made, and one that fails while another falls asleep."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: it forks, and takes over the signals.
_TOLD_MEANWHILE = """
import os, signal
from tracking_server.mlflow_process import workers

usual, forked = workers.fork, []

def fork(work):
    forked.append(usual(work))
    if len(forked) == 2:
        os.kill(os.getpid(), signal.SIGTERM)  # before anybody has noted this one
    return forked[-1]

workers.fork = fork
status = workers.Workers(4, lambda number: signal.pause()).run()
print(status, len(forked))
"""
_FAILS_MEANWHILE = """
import os, sys, time
from tracking_server.mlflow_process.workers import Workers

reads, writes = os.pipe()

def serve(number):
    if number == 0:  # falls asleep; the other fails when it is gone
        return
    os.close(writes)
    os.read(reads, 1)
    sys.stderr.write("it fails\\n")
    os._exit(3)

# The pipe's last writer is the parent, which lets go of it once the first has ended.
waited = os.waitpid

def waitpid(*asked):
    found = waited(*asked)
    if found[0] and not ended:
        os.close(writes)
        ended.append(found[0])
    return found

ended = []
os.waitpid = waitpid
print(Workers(2, serve).run())
"""


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_who_is_told_to_end_while_workers_are_made_ends_them_all() -> None:
    assert run(_TOLD_MEANWHILE) == ["0", "2"]


def test_a_worker_that_fails_while_another_falls_asleep_is_not_taken_for_asleep() -> None:
    assert run(_FAILS_MEANWHILE) == ["1"]
