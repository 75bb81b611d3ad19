"""The size classes of the settings: read, shown, and found for a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, Final

from backend.domain import SizeClass
from backend.errors import ServiceError
from backend.i18n import _
from backend.settings import Settings

NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB)")
_UNITS: Final = {"MiB": 1024**2, "GiB": 1024**3}
_LEAST_MEMORY: Final = 512
"""MiB that one MLflow with one worker needs to answer at all."""
_LEAST_LOG: Final = 1
_LEAST_PIDS: Final = 64
_EXAMPLE: Final = "{memory: 1GiB, cpus: 1, pids: 256, workers: 1}"
_CHOICES: Final = ("genai_jobs", "gateway", "gateway_private")
"""What a size has only where its row says so."""
_MAY_LACK: Final = {field.name for field in fields(SizeClass) if field.default is not MISSING}


def parse(value: Any) -> tuple[SizeClass, ...]:
    """The setting ``sizes`` as values. Raises ValueError with what is wrong and the cure, as words that follow the setting's name."""
    if not isinstance(value, dict) or not value:
        raise ValueError(_("is not a table; write NAME: {example} for each size", example=_EXAMPLE))
    return tuple(_size(name, row) for name, row in value.items())


def plain(sizes: Sequence[SizeClass]) -> dict[str, dict[str, Any]]:
    """The same as the file would hold it."""
    return {size.name: {name: value for name, value in asdict(size).items() if name != "name"} for size in sizes}


def names(sizes: Sequence[SizeClass]) -> list[str]:
    """Their names, in the settings' order."""
    return [size.name for size in sizes]


def chosen(settings: Settings, name: str | None) -> SizeClass:
    """The size asked for (None: the default). Error: ``size_unknown``."""
    wanted = name or settings.default_size
    found = _find(settings, wanted)
    if found is None:
        raise ServiceError("size_unknown", size=wanted, sizes=", ".join(names(settings.sizes)))
    return found


def in_force(settings: Settings, name: str) -> SizeClass:
    """The size of a server that has that name stored; the default one where the site knows the name no longer."""
    return _find(settings, name) or chosen(settings, None)


def _find(settings: Settings, name: str) -> SizeClass | None:
    return next((size for size in settings.sizes if size.name == name), None)


def _size(name: Any, row: Any) -> SizeClass:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(_("has the name {name!r}; use 1 to 32 of a-z, 0-9, - and _", name=name))
    if not isinstance(row, dict):
        raise ValueError(_("{name} is {value!r}; write {example}", name=name, value=row, example=_EXAMPLE))  # noqa: TRY004 (a value of a file)
    known = {field.name for field in fields(SizeClass)} - {"name"}
    wrong = sorted({str(key) for key in row} - known) or sorted(known - _MAY_LACK - set(row))
    if wrong:
        raise ValueError(_("{name}: {key} is unknown or missing; write {known}", name=name, key=wrong[0], known=", ".join(sorted(known))))
    choices = {choice: row.get(choice, False) for choice in _CHOICES}
    for choice, value in choices.items():
        if not isinstance(value, bool):
            raise ValueError(_("{name}: {key} is {value!r}; write true or false", name=name, key=choice, value=value))  # noqa: TRY004 (a value of a file)
    return SizeClass(
        name=name,
        memory=_bytes(name, "memory", row["memory"], least=_LEAST_MEMORY),
        cpus=_number(name, "cpus", row["cpus"], least=0.1),
        pids=int(_number(name, "pids", row["pids"], least=_LEAST_PIDS, whole=True)),
        workers=int(_number(name, "workers", row["workers"], least=1, whole=True)),
        log=_bytes(name, "log", row.get("log", SizeClass.log), least=_LEAST_LOG),
        **choices,
    )


def _bytes(name: str, key: str, value: Any, *, least: int) -> int:
    """``least``: in MiB."""
    match = _BYTES.fullmatch(value) if isinstance(value, str) else None
    found = int(float(match[1]) * _UNITS[match[2]]) if match else value
    if isinstance(found, bool) or not isinstance(found, int) or found < least * _UNITS["MiB"]:
        bound = {"name": name, "key": key, "value": value, "least": least}
        raise ValueError(_("{name}: {key} is {value!r}; write at least {least}MiB, as bytes or with MiB or GiB", **bound))
    return found


def _number(name: str, key: str, value: Any, *, least: float, whole: bool = False) -> float:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < 1_000_000:
        bound = {"name": name, "key": key, "value": value, "least": f"{least:g}"}
        if whole:
            raise ValueError(_("{name}: {key} is {value!r}; write a whole number that is at least {least}", **bound))
        raise ValueError(_("{name}: {key} is {value!r}; write a number that is at least {least}", **bound))
    return value
