"""`init`, `serve`, `settings`, `openapi`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from backend.cli.context import file_of, json_option, ready_settings, settings_of
from backend.cli.language import _

if TYPE_CHECKING:
    from backend.settings import Settings


@click.command(
    help=_(
        """Make what the settings name: the state folder (0700), a first encryption key, the registry with its newest schema.

    Run it as the service's account, and again after each upgrade. What is there already is kept. If root runs it, what it makes belongs
    to the account that owns the state folder.
    """
    )
)
@click.pass_context
def init(context: click.Context) -> None:
    from backend.cli.owner import as_owner
    from backend.serving.wiring import make_runtime

    settings = settings_of(context)
    make_runtime(settings)  # says now what `aihub serve` would refuse
    with as_owner(settings.state_dir):
        _make_state(settings)


def _make_state(settings: Settings) -> None:
    from backend.registry.keyring import Keyring
    from backend.serving.wiring import open_registry

    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.state_dir.chmod(0o700)
    for folder in (settings.run_dir, settings.servers_dir, *settings.copies_dirs):
        folder.mkdir(exist_ok=True, mode=0o700)
    keyring, registry = Keyring(settings.keys_file), open_registry(settings)
    before = registry.revision() if registry.path is None or registry.path.exists() else None
    if before is not None:
        keyring.refuse_loss(registry)
    made = keyring.create()
    registry.migrate()
    after = registry.revision()
    registry.close()
    click.echo(_("state     {path} (of uid {uid})", path=settings.state_dir, uid=settings.state_dir.stat().st_uid))
    click.echo(_("keys      {path} (made)", path=settings.keys_file) if made else _("keys      {path}", path=settings.keys_file))
    if before == after:
        click.echo(_("registry  revision {now}", now=after))
    elif before:
        click.echo(_("registry  revision {now} (was {before})", now=after, before=before))
    else:
        click.echo(_("registry  revision {now} (made)", now=after))


@click.command(
    help=_(
        """Run the service in the foreground: the API on its listeners (web), and the reconciler.

    Logs go to standard error, a line each. SIGTERM or Ctrl-C ends it within seconds; tracking servers go on running. systemd: see
    deploy/systemd (Type=notify; KillMode=process, since any other would end the tracking servers of the process runtime too).
    """
    )
)
@click.option(
    "--part",
    type=click.Choice(["all", "web", "reconciler"]),
    default="all",
    show_default=True,
    help=_("Run only the part that answers (web), or the part that acts (reconciler)."),
)
@click.pass_context
def serve(context: click.Context, *, part: str) -> None:
    from backend.cli.failures import CommandError
    from backend.registry.database import Registry
    from backend.registry.keyring import Keyring
    from backend.serving.supervisor import become
    from backend.serving.wiring import make_runtime, open_registry

    settings = ready_settings(context)
    owner = settings.state_dir.stat().st_uid
    if os.geteuid() != owner:
        raise CommandError(
            _("{path} belongs to uid {uid}, not to this account; run `aihub serve` as that account", path=settings.state_dir, uid=owner)
        )
    make_runtime(settings)
    _key = Keyring(settings.keys_file).newest  # the keys can be used
    registry = open_registry(settings)
    revision = None
    if registry.path is None or registry.path.exists():
        registry.refuse_newer()
        revision = registry.revision()
    registry.close()
    if revision != Registry.newest_revision():
        needed = Registry.newest_revision()
        raise CommandError(
            _("the registry has revision {now}, and this version needs {needed}; run `aihub init`", now=revision, needed=needed)
        )
    become(file_of(context), part)


@click.command(help=_("The settings in force, each with its value."))
@click.option("--markdown", is_flag=True, help=_("The table of all settings, as in docs/reference/settings.md."))
@json_option
@click.pass_context
def settings(context: click.Context, *, markdown: bool, as_json: bool) -> None:
    from backend.settings_table import in_force, markdown_table

    if markdown:
        click.echo(markdown_table(), nl=False)
        return
    values = in_force(settings_of(context))
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        click.echo(f"{name}: {json.dumps(value)}")


@click.command(help=_("The API's OpenAPI 3.1 document, as the service gives it at /api/v1/openapi.json."))
def openapi() -> None:
    from backend.api.app import bare_app

    click.echo(json.dumps(bare_app().api_doc, ensure_ascii=False, indent=2))
