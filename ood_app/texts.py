"""Texts in the reader's language: English is the msgid, `locale/LANGUAGE/LC_MESSAGES/console.po` holds the others.

The page's scripts use the same catalogue; the page carries it as JSON.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from babel.messages.pofile import read_po
from flask import Request, g, session
from mlwf.i18n import language_among

from ood_app.settings import LANGUAGES

LOCALE: Final = Path(__file__).parent / "locale"
NAMES: Final = {"en": "English", "ja": "日本語"}


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """Msgid to text in `language`; empty for English, whose texts are the msgids."""
    if language == "en":
        return {}
    with (LOCALE / language / "LC_MESSAGES" / "console.po").open("rb") as file:
        entries = read_po(file, locale=language)
    return {str(entry.id): str(entry.string) for entry in entries if entry.id and entry.string and not entry.fuzzy}


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
