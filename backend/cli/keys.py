"""`aihub keys …`: the keys that encrypt secrets at rest."""

from __future__ import annotations

import click

from backend.cli.context import acting_admin, ready_settings
from backend.cli.language import _
from backend.cli.servers import ServerName


@click.group(
    help=_(
        """The service's keys: those that encrypt secrets at rest (STATE_DIR/keys.json; a backup without them opens nothing), and each
    server's ticket key.
    """
    )
)
def keys() -> None:
    pass


@keys.command(
    help=_(
        """Make a new key and encrypt every stored secret with it. The service may keep running.

    If it was interrupted, run it again: it then finishes what it began instead of making another key. The older keys stay in the file,
    since kept backups need them.
    """
    )
)
@click.pass_context
def rotate(context: click.Context) -> None:
    from backend.cli.owner import as_owner
    from backend.registry.keyring import Keyring
    from backend.serving.wiring import open_registry

    settings = ready_settings(context)
    with as_owner(settings.state_dir):
        keyring, registry = Keyring(settings.keys_file), open_registry(settings)
        if keyring.is_settled(registry):
            click.echo(_("key {key} made", key=keyring.rotate()))
        else:
            click.echo(_("key {key} is there already; what is still under an older key is now encrypted with it", key=keyring.newest))
        changed = keyring.reencrypt(registry)
        click.echo(_("{count} stored secrets encrypted with key {key}", count=changed, key=keyring.newest))


@keys.command(help=_("Give a server a new ticket key. It signs sign-in tickets and session cookies. The server goes on running."))
@click.argument("name", type=ServerName(), metavar="GROUP/ENV")
@click.option(
    "--at-once",
    is_flag=True,
    help=_("End every session of that server now; otherwise sessions under the previous key go on until they expire."),
)
@click.pass_context
def tickets(context: click.Context, *, name: tuple[str, str], at_once: bool) -> None:
    from backend.serving.wiring import make_service

    make_service(ready_settings(context)).access.rotate_ticket_key(acting_admin(), *name, at_once=at_once)
    click.echo(_("a new ticket key is made; the server has it within seconds"))
    if at_once:
        click.echo(_("all its sessions end then; to get in again, users press Open"))
