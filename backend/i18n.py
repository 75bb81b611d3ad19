"""Texts in the reader's language. English is the msgid; other languages are gettext catalogues, read once.

A request names its language. The command's is said once (``speak``), and ``_`` is in it; the service's own processes never say one, so that
their logs are in English.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Self

from mlwf.i18n import parse_po

LANGUAGES: Final = ("en", "ja")
LOCALE: Final = Path(__file__).parent / "locale"
TEXTS: Final = frozenset({"action", "kind", "now", "what", "who", "why"})
"""Parameters that may be texts of the catalogue themselves. Any other is shown as it is, such as a group that is called ``users``."""
_spoken: ContextVar[str] = ContextVar("spoken", default="en")


def speak(language: str) -> None:
    """From now on ``_`` answers in that language."""
    _spoken.set(language)


def spoken() -> str:
    """The language that ``_`` answers in."""
    return _spoken.get()


def _(text: str, **params: object) -> str:
    """``text`` in the language that is spoken, its ``{names}`` filled. The text must stand in the call as it is, to be found."""
    return fill(text, _spoken.get(), params)


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """Msgid to text of a language; empty for English. Read from the ``.po`` file itself, so that nothing has to be compiled."""
    if language not in LANGUAGES or language == "en":
        return {}
    return parse_po((LOCALE / language / "LC_MESSAGES" / "aihub.po").read_text("utf-8"))


def translate(text: str, language: str) -> str:
    """``text`` in that language; the English text itself where there is no other."""
    return catalogue(language).get(text, text)


class Told(str):
    """A text of the catalogue with ``{names}``, as a parameter of another: filled in English by itself, in the reader's language where the
    other is shown. What is no text of ours, such as another program's last line, is a plain ``str``.
    """

    __slots__ = ("params", "template")
    params: Mapping[str, object]
    template: str

    def __new__(cls, template: str, **params: object) -> Self:
        told = super().__new__(cls, template.format_map(params))
        told.template, told.params = template, params
        return told


def stored(value: object) -> Any:
    """A parameter as JSON keeps it; ``fill`` knows it again."""
    if isinstance(value, Told):
        return {"template": value.template, "params": {name: stored(each) for name, each in value.params.items()}}
    return value if isinstance(value, int | float) else str(value)


def fill(template: str, language: str, params: Mapping[str, object]) -> str:
    """The translated template with its ``{names}`` filled. A parameter of ``TEXTS`` is translated too, where the catalogue has it; a
    missing one stays as it stands.
    """
    shown = {name: _shown(value, language) if name in TEXTS else value for name, value in params.items()}
    return translate(template, language).format_map(_Given(shown))


def _shown(value: object, language: str) -> object:
    if isinstance(value, Told):
        return fill(value.template, language, value.params)
    if isinstance(value, Mapping):  # as it was stored
        return fill(value["template"], language, value["params"])
    return translate(value, language) if isinstance(value, str) else value


class _Given(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"
