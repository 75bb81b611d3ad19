"""The ASGI application: MLflow, with our checks in it and in front of it."""

from __future__ import annotations

from typing import Any

from tracking_server.mlflow_process import (
    checks,
    compressed,
    differences,
    downloads,
    failures,
    flask_bridge,
    jobs,
    outwards,
    request_log,
    turns,
)
from tracking_server.mlflow_process.locations import Locations
from tracking_server.mlflow_process.plan import Plan
from tracking_server.mlflow_process.request_log import RequestLog
from tracking_server.mlflow_process.spool import Spool, SpoolMiddleware


def application(plan: Plan, mailbox: jobs.Mailbox | None = None) -> Any:
    """To be made after `environment.apply`: MLflow reads its environment when it is imported. `mailbox`: of who runs jobs, if one does."""
    from mlflow.server import app as wsgi  # type: ignore[import-not-found]
    from mlflow.server.fastapi_app import app as asgi  # type: ignore[import-not-found]

    outwards.install(plan.settings)
    differences.level()
    if mailbox is not None:
        differences.mount_what_jobs_need(asgi)
        jobs.install(mailbox)
    checks.install(Locations(plan.settings.bucket, plan.settings.prefix))
    compressed.install()
    flask_bridge.install()
    failures.install(asgi, wsgi)
    spool = Spool(plan.box.tmp, plan.settings.tmp_bytes)
    downloads.install(spool)
    request_log.install()
    turns.install()
    return RequestLog(SpoolMiddleware(asgi, spool))
