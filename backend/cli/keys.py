"""`aihub keys …`: the keys that encrypt secrets at rest."""

from __future__ import annotations

import click

from backend.cli.context import acting_admin, ready_settings
from backend.cli.servers import ServerName


@click.group()
def keys() -> None:
    """The service's keys: those that encrypt secrets at rest (STATE_DIR/keys.json; a backup without them opens nothing), and each server's
    ticket key.
    """


@keys.command()
@click.pass_context
def rotate(context: click.Context) -> None:
    """Make a newer key and encrypt every stored secret with it. The service may run meanwhile.

    Cut short, it is run again: then it finishes what it began instead of making another key. The older keys stay in the file, since kept
    backups need them.
    """
    from backend.cli.owner import as_owner
    from backend.keyring import Keyring
    from backend.wiring import open_registry

    settings = ready_settings(context)
    with as_owner(settings.state_dir):
        keyring, registry = Keyring(settings.keys_file), open_registry(settings)
        if keyring.is_settled(registry):
            click.echo(f"key {keyring.rotate()} made")
        else:
            click.echo(f"key {keyring.newest} is there already; what is still under an older one is encrypted anew")
        changed = keyring.reencrypt(registry)
        click.echo(f"{changed} stored secrets encrypted with key {keyring.newest}")


@keys.command()
@click.argument("name", type=ServerName(), metavar="GROUP/ENV_NAME")
@click.option(
    "--at-once", is_flag=True, help="End every session of that server now; else those under the key before go on until their time."
)
@click.pass_context
def tickets(context: click.Context, *, name: tuple[str, str], at_once: bool) -> None:
    """Give a server a new key for its sign-in tickets and session cookies. The server goes on running."""
    from backend.wiring import make_service

    make_service(ready_settings(context)).access.rotate_ticket_key(acting_admin(), *name, at_once=at_once)
    click.echo("a new ticket key is made; the server has it within seconds")
    if at_once:
        click.echo("every session of it ends then; whoever wants in presses Open again")
