"""`aihub keys …`: the keys that encrypt secrets at rest."""

from __future__ import annotations

import click

from backend.cli.context import ready_settings


@click.group()
def keys() -> None:
    """The keys that encrypt secrets at rest. They are in STATE_DIR/keys.json; a backup without them opens nothing."""


@keys.command()
@click.pass_context
def rotate(context: click.Context) -> None:
    """Make a newer key and encrypt every stored secret with it. The service may run meanwhile.

    Cut short, it is run again: then it finishes what it began instead of making another key. The older keys stay in the file, since kept
    backups need them.
    """
    from backend.keyring import Keyring
    from backend.wiring import open_registry

    settings = ready_settings(context)
    keyring, registry = Keyring(settings.keys_file), open_registry(settings)
    if keyring.is_settled(registry):
        click.echo(f"key {keyring.rotate()} made")
    else:
        click.echo(f"key {keyring.newest} is there already; what is still under an older one is encrypted anew")
    changed = keyring.reencrypt(registry)
    click.echo(f"{changed} stored secrets encrypted with key {keyring.newest}")
