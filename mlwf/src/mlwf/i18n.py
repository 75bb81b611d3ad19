"""Texts in the reader's language: English is the msgid, other languages are `locale/LANGUAGE.po`, read when first needed.

The catalogues are read as they stand in the source, so that nothing has to be compiled when the package is built.
"""

import ast
import contextlib
import contextvars
import functools
import gettext
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from mlwf.settings import environment

LANGUAGES = ("en", "ja")
_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("mlwf_language", default=None)


def language_of(environ: Mapping[str, str]) -> str:
    """The language that `LANGUAGE`, `LC_ALL`, `LC_MESSAGES` or `LANG` asks for (the first that is set), `en` where we have no texts."""
    asked = next(filter(None, map(environ.get, ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return language_among((part.split(".")[0].replace("_", "-"), 1) for part in asked.split(":"))


def language_among(asked: Iterable[tuple[str, float]]) -> str:
    """The first that we have texts in of the languages that a reader names (`ja-JP`, the most wanted first), `en` where there is none. With
    each stands how much it is wanted (0: not at all): what werkzeug makes of Accept-Language. Its own `best_match` does not count `ja-JP`
    as `ja`.
    """
    wanted = (tag.partition("-")[0].lower() for tag, quality in asked if quality > 0)
    return next((language for language in wanted if language in LANGUAGES), "en")


def current_language() -> str:
    return _chosen.get() or language_of(environment())


@contextlib.contextmanager
def use_language(language: str | None) -> Iterator[None]:
    """Texts made inside are in `language` (a page's reader, say) instead of the environment's; `None` changes nothing."""
    token = _chosen.set(language if language in LANGUAGES else _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)


def translate_click() -> None:
    """Usage errors and the words of --help: what click says by itself it asks of the standard library's default domain."""
    gettext.bindtextdomain("messages", str(resources.files("mlwf").joinpath("locale/click")))


def _(text: str) -> str:
    """`text` in the current language; the English text itself where there is no other."""
    return catalogue(current_language()).get(text) or text


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """Msgid to msgstr of a language; empty for English."""
    if language == "en":
        return {}
    return parse_po(resources.files("mlwf").joinpath(f"locale/{language}.po").read_text("utf-8"))


def parse_po(text: str) -> dict[str, str]:
    """The entries of a PO file without plurals and contexts (we use neither). Raises ValueError for a line it does not know."""
    entries: dict[str, str] = {}
    parts = {"msgid": "", "msgstr": ""}
    field = "msgid"
    for number, raw in enumerate([*text.splitlines(), 'msgid ""'], 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith(("msgid ", "msgstr ")):
            name, _space, line = line.partition(" ")
            if name == "msgid" and field == "msgstr":
                entries[parts["msgid"]] = parts["msgstr"]
            field = name
            parts[field] = ""
        if not line.startswith('"'):
            raise ValueError(f"line {number} of the catalogue is neither msgid, msgstr nor text: {raw!r}")
        parts[field] += str(ast.literal_eval(line))
    entries.pop("", None)
    return entries
