"""Steps to another size."""

from __future__ import annotations

from backend.domain import Desired
from backend.plans import box_steps as box
from backend.plans.upgrade_state import note_whether_it_runs
from backend.plans.wanted import wanted_box
from backend.plans.world import Work


def write_new_size(work: Work) -> None:
    """The box's settings are those of the new size."""
    world = work.world
    world.boxes.install(wanted_box(work.becoming(), world.settings, world.keyring))


def stop_for_resize(work: Work) -> None:
    """The box does not run, and it is known whether it did."""
    note_whether_it_runs(work)
    box.stop_box(work)


def restart_as_before(work: Work) -> None:
    """The server runs with its old size, if it ran."""
    box.write_box(work)
    if work.payload.get("before") == Desired.RUNNING:
        box.ensure_started(work.world, work.server())


def start_resized(work: Work) -> None:
    """A server that ran runs, with the limits of the new size."""
    if work.payload.get("before") == Desired.RUNNING:
        box.ensure_started(work.world, work.becoming())
