"""info.yaml, the registration form of a published model: its keys, what they mean, which a human must fill, and its writer.

`FIELDS` is the one table: the writer takes order and comments from it, and whoever checks a form takes the rules from it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mlwf.i18n import _

Info = dict[str, Any]
MIN_DESCRIPTION = 50
NUMBER = re.compile(r"0o[0-7_]+|[-+]?(\.[0-9_]+|[0-9_]+(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
"""To readers of YAML 1.2, as the check of a form is one. To PyYAML, whose YAML is older, some of these are texts that need no quotes."""


@dataclass(frozen=True)
class Field:
    """One key, as its path from the top. `kind`: text, list or map. `meaning` is a msgid. `minimum`: characters of a text."""

    path: tuple[str, ...]
    kind: str
    meaning: str
    required: bool = False
    minimum: int = 1


def N_(text: str) -> str:  # noqa: N802  # gettext's own name for "translate later"
    """Marks a msgid where it is written; `_` translates it where it is shown."""
    return text


FIELDS = (
    Field(("Name",), "text", N_("Name of the model"), required=True),
    Field(("Description",), "text", N_("What the model does, 50 characters at least"), required=True, minimum=MIN_DESCRIPTION),
    Field(("Keywords",), "list", N_("Words by which others find it, one at least"), required=True),
    Field(("UsageInfo",), "text", N_("How it is used (Markdown)")),
    Field(("Distribution",), "map", N_("Where the package can be had")),
    Field(("Distribution", "EncodingFormat"), "text", N_("Media type of the package")),
    Field(("Distribution", "ContentURL"), "list", N_("URLs of the published package; 'mlwf publish' fills them")),
    Field(("Creator",), "map", N_("Who made it")),
    Field(("Creator", "Name"), "text", N_("Person or organisation"), required=True),
    Field(("Creator", "URL"), "text", N_("Home page")),
    Field(("Creator", "ContactPoint"), "map", N_("One of Email and URL"), required=True),
    Field(("Creator", "ContactPoint", "Email"), "text", N_("Address for questions")),
    Field(("Creator", "ContactPoint", "URL"), "text", N_("Page for questions")),
    Field(("License",), "map", N_("Under which terms others may use it")),
    Field(("License", "Name"), "text", N_("Name of the licence, such as Apache-2.0 or CC-BY-4.0"), required=True),
    Field(("License", "URL"), "text", N_("Its text")),
    Field(("Version",), "text", N_("Version of the model")),
    Field(("DateCreated",), "text", N_("ISO 8601")),
    Field(("DateModified",), "text", N_("ISO 8601")),
    Field(("DatePublished",), "text", N_("ISO 8601")),
    Field(("Identifier",), "text", N_("DOI or another lasting identifier")),
    Field(("Citation",), "list", N_("Publications to cite")),
    Field(("AdditionalInfo",), "text", N_("Whatever else helps (Markdown)")),
)


def empty() -> Info:
    """A form with every key and no content."""
    info: Info = {}
    for field in FIELDS:
        put(info, field.path, {"text": "", "list": [], "map": {}}[field.kind])
    return info


def value_at(info: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What stands at a path; None where there is nothing."""
    value: Any = info
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def put(info: Info, path: tuple[str, ...], value: Any) -> None:
    """Writes a value to a path, all maps above which must be there."""
    for key in path[:-1]:
        info = info[key]
    info[path[-1]] = value


def missing(info: Mapping[str, Any]) -> list[Field]:
    """The required fields that a human must still fill, in order."""
    return [field for field in FIELDS if field.required and not filled(field, value_at(info, field.path))]


def filled(field: Field, value: Any) -> bool:
    """Whether a human has said something there; a text must have its minimum of characters."""
    if field.kind == "map":
        return isinstance(value, Mapping) and any(isinstance(each, str) and each.strip() for each in value.values())
    if field.kind == "list":
        return isinstance(value, list) and any(isinstance(each, str) and each.strip() for each in value)
    return isinstance(value, str) and len(value.strip()) >= field.minimum


def dump(info: Mapping[str, Any]) -> str:
    """The form as YAML with its comments; `yaml.safe_load` gives `clean(info)` back, whatever the texts hold."""
    lines = [f"# {_('Registration form of this model. Fill what is marked REQUIRED, then publish.')}"]
    open_fields = missing(info)
    for field in FIELDS:
        indent = "  " * (len(field.path) - 1)
        key = field.path[-1]
        note = _(field.meaning)
        if field.required:
            mark = _("REQUIRED, still to be filled") if field in open_fields else _("required")
            note = f"{note} ({mark})"
        if len(field.path) == 1:
            lines.append("")
        lines.append(f"{indent}# {note}")
        if field.kind == "map":
            lines.append(f"{indent}{key}:")
        else:
            content = {key: clean(value_at(info, field.path))}
            text = yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)
            lines.extend(f"{indent}{line}".rstrip(" ") if not line.strip() else f"{indent}{line}" for line in text.rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that Markdown stays readable."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Line ends that YAML would turn into newlines in a block; in double quotes they are escaped.
    # A block that keeps several newlines at its end would be followed by a document's end (`...`), in the middle of the form.
    odd = any(mark in text for mark in "\x85\u2028\u2029\r\ufeff") or text == "\n" or text.endswith("\n\n")
    style = '"' if odd else "|" if "\n" in text else "'" if NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def clean(value: Any) -> Any:
    """The value as it can be written: texts without lone surrogates, lists and maps likewise."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(each) for each in value]
    return value


def paths() -> Iterator[tuple[str, ...]]:
    """Those of all keys, in the form's order."""
    return (field.path for field in FIELDS)
