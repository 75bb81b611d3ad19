"""Steps to another size."""

from __future__ import annotations

from backend.domain import Desired
from backend.plans import box_steps as box
from backend.plans.wanted import wanted_box
from backend.plans.world import Work


def write_new_size(work: Work) -> None:
    """The box's settings are those of the new size."""
    world = work.world
    world.boxes.install(wanted_box(work.becoming(), world.settings, world.keyring))


def restart_as_before(work: Work) -> None:
    """The server runs with its old size, if it is to run."""
    box.write_box(work)
    box.start_if_wished(work)


def start_resized(work: Work) -> None:
    """A server that is to run runs, with the limits of the new size."""
    if work.server().desired == Desired.RUNNING:
        box.ensure_started(work.world, work.becoming())
