"""`aihub check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from backend.cli.context import acting_admin, confirm, json_option, ready_settings, show
from backend.cli.language import _

if TYPE_CHECKING:
    from backend.checks.shape import Check, Finding
    from backend.settings import Settings

_COLUMNS: Final = {"state": _("state"), "name": _("name"), "detail": _("detail"), "cure": _("cure")}
_STATES: Final = {"ok": _("ok"), "warning": _("warning"), "failure": _("failure")}
NAMES: Final = {
    "state": _("state folder"),
    "disk": _("disk"),
    "owner": _("owner"),
    "socket": _("socket"),
    "registry": _("registry"),
    "keys": _("keys"),
    "users and groups": _("users and groups"),
    "admins": _("admins"),
    "runtime": _("runtime"),
    "limits": _("limits"),
    "daemon": _("daemon's socket"),
    "firewall": _("firewall"),
    "MLflow in use": _("MLflow in use"),
    "ports": _("ports"),
    "port to give": _("port to give"),
    "ports taken": _("ports taken"),
    "other hosts": _("other hosts"),
    "gateway": _("gateway"),
    "orphans": _("orphans"),
    "addresses": _("containers' addresses"),
    "service": _("service"),
}
"""What people read for a finding's name; any other name (nginx, a setting) is a word of its own."""


@click.command(help=_("Check that all is well: one line for each thing, with the cure where it is not. Exit status 1 if something fails."))
@click.option(
    "--remove-orphans", is_flag=True, help=_("Stop and remove whatever belongs to no server in the registry, databases included.")
)
@click.option("--yes", is_flag=True, help=_("With --remove-orphans: do not ask."))
@json_option
@click.pass_context
def check(context: click.Context, *, remove_orphans: bool, yes: bool, as_json: bool) -> None:
    from backend.checks.service import CHECKS

    settings = ready_settings(context)  # the settings themselves are checked by being read
    if remove_orphans:
        _remove_orphans(settings, yes=yes)
    findings = [finding for name, one in CHECKS for finding in _run(name, one, settings)]
    rows = [asdict(finding) for finding in findings]
    if not as_json:
        rows = [{**row, "state": _STATES[row["state"]], "name": NAMES.get(row["name"], row["name"])} for row in rows]
    show(rows, _COLUMNS, as_json=as_json)
    if any(finding.state == "failure" for finding in findings):
        context.exit(1)


def _remove_orphans(settings: Settings, *, yes: bool) -> None:
    """After an older registry was put back, every newer server is an orphan: so they are shown first."""
    from backend.checks.service import clear_orphans, look_for_orphans

    found = look_for_orphans(settings)
    if found:
        confirm(_("These belong to no server in the registry: {found}. Remove them for good, databases included", found=found), yes=yes)
        clear_orphans(settings, found, acting_admin())


def _run(name: str, one: Check, settings: Settings) -> Iterator[Finding]:
    """One check; what it could not even look at is a failure with its own words."""
    from backend.checks.shape import Finding
    from backend.cli.failures import sentence

    try:
        yield from one(settings)
    except Exception as error:
        told = sentence(error)
        if told is None:
            raise
        yield Finding(name=name, state="failure", detail=told)
