"""`aihub tokens …`: API tokens for users on hosts without MUNGE."""

from __future__ import annotations

from typing import Final

import click

from backend.cli.context import Row, acting_admin, json_option, ready_settings, show
from backend.cli.language import _
from backend.wishes.api_tokens import MOST_DAYS, ApiTokens, state_of

_COLUMNS: Final = {
    "id": "id",
    "user": _("user"),
    "state": _("state"),
    "expires_at": _("valid until"),
    "used_at": _("last used"),
    "created_by": _("created by"),
    "note": _("note"),
}


@click.group(
    help=_(
        "API tokens for users on hosts without MUNGE. Whoever has a token can act as that user: hand it over in a way that nobody "
        "else can read."
    )
)
def tokens() -> None:
    pass


@tokens.command(help=_("Make a token. It is written once to standard output and stored nowhere; everything else goes to standard error."))
@click.option("--user", required=True, help=_("The user whom the token stands for."))
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, MOST_DAYS), help=_("How many days it is valid."))
@click.option("--note", default="", help=_("What it is for."))
@click.pass_context
def create(context: click.Context, *, user: str, days: int, note: str) -> None:
    from backend.serving.wiring import find_user

    holder = find_user(ready_settings(context), user)
    row, text = _tokens(context).create(user=holder, days=days, note=note[:255], by=acting_admin())
    until = row.expires_at.isoformat(timespec="seconds")
    click.echo(_("token {id} for {user}, valid until {until}", id=row.id, user=row.user, until=until), err=True)
    click.echo(text.reveal())


@tokens.command("list", help=_("List the tokens, the newest first, without their texts."))
@click.option("--all", "all_", is_flag=True, help=_("Also tokens that have expired or were revoked."))
@json_option
@click.pass_context
def list_(context: click.Context, *, all_: bool, as_json: bool) -> None:
    from backend.registry.models import now

    rows: list[Row] = [
        {
            "id": row.id,
            "user": row.user,
            "uid": row.uid,
            "state": state_of(row, now()),
            "created_at": row.created_at.isoformat(timespec="seconds"),
            "expires_at": row.expires_at.isoformat(timespec="seconds"),
            "used_at": row.used_at.isoformat(timespec="minutes") if row.used_at else None,
            "created_by": row.created_by,
            "note": row.note,
        }
        for row in _tokens(context).list(all_=all_)
    ]
    show(rows, _COLUMNS, as_json=as_json)


@tokens.command(help=_("Revoke a token: it is refused from the next request on."))
@click.argument("token_id", metavar="ID")
@click.pass_context
def revoke(context: click.Context, *, token_id: str) -> None:
    row = _tokens(context).revoke(token_id, by=acting_admin())
    click.echo(_("token {id} of {user} is revoked", id=row.id, user=row.user))


def _tokens(context: click.Context) -> ApiTokens:
    from backend.serving.wiring import open_registry

    return ApiTokens(open_registry(ready_settings(context)))
