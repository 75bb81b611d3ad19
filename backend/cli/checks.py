"""`aihub check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from backend.cli.context import acting_admin, confirm, json_option, ready_settings, show

if TYPE_CHECKING:
    from backend.checks import Check, Finding
    from backend.settings import Settings


@click.command()
@click.option("--remove-orphans", is_flag=True, help="Stop and remove what no server of the registry owns, databases included.")
@click.option("--yes", is_flag=True, help="With --remove-orphans: do not ask.")
@json_option
@click.pass_context
def check(context: click.Context, *, remove_orphans: bool, yes: bool, as_json: bool) -> None:
    """Look whether all is well: a line for each thing, and the cure where it is not. Exit status 1 where something fails."""
    from backend.checks import CHECKS

    settings = ready_settings(context)  # the settings themselves are checked by being read
    if remove_orphans:
        _remove_orphans(settings, yes=yes)
    findings = [finding for name, one in CHECKS for finding in _run(name, one, settings)]
    show([asdict(finding) for finding in findings], ("state", "name", "detail", "cure"), as_json=as_json)
    if any(finding.state == "failure" for finding in findings):
        context.exit(1)


def _remove_orphans(settings: Settings, *, yes: bool) -> None:
    """After an older registry was put back, every newer server is an orphan: so they are shown first."""
    from backend.checks import clear_orphans, look_for_orphans

    found = look_for_orphans(settings)
    if found:
        confirm(f"No server of the registry has these: {found}. Remove them for good, databases included", yes=yes)
        clear_orphans(settings, found, acting_admin())


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
