"""`aihub check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from backend.cli.context import json_option, ready_settings, show

if TYPE_CHECKING:
    from backend.checks import Check, Finding
    from backend.settings import Settings


@click.command()
@click.option("--remove-orphans", is_flag=True, help="Stop and remove what no server of the registry owns, databases included.")
@json_option
@click.pass_context
def check(context: click.Context, *, remove_orphans: bool, as_json: bool) -> None:
    """Look whether all is well: a line for each thing, and the cure where it is not. Exit status 1 where something fails."""
    from backend.checks import CHECKS, clear_orphans, look_for_orphans

    settings = ready_settings(context)  # the settings themselves are checked by being read
    if remove_orphans:
        clear_orphans(settings, look_for_orphans(settings))
    findings = [finding for name, one in CHECKS for finding in _run(name, one, settings)]
    show([asdict(finding) for finding in findings], ("state", "name", "detail", "cure"), as_json=as_json)
    if any(finding.state == "failure" for finding in findings):
        context.exit(1)


def _run(name: str, one: Check, settings: Settings) -> Iterator[Finding]:
    """One check; what it could not even look at is a failure with its own words."""
    from backend.checks import Finding
    from backend.cli.failures import sentence

    try:
        yield from one(settings)
    except Exception as error:
        told = sentence(error)
        if told is None:
            raise
        yield Finding(name=name, state="failure", detail=told)
