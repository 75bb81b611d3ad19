"""Texts in the reader's language: English is the msgid, `locale/LANGUAGE/LC_MESSAGES/console.po` holds the others.

The page's scripts use the same catalogue; the page carries it as JSON.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from flask import Request, g, session
from mlwf.i18n import language_among, parse_po

from ood_app.settings import LANGUAGES

LOCALE: Final = Path(__file__).parent / "locale"
NAMES: Final = {"en": "English", "ja": "日本語"}


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """Msgid to text in `language`; empty for English, whose texts are the msgids."""
    if language == "en":
        return {}
    entries = parse_po((LOCALE / language / "LC_MESSAGES" / "console.po").read_text("utf-8"))
    return {msgid: text for msgid, text in entries.items() if text}


def choose(request: Request, default: str) -> str:
    """The language to answer in: what the reader chose, else the site's choice, else what the browser asks for."""
    chosen = session.get("language")
    if chosen in LANGUAGES:
        return str(chosen)
    return default or language_among(request.accept_languages)


def translate(text: str, **values: object) -> str:
    """`text` in the language of the request, its `{names}` filled in."""
    found = catalogue(g.get("language", "en")).get(text, text)
    return found.format_map(values) if values else found


_ = translate
