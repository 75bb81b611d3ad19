"""`aihub tokens …`: API tokens for users on hosts without MUNGE."""

from __future__ import annotations

from typing import Final

import click

from backend.api_tokens import MOST_DAYS, ApiTokens, state_of
from backend.cli.context import Row, acting_admin, json_option, ready_settings, show

_COLUMNS: Final = ("id", "user", "state", "expires_at", "used_at", "created_by", "note")


@click.group()
def tokens() -> None:
    """API tokens for users on hosts without MUNGE. Whoever has a token is that user: hand it over by a way that others cannot read."""


@tokens.command()
@click.option("--user", required=True, help="Who its holder is.")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, MOST_DAYS), help="How long it is good.")
@click.option("--note", default="", help="What it is for.")
@click.pass_context
def create(context: click.Context, *, user: str, days: int, note: str) -> None:
    """Make a token. It is written to standard output once and kept nowhere; the rest is said on standard error."""
    from backend.wiring import find_user

    holder = find_user(ready_settings(context), user)
    row, text = _tokens(context).create(user=holder, days=days, note=note[:255], by=acting_admin())
    click.echo(f"token {row.id} for {row.user}, good until {row.expires_at.isoformat(timespec='seconds')}", err=True)
    click.echo(text.reveal())


@tokens.command("list")
@click.option("--all", "all_", is_flag=True, help="With those that ran out or were revoked.")
@json_option
@click.pass_context
def list_(context: click.Context, *, all_: bool, as_json: bool) -> None:
    """The tokens, the newest first; never their texts."""
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


@tokens.command()
@click.argument("token_id", metavar="ID")
@click.pass_context
def revoke(context: click.Context, *, token_id: str) -> None:
    """Refuse a token from its next request on."""
    row = _tokens(context).revoke(token_id, by=acting_admin())
    click.echo(f"token {row.id} of {row.user} is revoked")


def _tokens(context: click.Context) -> ApiTokens:
    from backend.wiring import open_registry

    return ApiTokens(open_registry(ready_settings(context)))
