"""How the service is reached and the caller proved: environment variables, then the user's settings file, then the site's.

The files are YAML, `NAME: value` lines; docs/reference/mlwf.md has the table.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml
from requests.auth import AuthBase

from mlwf.address import split_url
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.looks import look
from mlwf.secret import Secret, one_token
from mlwf.wire.munge import MungeAuth
from mlwf.wire.token_auth import TokenAuth

DEFAULT_ADDRESS = "unix:///run/aihub/service.sock"
SITE_FILE = Path("/etc/aihub/mlwf.yml")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, kw_only=True)
class Values:
    """The settings of the connection; an empty text: not set."""

    service: str = ""
    ca_file: str = ""
    munge_uid: str = ""
    munge_socket: str = ""
    token_file: str = ""


NAMES = tuple(field.name for field in fields(Values))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the service is, what proves the caller there, and who vouches for its certificate (`None`: the host's own CAs)."""

    address: str
    auth: AuthBase | None = None
    ca_file: Path | None = None


def connection(environ: Mapping[str, str], *, site_file: Path = SITE_FILE) -> Connection:
    """The connection of an environment. Raises MlwfError for settings that cannot be used."""
    values = _values(environ, site_file)
    address = (values.service or DEFAULT_ADDRESS).rstrip("/")
    if split_url(address).scheme != "https":
        return Connection(address=address)  # the Unix socket proves the caller by itself
    ca_file = _absolute("ca_file", values.ca_file)
    if ca_file:
        there, why = look(ca_file.is_file)
        if not there:
            raise WrongUseError(_("There is no CA file {path}").format(path=ca_file), why, _("Correct ca_file in mlwf's settings."))
    return Connection(address=address, auth=_auth(address, values, environ), ca_file=ca_file)


def _auth(address: str, values: Values, environ: Mapping[str, str]) -> AuthBase:
    """A token where there is one, since somebody put it there on purpose; else MUNGE."""
    text = environ.get("MLWF_TOKEN", "").strip()
    if text:
        token = one_token(text)
        if token is None:
            raise WrongUseError(
                _("{variable} cannot be used").format(variable="MLWF_TOKEN"),
                _("it does not hold exactly one token"),
                _("Correct or unset it."),
            )
        return TokenAuth(token)
    token_file = _absolute("token_file", values.token_file)
    if token_file:
        return TokenAuth(_read_token(token_file))
    if values.munge_uid:
        return MungeAuth(address, uid=values.munge_uid, environ=environ, socket=_absolute("munge_socket", values.munge_socket))
    raise WrongUseError(
        _("Nothing proves to {address} who you are").format(address=address),
        cure=_("Set munge_uid in mlwf's settings on a host with MUNGE, else token_file to the file with your API token."),
    )


def _values(environ: Mapping[str, str], site_file: Path) -> Values:
    own = environ.get("MLWF_SETTINGS") or str(Path(environ.get("HOME") or "/") / ".config" / "mlwf" / "settings.yml")
    files = [site_file, Path(own)]
    found: dict[str, str] = {}
    for file in files:
        found.update(_read(file, must_exist=str(file) == environ.get("MLWF_SETTINGS")))
    found.update({name: environ[variable] for name in NAMES if environ.get(variable := f"MLWF_{name.upper()}")})
    return Values(**found)


def _read(file: Path, *, must_exist: bool) -> dict[str, str]:
    what = _("The settings file {path} cannot be used").format(path=file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not must_exist:
            return {}
        raise WrongUseError(what, _("there is no such file"), _("Write it, or correct MLWF_SETTINGS.")) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongUseError(what, str(getattr(error, "problem", None) or error), _("Correct it.")) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise WrongUseError(what, _("it has no 'name: value' lines"), _("Correct it."))
    for name, value in content.items():
        if name not in NAMES:
            raise WrongUseError(
                what, _("{name} is not a setting").format(name=name), _("Use these: {names}.").format(names=", ".join(NAMES))
            )
        if isinstance(value, (dict, list)):
            raise WrongUseError(what, _("{name} is not text").format(name=name), _("Correct it."))
    return {str(name): str(value) for name, value in content.items() if value is not None}


def _absolute(name: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    if not path.is_absolute():
        raise WrongUseError(_("{name} is the relative path {path}").format(name=name, path=text), cure=_("Write it from / or ~/ on."))
    return path


def _read_token(file: Path) -> Secret:
    what = _("The API token in {path} cannot be used").format(path=file)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MlwfError(what, error.strerror or "", _("Put the token from the admins into that file, mode 0600.")) from error
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as opened:
        if os.fstat(descriptor).st_mode & OTHERS:
            raise MlwfError(what, _("others may read it"), _("Run: chmod 600 {path}").format(path=file))
        token = one_token(opened.read(4096))
    if token is None:
        raise MlwfError(what, _("it does not hold exactly one token"), _("Put the token from the admins into that file, mode 0600."))
    return token
