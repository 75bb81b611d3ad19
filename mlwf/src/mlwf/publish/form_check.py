"""The rules of info.yaml. What a key means and whether it is required stands in `mlwf.info.FIELDS`."""

import datetime as dt
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlwf import info
from mlwf.i18n import _
from mlwf.info import Field
from mlwf.publish.form_file import FormFile

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
DATES = frozenset({"DateCreated", "DateModified", "DatePublished"})
URLS = frozenset({"URL", "ContentURL"})


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and the cure."""

    line: int
    key: str
    what: str
    cure: str

    def __str__(self) -> str:
        return _("info.yaml, line {line}: {key} {what}. {cure}").format(line=self.line, key=self.key, what=self.what, cure=self.cure)


def problems(form: FormFile) -> list[Problem]:
    """Everything that is wrong with a form, by line."""
    found = [*_unknown(form), *(problem for field in info.FIELDS if (problem := _field(form, field)))]
    return sorted(found, key=lambda each: each.line)


def _unknown(form: FormFile) -> Iterator[Problem]:
    known: dict[tuple[str, ...], list[str]] = {}
    for path in info.paths():
        known.setdefault(path[:-1], []).append(path[-1])
    for above, names in known.items():
        section = form.info if not above else info.value_at(form.info, above)
        for key in section if isinstance(section, Mapping) else ():
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                cure = _("Did you mean {name}?").format(name=near[0]) if near else _("Remove it, or put it into AdditionalInfo.")
                path = (*above, str(key))
                yield Problem(form.line(path), ".".join(path), _("is not a key of this form"), cure)


def _field(form: FormFile, field: Field) -> Problem | None:
    value = info.value_at(form.info, field.path)
    told = _shape(field, value) or _content(field, value) or _required(field, value)
    if told is None:
        return None
    return Problem(form.line(field.path), ".".join(field.path), *told)


def _shape(field: Field, value: Any) -> tuple[str, str] | None:
    if value is None or isinstance(value, {"text": str, "list": list, "map": Mapping}[field.kind]):
        return None
    if field.kind == "text" and isinstance(value, (dt.date, dt.datetime)) and field.path[-1] in DATES:
        return None
    if field.kind == "text":
        return _("is not text"), _("Write it in quotes.")
    if field.kind == "list":
        return _("is not a list"), _("Write each word in a line of its own that begins with '- '.")
    return _("has no keys below it"), _("Indent them by two spaces below it.")


def _content(field: Field, value: Any) -> tuple[str, str] | None:
    if field.kind == "list" and not all(isinstance(each, str) for each in value or ()):
        return _("contains something that is not text"), _("Write it in quotes.")
    name = field.path[-1]
    texts = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str) and each.strip()]
    if name in DATES and not all(map(_is_date, texts)):
        return _("is not a date of ISO 8601"), _("Write it as 2026-04-01, or 2026-04-01T12:00:00+09:00.")
    if name in URLS and field.kind != "map" and not all(map(_is_url, texts)):
        return _("is not a URL"), _("Write it with https:// at its beginning.")
    if name == "Email" and not all(map(EMAIL.fullmatch, texts)):
        return _("is not an e-mail address"), _("Write it as name@example.org.")
    return None


def _required(field: Field, value: Any) -> tuple[str, str] | None:
    if not field.required or info.filled(field, value):
        return None
    if field.minimum > 1 and isinstance(value, str) and value.strip():
        what = _("has {count} characters and needs at least {minimum}").format(count=len(value.strip()), minimum=field.minimum)
        return what, _("Say more about it.")
    return _("is required and empty"), _("Fill it: {meaning}.").format(meaning=_(field.meaning))


def _is_date(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    # An object's address is not encoded: its name may have spaces.
    spaced = parts.scheme != "s3" and any(mark.isspace() for mark in text)
    return parts.scheme in {"http", "https", "s3"} and bool(parts.netloc) and not spaced
