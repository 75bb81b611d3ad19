"""What commands share: the settings of this run, and tables that are JSON where that is asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from backend.cli.language import _
from backend.settings import Settings, settings_file
from backend.settings_file import load

if TYPE_CHECKING:
    from backend.domain import Caller

F = TypeVar("F", bound=Callable[..., Any])
Row = dict[str, Any]
_UNLIMITED: Final = 10_000
"""Columns, where nobody sees them: in a pipe each row is one line."""
_TOGETHER: Final = 100
"""Rows that are written as JSON at once."""


def file_of(context: click.Context) -> Path:
    """The settings' file of this run."""
    return context.find_root().obj or settings_file()


def settings_of(context: click.Context) -> Settings:
    """The settings of this run. Error: ``SettingsError``."""
    return load(file_of(context))


def ready_settings(context: click.Context) -> Settings:
    """The settings, where ``aihub init`` has been run and this account may use the state."""
    from backend.cli.failures import CommandError

    settings = settings_of(context)
    try:
        owner = settings.state_dir.stat().st_uid
    except FileNotFoundError:
        raise CommandError(_("there is no {path} yet; run `aihub init` first", path=settings.state_dir)) from None
    if os.geteuid() not in {0, owner}:
        raise CommandError(_("{path} belongs to uid {uid}; run this as that account or as root", path=settings.state_dir, uid=owner))
    return settings


def acting_admin() -> Caller:
    """Who has the registry's files in hand is an admin, whatever NSS says."""
    import pwd

    from backend.domain import Caller

    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Caller(user=user, uid=uid, groups=(), admin=True, scheme="cli")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes``; go on only after a yes. Where nobody can be asked it is wrong use."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise click.UsageError(_("{question}? There is nobody here to answer; add --yes", question=question)) from None
    if not agreed:
        raise click.Abort


def json_option(command: F) -> F:
    """``--json`` for a listing."""
    return click.option("--json", "as_json", is_flag=True, help=_("As JSON, for scripts."))(command)


def show(rows: Iterable[Row], columns: Mapping[str, str], *, as_json: bool) -> None:
    """A table of these columns (a row's key: the heading); as JSON everything that the rows hold."""
    if as_json:
        _write_json(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if row.get(column) is None else str(row[column])) for column in columns))
    Console(width=None if sys.stdout.isatty() else _UNLIMITED).print(table)
    if not rows:
        click.echo(_("none"))


def _write_json(rows: Iterable[Row]) -> None:
    """As ``json.dumps`` has the whole list, but some rows at a time: all lines of an audit may be more than the host's memory, and each by
    itself takes half as long again.
    """
    before, left = "[\n", iter(rows)
    while some := list(islice(left, _TOGETHER)):
        sys.stdout.write(before + json.dumps(some, ensure_ascii=False, indent=2)[2:-2])  # without the list's own brackets
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")
