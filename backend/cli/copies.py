"""`aihub backup` and `aihub restore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from backend.cli.context import ready_settings, settings_of
from backend.cli.language import _


@click.command(
    help=_(
        """Copy registry, keys and every server's database into DIRECTORY, which must not exist yet, while everything runs.

    It contains the keys, so whoever has it has the secrets: guard it as you guard those. Objects in buckets are not in it. If a database
    cannot be copied, everything else still is, and the exit status is 1.
    """
    )
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def backup(context: click.Context, *, directory: Path) -> None:
    from backend.backup.make import backup as make
    from backend.cli.failures import CommandError
    from backend.serving.wiring import make_keeper, open_registry

    settings = ready_settings(context)
    manifest = make(open_registry(settings), settings, directory.absolute(), make_keeper(settings))
    size = sum(facts["size"] for facts in manifest["files"].values())
    click.echo(_("{path}: {count} files, {size} bytes", path=directory, count=len(manifest["files"]), size=size))
    if manifest["failures"]:
        told = _(
            "the backup is made, but these databases could not be copied; it has at most their files as they were, below damaged/: "
            "{servers}; keep the last backup that has them, and put them back from it or delete the servers with `aihub servers delete "
            "--damaged`",
            servers=_named(manifest["failures"]),
        )
        raise CommandError(told)


def _named(failures: Sequence[dict[str, str]]) -> str:
    return ", ".join(f"{each['group']}/{each['env_name']} {each['id']} ({each['why']})" for each in failures)


@click.command(
    help=_(
        """Put the backup in DIRECTORY back into the settings' state_dir, on a machine that has none yet.

    Run `aihub init` and `aihub check` afterwards; `aihub serve` then starts the servers that should be running. If root runs it, the
    files belong to the account that owns state_dir.
    """
    )
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.pass_context
def restore(context: click.Context, *, directory: Path) -> None:
    from backend.backup.restore import restore_backup
    from backend.cli.owner import give_to_owner
    from backend.serving.wiring import open_registry

    settings = settings_of(context)
    registry = open_registry(settings).path
    made = [] if registry is None else [path for path in (*registry.parents, registry) if not path.exists()]
    manifest = restore_backup(directory.absolute(), settings)
    give_to_owner(settings.state_dir, made)
    told = _(
        "{path}: {count} files put back; run `aihub init`, `aihub check`, then `aihub serve`",
        path=settings.state_dir,
        count=len(manifest["files"]),
    )
    click.echo(told)
    if manifest.get("failures"):
        click.echo(_("their databases are as damaged as they were: {servers}", servers=_named(manifest["failures"])), err=True)
