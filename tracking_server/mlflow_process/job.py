"""One GenAI job, in a process of its own that was forked from MLflow's: what MLflow's own runner does in a new interpreter."""

from __future__ import annotations

import json
import logging
from typing import Any

from tracking_server.mlflow_process import downloads, environment
from tracking_server.mlflow_process.door import Door, lead_through
from tracking_server.mlflow_process.plan import Plan

AGAIN = 75
"""The exit status of a job that failed for now and is to be run again."""
_log = logging.getLogger(__name__)


def store_without_connections() -> Any:
    """MLflow's table of jobs, for a process that will fork: no connection stays open between two questions."""
    from mlflow.server import handlers  # type: ignore[import-not-found]

    with environment.no_pool():
        return handlers._get_job_store()  # noqa: SLF001  # MLflow's versions are pinned


def prepare(plan: Plan, door: Door) -> None:
    """Make the MLflow of a process that was just forked ready: its client uses database and object store itself, as the server does.

    Its judges ask their model through the server, where it has a gateway.
    """
    from mlflow.server import handlers
    from mlflow.store.artifact import artifact_repository_registry as registry  # type: ignore[import-not-found]
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository  # type: ignore[import-not-found]

    def own_storage(uri: str, **options: Any) -> Any:
        return S3ArtifactRepository(f"{plan.own_location}/{uri.removeprefix('mlflow-artifacts:').lstrip('/')}", **options)

    downloads.take_folders()
    registry._artifact_repository_registry.register("mlflow-artifacts", own_storage)  # noqa: SLF001  # as above
    handlers._get_tracking_store()  # noqa: SLF001  # as above; both make their database what `mlflow.…` uses
    handlers._get_model_registry_store()  # noqa: SLF001  # as above
    if plan.settings.allow_gateway:
        environment.add_job({"MLFLOW_GATEWAY_URI": lead_through(door, plan.settings)})


def run(job_id: str, own: dict[str, str]) -> int:
    """Do the job, with an environment of its own besides the server's, and note how it went; the exit status."""
    from mlflow.server import handlers
    from mlflow.server.jobs.progress import JobTracker, _set_job_tracker  # type: ignore[import-not-found]

    store = handlers._get_job_store()  # noqa: SLF001  # as above
    store.start_job(job_id)
    entity = store.get_job(job_id)
    function = _function(entity.job_name)
    environment.add_job(own)
    _set_job_tracker(JobTracker(job_id))
    try:
        result = json.dumps(function(**json.loads(entity.params)))
    except Exception as error:  # noqa: BLE001  # whatever it is: the job has failed, and says so
        _log.exception("job %s (%s) fails", job_id, entity.job_name)
        return _failed(store, job_id, error, function._job_fn_metadata.transient_error_classes or [])  # noqa: SLF001  # as above
    store.finish_job(job_id, result)
    return 0


def _failed(store: Any, job_id: str, error: Exception, for_now: list[type[Exception]]) -> int:
    """`for_now`: the errors after which this job is worth another try."""
    from mlflow.server.jobs import TransientError  # type: ignore[import-not-found]

    said = error.origin_error if isinstance(error, TransientError) else error
    if said is error and type(error) not in for_now:
        store.fail_job(job_id, repr(error))
    elif store.retry_or_fail_job(job_id, repr(said)) is not None:
        return AGAIN
    return 0


def fail(job_id: str, reason: str) -> int:
    """Note that a job came to nothing, and the run that it was to fill with it."""
    import mlflow  # type: ignore[import-not-found]
    from mlflow.server import handlers

    store = handlers._get_job_store()  # noqa: SLF001  # as above
    store.fail_job(job_id, reason)
    run_id = json.loads(store.get_job(job_id).params).get("run_id")
    if run_id:
        mlflow.MlflowClient().set_terminated(run_id, "FAILED")
    return 0


def lock_of(entity: Any) -> str | None:
    """Two jobs with the same one may not run at once; None: any number may."""
    from mlflow.server.jobs.utils import _compute_exclusive_lock_key  # type: ignore[import-not-found]

    exclusive = _function(entity.job_name)._job_fn_metadata.exclusive  # noqa: SLF001  # as above
    if not exclusive:
        return None
    given = json.loads(entity.params)
    counted = {name: value for name, value in given.items() if name in exclusive} if isinstance(exclusive, list) else given
    return str(_compute_exclusive_lock_key(entity.job_name, counted))


def pause_before(retry: int) -> float:
    """Seconds before a job is tried again, the first time (1) or later."""
    from mlflow.environment_variables import (  # type: ignore[import-not-found]
        MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY,
        MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_MAX_DELAY,
    )

    base, most = MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY.get(), MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_MAX_DELAY.get()
    return float(min(base * 2 ** (retry - 1), most))


def _function(name: str) -> Any:
    from mlflow.server.jobs.utils import _load_function, get_job_fn_fullname

    return _load_function(get_job_fn_fullname(name))
