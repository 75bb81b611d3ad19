"""What the registry knows about a model version, as the registration form (info.yaml)."""

import datetime as dt
import json
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlwf import info
from mlwf.export.registry import ModelVersion
from mlwf.plain_yaml import ODD, NotPlainError, load

MAX_MLMODEL = 4 << 20
MAX_CELL = 500
MAX_TABLE = 128 << 10
"""Bytes. With two of them the form stays well below what publish takes."""
INTERNAL = "mlflow."
COMMA = re.compile("[,、\uff0c]")
PYTHON = re.compile(r"[0-9.]{1,20}")


@dataclass(frozen=True)
class Package:
    """The tarball that was made. `files` and `unpacked` (bytes) are those of the model."""

    size: int
    sha256: str
    files: int
    unpacked: int


def fill(found: ModelVersion, package: Package, mlmodel: bytes) -> info.Info:
    """The form with everything that is known. `mlmodel`: the content of the model's MLmodel file, empty where it has none.

    An MLmodel of which nothing can be said leaves its part empty: the export is worth more than its form.
    """
    try:
        return _filled(found, package, _mlmodel(mlmodel))
    except ODD:
        return _filled(found, package, {})


def _filled(found: ModelVersion, package: Package, described: Mapping[str, Any]) -> info.Info:
    tags = _tags(found.model) | _tags(found.version)
    form = info.empty()
    form["Name"] = found.name
    form["Description"] = _text(found.version.get("description")) or _text(found.model.get("description"))
    form["Keywords"] = _keywords(tags)
    form["UsageInfo"] = _usage(found, described)
    form["Distribution"]["EncodingFormat"] = "application/gzip"
    form["Creator"]["Name"] = _creator(found)
    form["License"]["Name"] = tags.get("license", "")
    form["Version"] = found.number
    form["DateCreated"] = iso_time(found.version.get("creation_timestamp"))
    form["DateModified"] = iso_time(found.version.get("last_updated_timestamp"))
    form["AdditionalInfo"] = _additional(found, package, described)
    return form


def iso_time(milliseconds: Any) -> str:
    """MLflow's time as ISO 8601 in UTC; empty for what is none."""
    try:
        moment = dt.datetime.fromtimestamp(int(milliseconds) / 1000, dt.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="seconds")


def _mlmodel(content: bytes) -> dict[str, Any]:
    """The MLmodel file; empty where it cannot be read, since a form without it is still of use."""
    if len(content) > MAX_MLMODEL:
        return {}
    try:
        loaded = load(content)
    except NotPlainError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _tags(holder: Mapping[str, Any]) -> dict[str, str]:
    return dict(_pairs(holder.get("tags")))


def _pairs(listed: Any) -> Iterable[tuple[str, str]]:
    """Key and value of MLflow's `[{key, value}]`, without what MLflow keeps for itself."""
    for each in listed if isinstance(listed, list) else []:
        key = _text(each.get("key")) if isinstance(each, dict) else ""
        if key and not key.startswith(INTERNAL):
            yield key, _text(each.get("value"))


def _keywords(tags: Mapping[str, str]) -> list[str]:
    words: list[str] = []
    for key, value in sorted(tags.items()):
        if key == "license":
            continue
        if key in {"keywords", "tags"}:
            words.extend(part.strip() for part in COMMA.split(value) if part.strip())
        else:
            words.append(key if value.lower() in {"", "true", "yes"} else f"{key}: {value}")
    return list(dict.fromkeys(" ".join(word.split()) for word in words))


def _creator(found: ModelVersion) -> str:
    made_by = _text(found.version.get("user_id")) or _text(_section(found.run, "info").get("user_id"))
    try:
        entry = pwd.getpwnam(made_by) if made_by else pwd.getpwuid(os.getuid())
    except (KeyError, ValueError):  # an account of another machine
        return made_by
    return entry.pw_gecos.split(",")[0].strip() or entry.pw_name


def _usage(found: ModelVersion, described: Mapping[str, Any]) -> str:
    flavors = described.get("flavors")
    python = _text(_section(_section(described, "flavors"), "python_function").get("python_version"))
    lines = [
        "Unpack `model.tar.gz` into a folder `model`, install what its `requirements.txt` names"
        + (f" under Python {python}" if PYTHON.fullmatch(python) else "")
        + ", then:",
        "",
        "```python",
        "import mlflow",
        'model = mlflow.pyfunc.load_model("model")',
        "```",
        "",
        "or serve it: `mlflow models serve -m model -p 1234 --env-manager local`.",
    ]
    if found.number and isinstance(flavors, dict) and "python_function" not in flavors:
        lines = [f"Unpack `model.tar.gz` and load it with MLflow's flavor: {', '.join(sorted(map(_text, flavors)))}."]
    return "\n".join(lines)


def _additional(found: ModelVersion, package: Package, described: Mapping[str, Any]) -> str:
    flavors, aliases = described.get("flavors"), found.version.get("aliases")
    facts = {
        "Registered model": f"{found.name}, version {found.number}",
        "Aliases": ", ".join(map(_text, aliases if isinstance(aliases, list) else ())),
        "Run id": _text(found.version.get("run_id")),
        "Model id": _text(_section(found.logged_model, "info").get("model_id")) or _text(found.version.get("model_id")),
        "MLflow version": _text(described.get("mlflow_version")),
        "Flavors": ", ".join(sorted(map(_text, flavors))) if isinstance(flavors, dict) else "",
        "model.tar.gz": f"{package.size} bytes",
        "SHA-256 of model.tar.gz": package.sha256,
        "Unpacked": f"{package.files} files, {package.unpacked} bytes",
    }
    parts = [_table("Package", [(name, value) for name, value in facts.items() if value])]
    run, logged = _section(found.run, "data"), _section(found.logged_model, "data")
    parts.append(_table("Metrics", _measures(run) | _measures(logged)))
    parts.append(_table("Parameters", dict(_pairs(run.get("params"))) | dict(_pairs(logged.get("params")))))
    parts.append(_signature(described.get("signature")))
    return "\n\n".join(part for part in parts if part)


def _section(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _measures(data: Mapping[str, Any]) -> dict[str, str]:
    listed = data.get("metrics")
    return {
        _text(each.get("key")): _text(each.get("value")) for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict)
    }


def _signature(signature: Any) -> str:
    if not isinstance(signature, dict):
        return ""
    parts = ["### Signature"]
    for name in ("inputs", "outputs", "params"):
        value = signature.get(name)
        if not value:
            continue
        parts.append(f"{name}:\n\n{_fenced(_as_json(value)[:20000])}")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _as_json(value: Any) -> str:
    """Of what MLflow keeps as JSON with every letter escaped that is not ASCII, such as a column's Japanese name: with the letter."""
    try:
        plain = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return str(value)
    return json.dumps(plain, default=str, skipkeys=True, ensure_ascii=False)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}json\n{text}\n{fence}"


def _table(title: str, rows: Mapping[str, str] | list[tuple[str, str]]) -> str:
    pairs = list(rows.items()) if isinstance(rows, Mapping) else rows
    if not pairs:
        return ""
    lines, size = [f"### {title}", "", "| | |", "|---|---|"], 0
    for number, (name, value) in enumerate(pairs):
        line = f"| {_cell(name)} | {_cell(value)} |"
        size += len(line.encode("utf-8", "replace"))
        if size > MAX_TABLE:
            lines.append(f"| … | and {len(pairs) - number} more |")
            break
        lines.append(line)
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text in a Markdown table: on one line, and without acting as Markdown or HTML."""
    line = " ".join(text[:MAX_CELL].split())
    for mark, shown in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("`", "\\`"),
        ("*", "\\*"),
        ("[", "\\["),
        ("_", "\\_"),
    ):
        line = line.replace(mark, shown)
    return line


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value) if isinstance(value, (int, float)) else ""
