"""The guard's own pages, for people whom a browser brought: sign-in, sign-out, and why not. English or Japanese, as the browser asks.

Both languages stand here side by side: a catalogue and what reads it would be paid for by every sleeping server.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import NamedTuple

from tracking_server.guard.http import Response

HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),  # with none at all, a form's Origin would be "null"
    ("Vary", "Accept-Language"),
)


class Text(NamedTuple):
    en: str
    ja: str


_AGAIN = Text("Press Open in the console again.", "コンソールでもう一度 Open を押してください。")
_TITLE = Text("MLflow tracking server", "MLflow トラッキングサーバ")
_SIGNED_IN = Text("You are signed in as {user}, until {until} UTC.", "{user} としてサインインしています(UTC {until} まで)。")
_TO_MLFLOW = Text("To MLflow", "MLflow へ")
_SIGN_OUT = Text("Sign out", "サインアウト")
_CONSOLE = Text("To the console", "コンソールへ")

PROBLEMS: dict[str, tuple[int, Text, Text]] = {
    "unknown": (
        401,
        Text("You are not signed in to this server, or no longer.", "このサーバにサインインしていないか、期限が切れました。"),
        Text("Press Open in the console: it signs you in.", "コンソールで Open を押すとサインインします。"),
    ),
    "closed": (
        401,
        Text(
            "No user is registered for this server yet, and until then it lets nobody in.",
            "このサーバにはまだユーザが登録されていないため、誰も入れません。",
        ),
        Text(
            "Press Auth Info Registration in the console first, then Open.",
            "先にコンソールで Auth Info Registration を押し、それから Open を押してください。",
        ),
    ),
    "no_ticket": (
        400,
        Text("The request brought no ticket, so nobody was signed in.", "チケットがないため、サインインしませんでした。"),
        _AGAIN,
    ),
    "not_ours": (403, Text("The ticket was not made for this server.", "このサーバのチケットではありません。"), _AGAIN),
    "used": (403, Text("The ticket was used already.", "このチケットは使用済みです。"), _AGAIN),
    "too_old": (403, Text("The ticket is too old: it lives for seconds.", "チケットの期限(数十秒)が切れています。"), _AGAIN),
    "clock": (
        403,
        Text(
            "The ticket comes from the future: the clocks of the service's and the server's host differ.",
            "チケットが未来のものです。サービスとサーバのホストの時計がずれています。",
        ),
        Text("Tell the admins to set the clocks.", "時計を合わせるよう管理者に伝えてください。"),
    ),
    "revoked": (
        403,
        Text(
            "{user} is no longer a member of this server's group.",
            "{user} はこのサーバのグループのメンバーではなくなりました。",
        ),
        Text(
            "Ask the group's manager; then press Open in the console again.",
            "グループの管理者に確認してから、もう一度 Open を押してください。",
        ),
    ),
    "other_user": (
        403,
        Text(
            "The portal knows you as {portal_user}, but the ticket is for {user}.",
            "ポータルでは {portal_user} ですが、チケットは {user} のものです。",
        ),
        Text(
            "Log in to the portal as one of the two, then press Open in the console again.",
            "どちらか一方でポータルにログインし直し、もう一度 Open を押してください。",
        ),
    ),
    "foreign_origin": (
        403,
        Text(
            "The request came from a page of {origin}, which is not this server's portal.",
            "要求が、このサーバのポータルではない {origin} のページから来ました。",
        ),
        Text(
            "Use the console in the portal; if this was it, the admins must set portal_url (or console_url) to its address.",
            "ポータルのコンソールを使ってください。使っていた場合は、管理者に portal_url(または console_url)の設定を頼んでください。",
        ),
    ),
    "plain_http": (
        403,
        Text(
            "The portal {origin} is reached by plain http, where a sign-in could be read by others.",
            "ポータル {origin} は平文の http なので、サインインを他人に読まれるおそれがあります。",
        ),
        Text("Tell the admins: the portal needs https.", "ポータルには https が必要だと管理者に伝えてください。"),
    ),
    "no_room": (
        507,
        Text(
            "The server's disk is full, so nobody can sign in or out.",
            "サーバのディスクがいっぱいで、サインインもサインアウトもできません。",
        ),
        Text("Tell the admins.", "管理者に伝えてください。"),
    ),
}
"""By code: status; what and why; the cure."""

_PAGE = """\
<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body{{font:1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}button{{font:inherit}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def problem_page(code: str, values: Mapping[str, str], *, languages: str, console_url: str | None) -> Response:
    """Why somebody is not let in, with the cure."""
    status, what, cure = PROBLEMS[code]
    language = _language(languages)
    said = [f"<p>{_said(text, language, values)}</p>" for text in (what, cure)]
    return _page(status, language, "\n".join([*said, *_link(console_url, _CONSOLE, language)]))


def session_page(user: str, until: float, *, languages: str, console_url: str | None) -> Response:
    """Who is signed in, with the way out."""
    language = _language(languages)
    ends = time.strftime("%Y-%m-%d %H:%M", time.gmtime(until))
    lines = [
        f"<p>{_said(_SIGNED_IN, language, {'user': user, 'until': ends})}</p>",
        *_link("../", _TO_MLFLOW, language),
        f'<form method="post" action="sign-out"><button>{_said(_SIGN_OUT, language, {})}</button></form>',
        *_link(console_url, _CONSOLE, language),
    ]
    return _page(200, language, "\n".join(lines))


def _page(status: int, language: str, body: str) -> Response:
    return Response(status, _PAGE.format(language=language, title=_said(_TITLE, language, {}), body=body).encode(), HEADERS)


def _link(address: str | None, text: Text, language: str) -> list[str]:
    return [f'<p><a href="{html.escape(address)}">{_said(text, language, {})}</a></p>'] if address else []


def _said(text: Text, language: str, values: Mapping[str, str]) -> str:
    return html.escape(getattr(text, language)).format_map({name: html.escape(value) for name, value in values.items()})


def _language(languages: str) -> str:
    """The first of the browser's languages that we have."""
    for part in languages.lower().split(","):
        primary = part.partition(";")[0].strip().partition("-")[0]
        if primary in ("en", "ja"):
            return primary
    return "en"
