"""Texts in the reader's language. English is the msgid; other languages are gettext catalogues, read once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LANGUAGES: Final = ("en", "ja")
LOCALE: Final = Path(__file__).parent / "locale"


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """Msgid to text of a language; empty for English. Read from the ``.po`` file itself, so that nothing has to be compiled."""
    if language not in LANGUAGES or language == "en":
        return {}
    from babel.messages.pofile import read_po

    with (LOCALE / language / "LC_MESSAGES" / "aihub.po").open("rb") as file:
        found = read_po(file, locale=language, abort_invalid=True)
    return {str(message.id): str(message.string) for message in found if message.id and message.string and not message.fuzzy}


def translate(text: str, language: str) -> str:
    """``text`` in that language; the English text itself where there is no other."""
    return catalogue(language).get(text, text)


def fill(template: str, language: str, params: Mapping[str, object]) -> str:
    """The translated template with its ``{names}`` filled. A parameter that is itself a text of the catalogue is translated too (a reason
    why, an action); a missing one stays as it stands.
    """
    shown = {name: translate(value, language) if isinstance(value, str) else value for name, value in params.items()}
    return translate(template, language).format_map(_Given(shown))


class _Given(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"
