"""Reads the settings' YAML file and says of every mistake where it is, why it is one, and the cure."""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from backend import listeners, sizes
from backend.domain import SizeClass
from backend.i18n import _
from backend.settings import ENVIRONMENT_NAME, Settings, SettingsError, settings_file

EPHEMERAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
SITE_PART: Final = "service"
SITE_PARTS: Final = (SITE_PART, "console", "batch_connect")
"""The parts of a site's file (deploy/site.yml.example)."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_NOT_IN_URLS: Final = "#?%"
"""SQLAlchemy and MLflow read them in `sqlite:///PATH` as the end of the path or as a letter's code."""
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


class _WrongError(ValueError):
    """Why a value is refused, with the cure."""


def load(path: Path | None = None) -> Settings:
    """Read the settings from ``path`` (default: ``settings_file()``). Error: ``SettingsError`` with every problem found."""
    path = path or settings_file()
    found = _parse(path)
    known = {row.name: row for row in fields(Settings)}
    types = typing.get_type_hints(Settings)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, (line, value) in found.items():
        if name not in known:
            problems.append(_at(path, line, f"{name} {_did_you_mean(name, known)}"))
            continue
        try:
            values[name] = _converted(known[name], types[name], value)
        except _WrongError as error:
            problems.append(_at(path, line, f"{name} {error}"))
    if not problems:
        settings = Settings(**values)
        problems = [_at(path, found[name][0] if name in found else None, f"{name} {why}") for name, why in _together(settings)]
    if problems:
        raise SettingsError(problems)
    return settings


def _parse(path: Path) -> dict[str, tuple[int, Any]]:
    """Name to line and value. The file is parsed to nodes first, since only these know their lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        told = _("there is no such file; write it, or name another one in {variable}", variable=ENVIRONMENT_NAME)
        raise _mistake(path, None, told) from None
    except (OSError, UnicodeDecodeError) as error:
        told = _("it cannot be read ({why}); let the service's account read it, as UTF-8", why=str(error))
        raise _mistake(path, None, told) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise _mistake(path, node.start_mark.line + 1, _("the file must consist of `name: value` lines; write it so"))
        return _entries(path, *_part(path, node, yaml.safe_load(text)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        told = _("not valid YAML ({why}); correct that line", why=str(getattr(error, "problem", error)))
        raise _mistake(path, mark.line + 1 if mark else None, told) from None


def _part(path: Path, node: yaml.MappingNode, values: Mapping[Any, Any]) -> tuple[yaml.MappingNode, Mapping[Any, Any]]:
    """The service's part of a site's file, whose other parts are the portal's business; a file without parts is the service's alone."""
    if SITE_PART not in values:
        return node, values
    for key, value in node.value:
        if key.value not in SITE_PARTS:
            told = _(
                "{name} is not a part of a site's file ({parts}); put it into one of them", name=key.value, parts=", ".join(SITE_PARTS)
            )
            raise _mistake(path, key.start_mark.line + 1, told)
        if key.value == SITE_PART and not isinstance(value, yaml.MappingNode):
            raise _mistake(path, value.start_mark.line + 1, _("{name} must hold `name: value` lines; write it so", name=SITE_PART))
    return next(value for key, value in node.value if key.value == SITE_PART), values[SITE_PART]


def _entries(path: Path, node: yaml.MappingNode, values: Mapping[Any, Any]) -> dict[str, tuple[int, Any]]:
    lines: dict[str, int] = {}
    for key, _value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            told = _("{name} is already on line {line}; keep one of them", name=name, line=lines[name])
            raise _mistake(path, line, told)
        lines[name] = line
    return {str(name): (lines.get(str(name), 1), value) for name, value in values.items()}


def _did_you_mean(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return _("is not a setting; did you mean {name}?", name=close[0]) if close else _("is not a setting; `aihub settings` lists all")


def _at(path: Path, line: int | None, told: str) -> str:
    """Where a mistake is, and what is told of it."""
    return f"{path}: {told}" if line is None else _("{path} line {line}: {told}", path=path, line=line, told=told)


def _mistake(path: Path, line: int | None, told: str) -> SettingsError:
    return SettingsError([_at(path, line, told)])


def _converted(row: Field[Any], kind: Any, value: Any) -> Any:
    """The value as the setting's type has it, or ``_WrongError``."""
    options = typing.get_args(kind)
    if value is None:
        if type(None) in options or "shown" in row.metadata:
            return None if row.default is None else row.default
        raise _WrongError(_("is null; give it a value or leave the line out"))
    wanted = next((each for each in options if each is not type(None)), kind) if type(None) in options else kind
    convert = _KINDS.get(wanted) or _KINDS[typing.get_origin(wanted) or wanted]
    converted = convert(value)
    _follow_rules(row.metadata, converted)
    return converted


def _follow_rules(rules: Mapping[str, Any], value: Any) -> None:
    if "choices" in rules and value not in rules["choices"]:
        raise _WrongError(_("is {value!r}; choose one of {known}", value=value, known=", ".join(rules["choices"])))
    if "least" in rules and value < rules["least"]:
        raise _WrongError(_("is {value}, which is too small; the least is {least}", value=value, least=rules["least"]))
    if "most" in rules and value > rules["most"]:
        raise _WrongError(_("is {value}, which is too large; the most is {most}", value=value, most=rules["most"]))
    if rules.get("absolute") and not value.is_absolute():
        raise _WrongError(_("is the relative path {value}; write an absolute one, which begins with /", value=value))
    if rules.get("in_urls") and (wrong := next((each for each in _NOT_IN_URLS if each in str(value)), None)):
        raise _WrongError(_("is {value}; choose one without {letter}, which databases' addresses cannot hold", value=value, letter=wrong))
    if rules.get("address") and not _is_address(value):
        raise _WrongError(_("is {value!r}; write ADDRESS:PORT, such as 127.0.0.1:8441", value=value))
    if rules.get("url") and not _is_url(value):
        told = _(
            "is {value!r}; write http://HOST or https://HOST, with a port or path where it has one, without user and query", value=value
        )
        raise _WrongError(told)


def _is_address(value: str) -> bool:
    host, _, port = value.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return port.isdecimal() and 0 < int(port) < 65536


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        good_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and good_port
        and not (parts.query or parts.fragment or "@" in parts.netloc)
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongError(_("is {value!r}; write a whole number", value=value))
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):  # nor an endless one
        raise _WrongError(_("is {value!r}; write a number", value=value))
    return float(value)


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongError(_("is {value!r}; write text (in quotes if it looks like a number)", value=value))
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _WrongError(_("is {value!r}; write a list, e.g. [one, two]", value=value))
    return tuple(_word(each) for each in value)


def _yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(_("is {value!r}; write true or false", value=value))
    return value


def _sizes(value: Any) -> tuple[SizeClass, ...]:
    try:
        return sizes.parse(value)
    except ValueError as error:
        raise _WrongError(str(error)) from None


_KINDS: Final[dict[Any, Callable[[Any], Any]]] = {
    int: _whole,
    float: _number,
    str: _word,
    bool: _yes_no,
    Path: lambda value: Path(_word(value)),
    tuple: _words,
    tuple[SizeClass, ...]: _sizes,
}


def _together(settings: Settings) -> Iterator[tuple[str, str]]:
    """What no setting alone can have wrong, and the names' own rules: pairs of name and why."""
    if settings.port_last < settings.port_first:
        yield "port_last", _("is below port_first ({first}); make it larger", first=settings.port_first)
    low, high = ephemeral_range()
    if settings.port_first <= high and settings.port_last >= low:
        why = _(
            "to port_last ({range}) overlaps the kernel's ephemeral ports {ephemeral}, so any program's connection could take a server's "
            "port; choose a range outside",
            range=f"{settings.port_first}-{settings.port_last}",
            ephemeral=f"{low}-{high}",
        )
        yield "port_first", why
    if not _PREFIX.fullmatch(settings.prefix_root):
        yield "prefix_root", _("is {value!r}; use letters, digits, . _ - and single slashes inside", value=settings.prefix_root)
    if not _HOST.fullmatch(settings.inside_host):
        yield "inside_host", _("is {value!r}; write a host name or address without port", value=settings.inside_host)
    yield from _containers(settings)
    if not settings.allowed_groups:
        yield "allowed_groups", _("is empty, so nobody could have a server; write '*' for all groups")
    if not any(size.name == settings.default_size for size in settings.sizes):
        known = ", ".join(sizes.names(settings.sizes))
        yield "default_size", _("is {value}, which is not one of sizes; name one of {known}", value=settings.default_size, known=known)
    if settings.munge_listen and not settings.munge_url:
        yield "munge_listen", _("is set without munge_url; set that to the https:// address at which callers reach it")
    yield from listeners.conflicts(settings)
    if settings.mlflow_versions == ():
        yield "mlflow_versions", _("is empty; leave it out to offer all that are installed")


def _containers(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.uid_last <= settings.uid_first:
        yield "uid_last", _("is not above uid_first ({first}); a server needs two", first=settings.uid_first)
    subnets = []
    for name in ("gate_network", "mlflow_network"):
        try:
            subnets.append(ipaddress.IPv4Network(getattr(settings, name)))
        except ValueError as error:
            yield name, _("is not a network ({why}); write e.g. 10.213.0.0/22", why=str(error))
    if len(subnets) == 2 and subnets[0].overlaps(subnets[1]):
        yield "mlflow_network", _("overlaps gate_network ({other}); choose another", other=settings.gate_network)
    if not settings.docker_host.startswith("unix:///"):
        told = _(
            "is {value!r}; write unix:///PATH, its socket: whoever reaches the daemon at an address is root", value=settings.docker_host
        )
        yield "docker_host", told
    if settings.image.replace("{version}", "") == settings.image or "{" in settings.image.replace("{version}", ""):
        yield "image", _("is {value!r}; write {version} once, where the MLflow version stands, and no other braces", value=settings.image)


def ephemeral_range() -> tuple[int, int]:
    """The ports from which the kernel serves outgoing connections (both inclusive)."""
    low, high = EPHEMERAL_PORTS.read_text(encoding="ascii").split()
    return int(low), int(high)
