"""`python -P -m tracking_server.mlflow_process PARENT`, started by the guard or, in its own container, by the spawner, which has this
process id. Standard input is the plan, descriptor 3 the listening socket, descriptor 4 the guard's ear.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tracking_server.layout import Box
from tracking_server.mlflow_process import database, environment, job
from tracking_server.mlflow_process.door import Door
from tracking_server.mlflow_process.jobs import Mailbox, Runner
from tracking_server.mlflow_process.plan import Plan, environment_directory, read_plan
from tracking_server.mlflow_process.workers import SharedActivity, Workers, die_with

if TYPE_CHECKING:
    import uvicorn  # type: ignore[import-not-found]  # it is in the box's environment only

_LISTENER, _STATUS = 3, 4


def main() -> int:
    die_with(int(sys.argv[1]))
    faulthandler.register(signal.SIGUSR1)  # whoever is forked from here has it, too
    plan = read_plan(sys.stdin.buffer.read())
    for descriptor in (_LISTENER, _STATUS):
        os.set_inheritable(descriptor, False)
    os.umask(0o077)
    _empty_folders(plan.box)
    os.chdir(plan.box.tmp)
    try:
        database.prepare(plan, environment_directory())
    except database.DatabaseError as error:
        _tell({"reason": str(error)})
        return 1
    environment.apply(plan)
    return _serve(plan)


def _empty_folders(box: Box) -> None:
    """Of what a killed MLflow left of uploads and downloads."""
    for folder in (box.data, box.tmp):
        folder.mkdir(mode=0o700, exist_ok=True)
    for entry in box.tmp.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _tell(word: dict[str, str]) -> None:
    os.write(_STATUS, json.dumps(word).encode() + b"\n")


def _config(plan: Plan, mailbox: Mailbox | None) -> uvicorn.Config:
    import uvicorn

    from tracking_server.mlflow_process.application import application
    from tracking_server.mlflow_process.server import KEEP_SECONDS

    return uvicorn.Config(
        application(plan, mailbox),
        log_config=None,  # its lines are MLflow's log's like all others
        log_level="warning",
        access_log=False,
        backlog=4096,
        timeout_keep_alive=KEEP_SECONDS,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=128 * 1024,
    )


def _serve(plan: Plan) -> int:
    # Importing makes hundreds of thousands of objects that stay: the collector would look at them over and over, now and later.
    gc.disable()
    mailbox = Mailbox() if plan.settings.genai_jobs else None
    config = _config(plan, mailbox)
    from tracking_server.mlflow_process.server import SleepyServer

    gc.freeze()
    gc.enable()
    settings, listener = plan.settings, socket.socket(fileno=_LISTENER)
    activity, door = SharedActivity(settings.workers + 1), Door()

    def serve(worker: int) -> None:
        SleepyServer(
            config,
            listener,
            idle_seconds=settings.idle_seconds,
            drain_seconds=settings.drain_seconds,
            told=lambda state: _tell({"state": state}),
            activity=activity,
            worker=worker,
            door=door,
        ).run_until_idle()

    if mailbox is not None:
        return Workers(settings.workers + 1, _serve_or_run_jobs(plan, serve, mailbox, activity, door)).run()
    if settings.workers == 1:
        serve(0)
        return 0
    return Workers(settings.workers, serve).run()


def _serve_or_run_jobs(
    plan: Plan, serve: Callable[[int], None], mailbox: Mailbox, activity: SharedActivity, door: Door
) -> Callable[[int], None]:
    """One worker more than serve is who runs the jobs."""
    settings = plan.settings

    def work(worker: int) -> None:
        if worker < settings.workers:
            serve(worker)
            return
        seconds = (settings.idle_seconds, settings.drain_seconds)
        Runner(
            mailbox, lambda: job.prepare(plan, door), at_once=settings.workers, seconds=seconds, activity=activity, worker=worker
        ).run_until_idle()

    return work


sys.exit(main())
