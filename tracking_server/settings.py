"""A box's settings: one table. `config/settings.json` may hold what is named here and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

REQUIRED = object()
_SERVER_ID = re.compile(r"[a-z][a-z0-9]{11}")
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z.-]+):([0-9]{1,5})")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_URL = re.compile(r"https?://[^\s\"'<>\\]+")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)+([a-z0-9.]*)")


class SettingsError(ValueError):
    """`settings.json` cannot be used; the text says what and how to cure it."""


class Settings(NamedTuple):
    """The settings in force; what each means stands in `TABLE`."""

    server_id: str
    mlflow_version: str
    listen: str
    public_hosts: tuple[str, ...]
    origins: tuple[str, ...]
    sign_in_origins: tuple[str, ...]
    console_url: str | None
    session_seconds: float
    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str
    s3_ca_file: str | None
    artifact_access: str
    idle_seconds: float
    drain_seconds: float
    workers: int
    genai_jobs: bool
    allow_gateway: bool
    gateway_private: bool
    webhooks: bool
    max_upload_bytes: int
    tmp_bytes: int
    nginx: str

    @property
    def pages(self) -> tuple[str, ...]:
        """Whose pages may change something: `origins`, and the server's own addresses."""
        return tuple(dict.fromkeys([*self.origins, *(f"http://{host}" for host in self.public_hosts)]))


class Setting(NamedTuple):
    """One row: `check` gives the value as it is used, or raises ValueError with what was expected."""

    name: str
    default: object
    check: Callable[[object], object]
    help: str


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(expected)
        return value

    return check


def _list_of(pattern: re.Pattern[str], expected: str, *, least: int) -> Callable[[object], object]:
    """Of hosts or origins. Each is kept as clients send it in `Host` and `Origin`, which are compared letter by letter."""

    def check(value: object) -> object:
        if not isinstance(value, list) or len(value) < least or not all(isinstance(x, str) and pattern.fullmatch(x) for x in value):
            raise ValueError(expected)
        return tuple(dict.fromkeys(map(_as_sent, value)))

    return check


def _as_sent(host_or_origin: str) -> str:
    lower = host_or_origin.lower()
    return lower.removesuffix(":443" if lower.startswith("https://") else ":80") if "//" in lower else lower


def _optional(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def _number(least: float, expected: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
            raise ValueError(expected)
        return value

    return check


def _whole(least: int, expected: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(expected)
        return value

    return check


def _listen(value: object) -> object:
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError("ADDRESS:PORT")
    return value


def _prefix(value: object) -> object:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value) or any(part in (".", "..") for part in value.split("/")):
        raise ValueError("parts of letters, digits, `_`, `.` and `-`, joined by `/`, no slash at either end")
    return value


def _file(value: object) -> object:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("an absolute path or null")
    return value


def _program(value: object) -> object:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a program's name or path")
    return value


def _boolean(value: object) -> object:
    if value is not True and value is not False:
        raise ValueError("true or false")
    return value


def _access(value: object) -> object:
    if value not in ("proxied", "direct"):
        raise ValueError("`proxied` or `direct`")
    return value


TABLE = (
    Setting(
        "server_id",
        REQUIRED,
        _matching(_SERVER_ID, "12 characters of a-z and 0-9, a letter first"),
        "the opaque id, 12 characters `[a-z0-9]`, a letter first",
    ),
    Setting("mlflow_version", REQUIRED, _matching(_VERSION, "a version such as 3.17.2"), "must be the installed version"),
    Setting("listen", REQUIRED, _listen, "`ADDRESS:PORT` that nginx binds from the guard's start on"),
    Setting(
        "public_hosts",
        REQUIRED,
        _list_of(_HOST, "a list with at least one HOST[:PORT]", least=1),
        "list of the `HOST[:PORT]` by which clients reach the server (for MLflow's Host check), in upper or lower case",
    ),
    Setting(
        "origins",
        [],
        _list_of(_ORIGIN, "a list of origins such as https://portal.example.org", least=0),
        "origins whose pages may make changes, e.g. `https://portal.example.org`; `http://` + each public host is added automatically",
    ),
    Setting(
        "sign_in_origins",
        [],
        _list_of(_ORIGIN, "a list of origins such as https://portal.example.org", least=0),
        "origins of the pages from which a ticket may come; empty: the same as `origins`",
    ),
    Setting(
        "console_url",
        None,
        _optional(_matching(_URL, "an http(s) URL or null")),
        "the console's address, shown to anybody who must sign in (again)",
    ),
    Setting("session_seconds", 43200, _number(60, "seconds, 60 or more"), "how long a sign-in through the portal lasts"),
    Setting("bucket", REQUIRED, _matching(_BUCKET, "a bucket's name"), "the bucket where the artifacts live: `s3://BUCKET/PREFIX`"),
    Setting("prefix", REQUIRED, _prefix, "what all keys in the bucket begin with; no slash at either end"),
    Setting("endpoint_url", None, _optional(_matching(_URL, "an http(s) URL or null")), "the object store's URL; null: Amazon S3"),
    Setting("region", "us-east-1", _matching(re.compile(r"[A-Za-z0-9-]+"), "a region's name"), "the object store's region, for signatures"),
    Setting(
        "s3_ca_file",
        None,
        _optional(_file),
        "CA bundle for the object store; null: the list of the operating system, in a container the image's",
    ),
    Setting(
        "artifact_access",
        "proxied",
        _access,
        "`proxied`: through MLflow, clients need no S3 key; `direct`: new experiments' artifacts go from the clients to S3 themselves",
    ),
    Setting(
        "idle_seconds",
        900,
        _number(0, "seconds, 0 or more"),
        "MLflow is stopped after this many seconds without activity; fractions are allowed; `0`: never",
    ),
    Setting(
        "drain_seconds", 60, _number(0, "seconds, 0 or more"), "how many seconds requests under way get to finish at a stop or restart"
    ),
    Setting("workers", 1, _whole(1, "a whole number, 1 or more"), "MLflow's worker processes"),
    Setting(
        "genai_jobs",
        False,
        _boolean,
        "run MLflow's server-side GenAI jobs (scorers, evaluation, issue detection), `workers` at once, and let through the routes that "
        "start and show them",
    ),
    Setting("allow_gateway", False, _boolean, "let `/gateway` routes through"),
    Setting("gateway_private", False, _boolean, "also let the gateway ask models at private addresses and without TLS"),
    Setting("webhooks", True, _boolean, "send the webhooks that members made; `false` for a copy of a server that is only a trial"),
    Setting(
        "max_upload_bytes", 0, _whole(0, "bytes, 0 or more"), "largest artifact that may be sent, in bytes; 0: no limit except `tmp_bytes`"
    ),
    Setting(
        "tmp_bytes",
        10 * 1024**3,
        _whole(1, "bytes, 1 or more"),
        "how many bytes the uploads and downloads of all workers and jobs together may spool in `tmp/` at once",
    ),
    Setting("nginx", "nginx", _program, "the nginx program"),
)


def parse(text: str | bytes) -> Settings:
    """Settings of a JSON document.

    Raises:
        SettingsError: not JSON, an unknown or missing key, or a value of the wrong form.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"settings.json is not JSON ({error}): write it anew") from None
    if not isinstance(document, dict):
        raise SettingsError("settings.json must hold one JSON object")
    return from_mapping(document)


def from_mapping(document: Mapping[str, object]) -> Settings:
    """Settings of a mapping; raises SettingsError as `parse`."""
    known = {row.name for row in TABLE}
    unknown = sorted(set(document) - known)
    if unknown:
        raise SettingsError(f"settings.json has the unknown key {unknown[0]!r}: remove it (known are {', '.join(sorted(known))})")
    values: dict[str, object] = {}
    for row in TABLE:
        value = document.get(row.name, row.default)
        if value is REQUIRED:
            raise SettingsError(f"settings.json lacks {row.name!r}: add it ({row.help})")
        try:
            values[row.name] = row.check(value)
        except ValueError as error:
            raise SettingsError(f"settings.json: {row.name!r} must be {error}") from None
    return Settings(**values)  # type: ignore[arg-type]  # each value was checked by its row
