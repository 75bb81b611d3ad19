"""What one mishap must not take MLflow's processes along with: no process to spare, a table that is locked, a key that is too long."""

import errno
import os

import pytest

from tests.box.parts import run
from tracking_server.mlflow_process import promises

# In a process of its own: it is about the process's signals.
_NO_PROCESS = """
import os, signal
from tracking_server.mlflow_process import workers

def fork():
    raise BlockingIOError("no process to spare")

os.fork = fork
try:
    workers.fork(lambda: 0)
except BlockingIOError:
    print(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
# MLflow takes seconds to import, so here are what stands in for those of its names that are asked for.
_MLFLOW = """
import sys
from types import ModuleType, SimpleNamespace

class MlflowException(Exception):
    error_code = "INTERNAL_ERROR"
    invalid_parameter_value = staticmethod(lambda said: MlflowException("INVALID_PARAMETER_VALUE"))

def stand_in(name, **names):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(names, __path__=[])

failed = lambda job_id, reason: print(job_id, reason == jobs._TOO_LONG)
stand_in("mlflow", end_run=print)
stand_in("mlflow.exceptions", MlflowException=MlflowException)
stand_in("mlflow.entities")
stand_in("mlflow.entities._job_status", JobStatus=SimpleNamespace(RUNNING="RUNNING", PENDING="PENDING"))
stand_in("mlflow.server", handlers=SimpleNamespace(_get_job_store=lambda: SimpleNamespace(fail_job=failed)))
stand_in("mlflow.server.jobs", utils=SimpleNamespace())
"""
# A job that dies, while first there is no process to spare and then the table is locked, twice each.
_RUNNER = """
import os
from tracking_server.mlflow_process import job, jobs
from tracking_server.mlflow_process.workers import SharedActivity

class Table:
    def list_jobs(self, statuses):
        return [SimpleNamespace(job_id="left")] if statuses == ["RUNNING"] else []

    def get_job(self, job_id):
        if ended:
            ended.pop()
            raise MlflowException("database is locked")
        return SimpleNamespace(job_id=job_id, status="PENDING", timeout=None, retry_count=0)

def look(pid):
    code = looked(pid)
    if code is not None and locked:
        ended.append(locked.pop())
    return code

def fork():
    if refused:
        raise refused.pop()
    return forked()

locked, ended, looked = [1, 2], [], jobs._ended
refused, forked = [BlockingIOError("no process to spare"), BlockingIOError("none yet")], os.fork
jobs._ended, jobs._WATCH_SECONDS, jobs._LOOK_SECONDS, os.fork = look, 0.05, 0.01, fork
job.store_without_connections = Table
job.lock_of = lambda entity: None
job.run = lambda job_id, own: 3
job.fail = lambda job_id, reason: os.write(1, f"{job_id}:{reason.partition(',')[0]}\\n".replace(" ", "_").encode()) and 0
mailbox, activity = jobs.Mailbox(), SharedActivity(1)
mailbox.post("one", {"KEY": "x"})
jobs.Runner(mailbox, lambda: None, at_once=1, seconds=(0.3, 1), activity=activity, worker=0).run_until_idle()
"""
_TOO_LONG = """
from mlflow.server.jobs import utils
from tracking_server.mlflow_process import jobs

mailbox = jobs.Mailbox()
jobs.install(mailbox)
for length in (65_536, 300_000, 60_000):
    try:
        utils._get_or_init_huey_instance("any").submit_task(str(length), None, "name", {}, None, None, {"KEY": "x" * length})
    except MlflowException as error:
        print(error)
print([(name, len(own["KEY"])) for name, own in mailbox.letters(0)])
"""


def test_what_a_job_had_promised_counts_no_more_once_its_id_is_another_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    promised = promises.Promises()
    with promised.alone():
        promised.add(5)
    assert promised.total() == 5

    def foreign(_pid: int, _number: int) -> None:
        raise PermissionError(errno.EPERM, "another account's")

    monkeypatch.setattr(os, "kill", foreign)
    assert promised.total() == 0


def test_a_process_that_the_machine_refuses_leaves_no_signal_blocked() -> None:
    assert run(_NO_PROCESS) == ["0"]


def test_a_job_is_neither_forgotten_nor_the_servers_end_where_processes_lack_and_its_table_is_locked() -> None:
    said = run(_MLFLOW + _RUNNER)
    assert said == [
        "left:The_tracking_server_was_stopped_or_restarted_while_the_job_ran:_start_it_again.",
        "one:The_job's_process_was_ended_by_status_3",
    ]


def test_a_key_that_is_too_long_for_a_job_is_its_requests_error() -> None:
    said = run(_MLFLOW + _TOO_LONG)
    refused = ["True", "FAILED", "INVALID_PARAMETER_VALUE"]
    assert said == ["65536", *refused, "300000", *refused, "[('60000',", "60000)]"]
