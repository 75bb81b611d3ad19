"""Runs one operation's plan: each step is told to the registry as it happens, and a failure is taken back in reverse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from sqlalchemy.orm import Session

from backend import log as logs
from backend.atomic import full_disk_is_ours
from backend.domain import FINISHED, OperationKind, OperationState, StepState
from backend.errors import ServiceError
from backend.i18n import Told, stored
from backend.plans.catalogue import PLANS, reason_of
from backend.plans.labels import LABELS
from backend.plans.shape import Plan, Step
from backend.plans.world import AwayError, StoppingError, Work, World, read_payload
from backend.registry.models import Operation, Server, now

log = logging.getLogger(__name__)

AWAY_SECONDS: Final = 300.0
"""For so long what was asked waits for a runtime that does not answer: Docker's daemon is away for seconds while it is restarted."""


def run_operation(world: World, operation_id: str, *, patient: bool) -> None:
    """Bring that operation to its end; one that has ended is left alone. ``patient``: a runtime that does not answer is no failure.

    Errors: ``StoppingError``, ``AwayError`` where it is patient; both with the operation unfinished.
    """
    work = _begin(world, operation_id, patient=patient)
    if work is None:
        return
    with logs.about(request_id=work.request_id, operation_id=work.operation_id, server_id=work.server_id):
        log.info("operation %s (%s of %s) begins", work.operation_id, work.kind, work.server_id)
        _carry_out(work)


def _carry_out(work: Work) -> None:
    plan = PLANS[OperationKind(work.kind)]
    error, has_place = None, False
    with ExitStack() as slot:
        for step in plan.steps:
            if step.starts and not has_place:  # one who holds a place and waits for a second would wait for others who do the same
                slot.enter_context(work.world.slot())
                has_place = True
            error = _run(work, step)
            if error is not None:
                break
    if error is None:
        _end(work, OperationState.SUCCEEDED, None, lambda session, server: plan.succeed(work, session, server))
        return
    work.notes["undone"] = _undo(work, plan)
    _end(work, OperationState.FAILED, error, lambda session, server: plan.fail(work, session, server, error))


def _begin(world: World, operation_id: str, *, patient: bool) -> Work | None:
    """Note that it runs, with all steps ahead of it. What one waited for in an earlier run stays said until it has succeeded."""
    with world.registry.session() as session:
        operation = session.get(Operation, operation_id)
        if operation is None or operation.state in FINISHED:
            return None
        if operation.server_id is None:
            operation.state, operation.finished_at, operation.payload = OperationState.FAILED, now(), None
            operation.error = reason_of(ServiceError("no_such_server", group=operation.group_name, env_name=operation.env_name))
            return None
        operation.state = OperationState.RUNNING
        waits = {row["name"]: row["detail"] for row in operation.steps}
        operation.steps = [_row(step.name, waits.get(step.name)) for step in PLANS[OperationKind(operation.kind)].steps]
        return Work(
            world=world,
            operation_id=operation.id,
            kind=operation.kind,
            server_id=operation.server_id,
            requested_by=operation.requested_by,
            request_id=operation.request_id,
            patient=patient,
            payload=read_payload(world.keyring, operation.payload),
        )


def _run(work: Work, step: Step) -> ServiceError | None:
    """Run one step. None when it went well. Error: ``AwayError``, where the work is patient: it is said what the step waits for."""
    _note(work, step.name, StepState.RUNNING)
    work.world.at(f"{work.kind}.{step.name}.begun")
    error = _attempt(work, step.name, step.do)
    work.world.at(f"{work.kind}.{step.name}.done")
    if error is not None and error.code == "runtime_unavailable" and work.patient:
        _note_waiting(work, step.name, error)
        raise AwayError(str(error)) from error
    if error is None:
        _note(work, step.name, StepState.SUCCEEDED)
    else:
        log.warning("operation %s: step %s failed: %s", work.operation_id, step.name, error)
        _note(work, step.name, StepState.FAILED)
    work.world.at(f"{work.kind}.{step.name}.noted")
    return error


def _undo(work: Work, plan: Plan) -> bool:
    """Take everything back, in reverse. All of it, since an earlier run that was cut short may have come further than this one."""
    complete = True
    for step in reversed(plan.steps):
        if step.undo is None:
            continue
        work.world.at(f"{work.kind}.{step.name}.undoing")
        error = _attempt(work, step.name, step.undo)
        if error is None:
            _note(work, step.name, StepState.UNDONE)
        else:
            log.error("operation %s: step %s could not be taken back: %s", work.operation_id, step.name, error)
            complete = False
        work.world.at(f"{work.kind}.{step.name}.undone")
    return complete


def _attempt(work: Work, name: str, action: Callable[[Work], None]) -> ServiceError | None:
    try:
        with full_disk_is_ours(LABELS[name]):
            action(work)
    except ServiceError as error:
        return error
    except StoppingError:
        raise
    except Exception:  # a mistake of ours must end this operation with a word and an undo, and not the reconciler
        log.exception("operation %s: step %s", work.operation_id, name)
        return ServiceError("internal", request_id=work.request_id or work.operation_id)
    return None


def _end(work: Work, state: OperationState, error: ServiceError | None, say: Callable[[Session, Server], None]) -> None:
    """One transaction says how the operation ended and what became of the server."""
    work.world.at(f"{work.kind}.ending")
    with work.world.registry.session() as session:
        operation = session.get_one(Operation, work.operation_id)
        operation.state, operation.finished_at, operation.payload = state, now(), None
        operation.error = None if error is None else reason_of(error)
        operation.steps = [{**row, "detail": None} for row in operation.steps]  # nothing is waited for any more
        server = session.get(Server, work.server_id)
        if server is not None:
            say(session, server)
    log.info("operation %s (%s of %s) %s", work.operation_id, work.kind, work.server_id, state)
    work.world.at(f"{work.kind}.ended")


def _note(work: Work, name: str, state: StepState) -> None:
    """Tell the registry, and so everybody who looks, how far the step is. A step that never began is not said to be undone."""
    with work.world.registry.session() as session:
        operation = session.get_one(Operation, work.operation_id)
        operation.steps = [_changed(row, state) if row["name"] == name else row for row in operation.steps]


def _note_waiting(work: Work, name: str, error: ServiceError) -> None:
    why, minutes = error.params["why"], f"{AWAY_SECONDS / 60:g}"
    waits = Told(
        "The runtime {runtime} does not answer ({why}); waiting for it, some {minutes} minutes",
        runtime=error.params["runtime"],
        why=why,
        minutes=minutes,
    )
    with work.world.registry.session() as session:
        operation = session.get_one(Operation, work.operation_id)
        operation.steps = [{**row, "detail": stored(waits) if row["name"] == name else None} for row in operation.steps]


def _changed(row: dict[str, Any], state: StepState) -> dict[str, Any]:
    at = now().isoformat()
    if state is StepState.RUNNING:
        return {**row, "state": state, "started_at": at}
    if state is StepState.UNDONE and row["state"] != StepState.SUCCEEDED:
        return row
    return {**row, "state": state, "finished_at": at, "detail": None}


def _row(name: str, detail: dict[str, Any] | None) -> dict[str, Any]:
    return {"name": name, "state": StepState.PENDING, "started_at": None, "finished_at": None, "detail": detail}
