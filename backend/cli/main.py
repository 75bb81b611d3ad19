"""The command itself: its groups, and how failures end it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
from mlwf.streams import print_anything

from backend.cli.language import _

# Each command's module is imported when it is used or its own help is asked for.
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("backend.cli.setup", _("make the state: folder, keys, registry")),
    "serve": ("backend.cli.setup", _("run the service in the foreground")),
    "firewall": ("backend.cli.firewall", _("what the servers' containers may reach: print the rules, or put them in force")),
    "check": ("backend.cli.checks", _("check that all is well, and say what to do where it is not")),
    "servers": ("backend.cli.servers", _("list, show, start, stop, upgrade, rollback, resize, delete, restore, purge")),
    "operations": ("backend.cli.records", _("what was asked for and what became of it")),
    "audit": ("backend.cli.records", _("who asked for what")),
    "tokens": ("backend.cli.tokens", _("API tokens for users on hosts without MUNGE")),
    "keys": ("backend.cli.keys", _("the keys that encrypt secrets at rest, and the servers' ticket keys")),
    "backup": ("backend.cli.copies", _("copy registry, keys and every database while everything runs")),
    "restore": ("backend.cli.copies", _("put a backup back on an empty machine")),
    "settings": ("backend.cli.setup", _("the settings in force, or the table of all")),
    "openapi": ("backend.cli.setup", _("the API's OpenAPI document")),
}
_ALIASES: Final = {"server": "servers", "token": "tokens"}
"""As `mlwf` calls its groups; in no help."""
_HELP: Final = _(
    """Self-service MLflow tracking servers: the command for admins.

\b
To start for the first time:
  aihub init          make what the settings name
  aihub check         check that all is well
  aihub serve         run it (systemd does the same)

Settings are read from the file that AIHUB_SETTINGS names (default /etc/aihub/settings.yml), or --settings. Run it as the service's
account or as root. Every listing takes --json. Exit status: 0 success, 1 failure, 2 wrong use.
"""
)


class Lazy(click.Group):
    """A group that imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the order of a first use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """The command of that name."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        """Without importing any."""
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, about) for name, (_module, about) in _COMMANDS.items()])


@click.group(cls=Lazy, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--settings", "file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help=_("The settings' file."))
@click.version_option(package_name="aihub")
@click.pass_context
def aihub(context: click.Context, file: Path | None) -> None:
    context.obj = file


def main() -> None:
    """The entry point."""
    print_anything()
    try:
        aihub(prog_name="aihub")
    except Exception as error:  # noqa: BLE001 (the last place that can tell it in one sentence; what nobody foresaw is raised again)
        for line in _told(error):
            click.echo(f"aihub: {line}", err=True)
        sys.exit(1)


def _told(error: Exception) -> list[str]:
    """The sentences for a failure that has some; what nobody foresaw goes on as a traceback."""
    problems: Any = getattr(error, "problems", None)
    if problems:
        return [str(problem) for problem in problems]
    from backend.cli.failures import sentence

    known = sentence(error)
    if known is None:
        raise error
    return [known]
