"""The console's settings: one table, read from the environment here and nowhere else.

Under Open OnDemand they come from the part `console` of the site's file, or from `pun_custom_env` in `nginx_stage.yml`, which goes before
it. Unknown names are refused, so that a typo is found. The service is reached as `mlwf` reaches it, by mlwf's settings too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlwf.address import as_browsers_write, split_url
from mlwf.errors import MlwfError
from mlwf.wire.connection import DEFAULT_ADDRESS, Connection, connection

from ood_app import site_file

PREFIX: Final = "AIHUB_CONSOLE_"
LANGUAGES: Final = ("en", "ja")
BASE_CONTAINER_URL: Final = "docker://nvcr.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04"
"""The base image that forms, console and pages recommend for a GPU, and why: docs/howto/create-image.md. A test holds all places equal."""


class SettingsError(ValueError):
    """A setting cannot be used; the message names it, says why, and what would do."""


def _text(value: str) -> str:
    return value.strip()


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 < seconds <= 60:
        raise ValueError("write a number of seconds between 0 and 60")
    return seconds


def _web_address(value: str) -> str:
    parts = split_url(value.strip())
    if value.strip() and (parts.scheme not in {"http", "https"} or not parts.netloc):
        raise ValueError("write an address such as https://portal.example.org")
    return as_browsers_write(value.strip()).rstrip("/")


def _link(value: str) -> str:
    if value.strip() and not re.match(r"^(/(?!/)|https?://)", value.strip()):
        raise ValueError("write a path on the portal that begins with /, or a http(s) address")
    return value.strip()


def _yes_no(value: str) -> bool:
    if value.strip() not in {"true", "false"}:
        raise ValueError("write true or false")
    return value.strip() == "true"


def _language(value: str) -> str:
    if value.strip() not in {"", *LANGUAGES}:
        raise ValueError(f"write one of {', '.join(LANGUAGES)}, or nothing")
    return value.strip()


@dataclass(frozen=True)
class Setting:
    """One row: the field's name, the environment variable, its default as text, what it means, and how the text is read."""

    name: str
    variable: str
    default: str
    help: str
    read: Callable[[str], Any] = _text


TABLE: Final = (
    Setting("service", "MLWF_SERVICE", DEFAULT_ADDRESS, "Address of the service: `unix:///path/service.sock` or `https://host`."),
    Setting("ca_file", "MLWF_CA_FILE", "", "CA bundle for its certificate. Empty: the host's own CAs."),
    Setting(
        "munge_uid", "MLWF_MUNGE_UID", "", "The service's account, if the service is on another host: MUNGE then proves who the caller is."
    ),
    Setting("munge_socket", "MLWF_MUNGE_SOCKET", "", "munged's socket. Empty: MUNGE's default."),
    Setting("timeout", PREFIX + "TIMEOUT", "5", "Seconds to wait for each answer from the service.", _seconds),
    Setting(
        "portal_url",
        PREFIX + "PORTAL_URL",
        "",
        "Origin of the portal, e.g. `https://portal.example.org`. Only its pages may make changes. Empty: the console is reached "
        "directly, on a loopback address.",
        _web_address,
    ),
    Setting(
        "secret_key",
        "SECRET_KEY_BASE",
        "",
        "Key that signs the session cookie. Open OnDemand gives each user one. Empty: a random key, so users must reload the page "
        "after a restart.",
    ),
    Setting("title", PREFIX + "TITLE", "App for MLflow Server", "Heading of the page."),
    Setting(
        "language", PREFIX + "LANGUAGE", "", "`en` or `ja`, for readers who have not chosen. Empty: what their browser asks for.", _language
    ),
    Setting(
        "portal_menu_url", PREFIX + "PORTAL_MENU_URL", "", "Where the link back to Open OnDemand leads, e.g. `/pun/sys/dashboard`.", _link
    ),
    Setting(
        "export_form_url",
        PREFIX + "EXPORT_FORM_URL",
        "",
        "Open OnDemand form behind **Export model**. `?group_name=…&env_name=…` is appended. Empty: the command is shown.",
        _link,
    ),
    Setting(
        "image_form_url",
        PREFIX + "IMAGE_FORM_URL",
        "",
        "Open OnDemand form behind **Create image**, in the same way.",
        _link,
    ),
    Setting(
        "local_jobs",
        PREFIX + "LOCAL_JOBS",
        "false",
        "`true`: where no form is set, **Export model** and **Create image** run on the console's own host, as the caller. For a demo, "
        "or a host that may do such work.",
        _yes_no,
    ),
    Setting(
        "base_container_url",
        PREFIX + "BASE_CONTAINER_URL",
        BASE_CONTAINER_URL,
        "Base image in the `mlwf_create_image` command that is shown.",
    ),
)


class _Hidden(str):
    """Text that `repr` does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The table's values. `secret_key` is kept out of `repr`."""

    connection: Connection
    service: str
    ca_file: str
    munge_uid: str
    munge_socket: str
    timeout: float
    portal_url: str
    secret_key: _Hidden
    title: str
    language: str
    portal_menu_url: str
    export_form_url: str
    image_form_url: str
    local_jobs: bool
    base_container_url: str


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of an environment (default: the process's). Raises SettingsError."""
    found = os.environ if environ is None else environ
    unknown = sorted(name for name in found if name.startswith(PREFIX) and name not in {row.variable for row in TABLE})
    if unknown:
        known = ", ".join(row.variable for row in TABLE)
        raise SettingsError(f"{unknown[0]} is not a setting of the console; there are {known}")
    site = _site(found)
    values = {row.name: _value(row, found.get(row.variable) or site.get(row.name) or row.default) for row in TABLE}
    values["secret_key"] = _Hidden(values["secret_key"])
    try:
        reached = connection({**found, **_for_mlwf(found, site)})
    except MlwfError as error:
        raise SettingsError(str(error)) from error
    return Settings(**{**values, "service": reached.address}, connection=reached)


def _site(environ: Mapping[str, str]) -> dict[str, str]:
    """The site's part of the settings. Raises SettingsError."""
    named = environ.get("AIHUB_SITE")
    path = Path(named) if named else site_file.DEFAULT
    try:
        found = site_file.read(path, must_exist=bool(named))
    except site_file.SiteFileError as error:
        raise SettingsError(str(error)) from error
    known = [row.name for row in TABLE if row.name != "secret_key"]  # everybody may read the file
    for name in found:
        if name not in known:
            raise SettingsError(f"{path}: {name} is not a setting of the console's part; there are {', '.join(known)}")
    return found


def _for_mlwf(environ: Mapping[str, str], site: Mapping[str, str]) -> dict[str, str]:
    """Mlwf's variables that the environment or the site's file sets."""
    rows = [row for row in TABLE if row.variable.startswith("MLWF_")]
    return {row.variable: text for row in rows if (text := environ.get(row.variable) or site.get(row.name))}


def for_programs(settings: Settings, language: str) -> dict[str, str]:
    """What a program that the console starts for its caller gets: the process's own environment without the console's secret."""
    kept = {name: value for name, value in os.environ.items() if name != "SECRET_KEY_BASE" and not name.startswith(PREFIX)}
    reached = {row.variable: str(getattr(settings, row.name)) for row in TABLE if row.variable.startswith("MLWF_")}
    return kept | {name: text for name, text in reached.items() if text} | {"LC_ALL": "ja_JP.UTF-8" if language == "ja" else "C.UTF-8"}


def _value(row: Setting, text: str) -> Any:
    try:
        return row.read(text)
    except ValueError as error:
        raise SettingsError(f"{row.variable} cannot be used: {error}") from error
