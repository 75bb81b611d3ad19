"""What older MLflow versions do otherwise than the newest, made equal here and nowhere else; found by what they do, not by number.

The oldest version that is served well is 3.15: earlier ones hold a whole upload in memory, since they have no native artifact route.
"""

from __future__ import annotations

from typing import Any


def level() -> None:
    """Into this process's MLflow, after `environment.apply` and before it serves."""
    _say_why_a_repository_is_refused()
    _keep_files_that_are_sent()


def _say_why_a_repository_is_refused() -> None:
    """3.15 makes an answer of a refused location (by our check, too) too early, and uses that as a repository: a bare 500."""
    from mlflow.server import handlers  # type: ignore[import-not-found]

    handlers._get_artifact_repo = getattr(  # noqa: SLF001  # its versions are pinned
        handlers._get_artifact_repo,  # noqa: SLF001
        "__wrapped__",
        handlers._get_artifact_repo,  # noqa: SLF001
    )


def _keep_files_that_are_sent() -> None:
    """3.15 removes an artifact's file when it begins to send it: it takes its room on, and is counted nowhere (`spool`)."""
    from mlflow.server import handlers
    from werkzeug.wsgi import ClosingIterator

    if hasattr(handlers, "_create_temp_artifact_file_response"):
        return
    send = handlers._send_artifact  # noqa: SLF001  # its versions are pinned

    def send_and_remove(*arguments: Any) -> Any:
        response = send(*arguments)
        response.response = ClosingIterator(response.response, [*response._on_close])  # noqa: SLF001  # werkzeug's version is locked
        return response

    handlers._send_artifact = send_and_remove  # noqa: SLF001  # as above


def mount_what_jobs_need(asgi: Any) -> None:
    """3.15 has the routes of jobs, and of the traces that they can read, outside the static prefix, where nobody looks for them."""
    from mlflow.server.handlers import _add_static_prefix  # type: ignore[import-not-found]
    from mlflow.server.job_api import job_api_router  # type: ignore[import-not-found]
    from mlflow.server.otel_api import otel_router  # type: ignore[import-not-found]

    routes = asgi.router.routes
    if any(getattr(each, "path", "").startswith(_add_static_prefix(job_api_router.prefix)) for each in routes):
        return
    before = list(routes)
    for router in (job_api_router, otel_router):
        asgi.include_router(router, prefix=_add_static_prefix("/")[:-1])
    # What is mounted last, for all paths, is the older half of MLflow: these go before it.
    routes[:] = [each for each in routes if each not in before] + before
