"""The settings: one table. The only module of the service that looks at the environment.

What a setting means stands in the table below and nowhere else: docs/reference/settings.md is made from it.
"""

# ruff: noqa: RUF009 (a row *is* a dataclass field, made by one function so that each keeps its help)
from __future__ import annotations

import os
import socket as sockets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mlwf.address import as_browsers_write

from backend import sure_time
from backend.domain import SizeClass
from backend.log import FORMATS

DEFAULT_FILE: Final = Path("/etc/aihub/settings.yml")
ENVIRONMENT_NAME: Final = "AIHUB_SETTINGS"


class SettingsError(Exception):
    """The settings cannot be used. Each of ``problems`` says where, why and the cure in one sentence."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


_MIB: Final = 1024**2
_GIB: Final = 1024 * _MIB
SIZES: Final = (
    SizeClass(name="small", memory=1 * _GIB, cpus=1, pids=256, workers=1, log=1 * _MIB),
    SizeClass(name="medium", memory=2 * _GIB, cpus=2, pids=512, workers=2, log=2 * _MIB),
    SizeClass(name="large", memory=4 * _GIB, cpus=4, pids=1024, workers=4, log=4 * _MIB),
)


def _row(
    default: object,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    url: bool = False,
    absolute: bool = False,
    in_urls: bool = False,
    address: bool = False,
    shown: str | None = None,
) -> Any:
    """One row of the table: default, meaning, and what a value must be: a number in bounds, one of some words, a plain http(s) address, a
    path from / on, one that databases' addresses hold, ``ADDRESS:PORT``. ``shown``: the default as the documentation writes it, where it is
    found out when the service runs.
    """
    rules: dict[str, object] = {"least": least, "most": most, "choices": choices, "url": url, "absolute": absolute}
    rules |= {"in_urls": in_urls, "address": address, "shown": shown}
    return field(
        default=default, metadata={"help": text} | {name: rule for name, rule in rules.items() if rule is not None and rule is not False}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, in force for one run of the service. What depends on other settings or on the host is filled in here, and hosts that
    clients name are in lower case, as they name them.
    """

    # where the service lives
    state_dir: Path = _row(
        Path("/var/lib/aihub"), "Folder for all that the service stores: registry, keys, servers, kept copies.", absolute=True, in_urls=True
    )
    socket: Path = _row(
        None,
        "The API's Unix socket. The kernel tells the service who opened it (SO_PEERCRED), so it must never be proxied; users must be "
        "able to reach its folder (at a site, use `/run/aihub/service.sock`).",
        absolute=True,
        shown="STATE_DIR/run/service.sock",
    )
    socket_group: str | None = _row(None, "Unix group that may open the socket (mode 0660); null: everybody on the host may (mode 0666).")
    munge_listen: str | None = _row(
        None,
        "`ADDRESS:PORT` of a second listener, for callers on other hosts, who prove their identity with MUNGE; null: none. It speaks "
        "plain HTTP: put the service's own TLS nginx in front of it (`deploy/nginx/aihub.conf`).",
        address=True,
    )
    munge_url: str | None = _row(
        None, "Address at which those callers reach it, `https://HOST[:PORT]`: their credentials are valid for this address only.", url=True
    )
    munge_socket: Path | None = _row(None, "munged's socket; null: MUNGE's default.", absolute=True)
    token_listen: str | None = _row(
        None,
        "`ADDRESS:PORT` of a listener for callers with an API token (`aihub tokens`), which needs TLS in front of it too; null: none.",
        address=True,
    )
    metrics_listen: str | None = _row(
        None,
        "`ADDRESS:PORT` where Prometheus gets the service's metrics (`/metrics`, docs/reference/metrics.md); null: nowhere. There is "
        "no login, and no user or group is named: use a loopback address, or one that only the monitoring host can reach.",
        address=True,
    )
    database_url: str = _row(None, "SQLAlchemy address of the registry.", shown="sqlite:///STATE_DIR/registry.db")
    # who may do what
    group_area: Path = _row(
        Path("/groups"), "Folder with one folder per group; the console finds `basic_auth.yml` below it.", absolute=True
    )
    allowed_groups: tuple[str, ...] = _row(("*",), "Shell patterns of the groups that may have tracking servers.")
    admin_group: str = _row("aihub-admins", "Unix group of the service's admins. Root is always an admin.")
    create_by: str = _row("members", "Who may create servers.", choices=("members", "admins"))
    manage_by: str = _row("members", "Who may delete and restore servers, and set their users and keys.", choices=("members", "admins"))
    max_servers_per_group: int = _row(0, "How many servers a group may have; 0: no limit.", least=0)
    max_kept_per_group: int = _row(
        20,
        "How many deleted servers of a group may be kept, each with its port; a group that has this many cannot create "
        "another server. 0: no limit.",
        least=0,
    )
    # how servers are reached
    inside_host: str = _row(
        None, "Host name by which clients reach the servers. A server keeps the one that it was made with.", shown="the host's name"
    )
    listen_address: str = _row("127.0.0.1", "Address that the servers listen on.")
    port_first: int = _row(
        21000, "First port of the servers. The range must lie outside the kernel's ephemeral ports.", least=1024, most=65535
    )
    port_last: int = _row(29999, "Last port of the servers.", least=1024, most=65535)
    portal_url: str | None = _row(None, "The Open OnDemand portal, for access to the servers from outside; null: no such access.", url=True)
    console_url: str | None = _row(
        None, "The console's address, shown to anybody who must sign in; needed if the console is not on the portal's own host.", url=True
    )
    session_hours: float = _row(12, "Hours for which a sign-in through the portal lasts.", least=0.02, most=8760)
    token_days: int = _row(30, "Longest lifetime of a bearer token, in days.", least=1, most=36500)
    # the object store
    endpoint_url: str | None = _row(None, "The object store of all servers; null: each server names its own, or else uses AWS.", url=True)
    region: str = _row("us-east-1", "Region with which requests to the object store are signed, unless a server names another.")
    s3_ca_file: Path | None = _row(
        None, "CA bundle for the object store's certificate; null: the operating system's own, in containers the image's.", absolute=True
    )
    prefix_root: str = _row("mlflow", "First part of each server's prefix in its bucket: `PREFIX_ROOT/SERVER_ID`.")
    artifact_access: str = _row("proxied", "How clients reach artifacts unless a server says otherwise.", choices=("proxied", "direct"))
    # how servers run
    runtime: str = _row(
        "process",
        "How the servers run: `docker` in containers; `process` as plain processes, which do not keep groups apart.",
        choices=("process", "docker"),
    )
    allow_unisolated: bool = _row(
        False, "Accept a runtime that does not keep groups apart, for a demo, for development, or on a host with one group."
    )
    envs_dir: Path = _row(
        Path("/opt/aihub/envs"), "Folder of the MLflow environments (`mlflow-VERSION`), made by `tracking_server/install`.", absolute=True
    )
    mlflow_versions: tuple[str, ...] | None = _row(
        None, "MLflow versions on offer, the default one first; null: all installed, newest first."
    )
    sizes: tuple[SizeClass, ...] = _row(
        SIZES,
        "How much of the host a server may take: names, each with `memory` (bytes, or a number with MiB or GiB), `cpus`, `pids`, "
        "`workers` (MLflow's processes), and three switches that are false by default: `genai_jobs` (MLflow's server-side jobs), "
        "`gateway` (MLflow's AI gateway), `gateway_private` (models at private addresses and without TLS).",
        shown="small, medium, large (below)",
    )
    default_size: str = _row(None, "Size of a server that names none, or whose size is no longer in the table.", shown="the first of sizes")
    idle_seconds: int = _row(900, "Seconds without activity after which a server sleeps, unless it has its own value; 0: never.", least=0)
    start_timeout: float = _row(120, "Seconds that a server may take to start.", least=1)
    stop_timeout: float = _row(60, "Seconds that requests under way get to finish when a server is stopped.", least=0)
    nginx: str = _row("nginx", "The nginx program.")
    # how servers run in containers (`runtime: docker`)
    docker_host: str = _row(
        "unix:///run/docker.sock",
        "The daemon's socket, `unix:///PATH` (no other kind of address is accepted); Podman's Docker-compatible socket works too.",
    )
    docker_timeout: float = _row(60, "Seconds that the daemon may take to answer.", least=1)
    image: str = _row("aihub-box:{version}", "Name of the servers' image; `{version}` is the MLflow version.")
    uid_first: int = _row(
        1900000000, "First of the uids for the servers' containers, two for each server; nobody else may have these uids.", least=1000
    )
    uid_last: int = _row(1900019999, "Last of these uids.", most=2147483646)
    gate_network: str = _row("10.213.0.0/22", "Subnet of the containers that accept connections: one address each, 1,000 at most.")
    mlflow_network: str = _row("10.213.4.0/22", "Subnet of the containers that run MLflow.")
    egress: tuple[str, ...] = _row(
        (),
        "What MLflow may connect to besides `endpoint_url`: `HOST:PORT` or `NETWORK/BITS:PORT`. `aihub firewall` blocks everything else.",
    )
    resolvers: tuple[str, ...] | None = _row(None, "DNS servers of the containers; null: the host's own.")
    # the disk
    disk_least: int = _row(2 * 1024**3, "Bytes that must be free on the servers' disk for another server to be made.", least=0)
    disk_low: int = _row(1024**3, "If fewer bytes than this are free, running servers carry a warning that disk space is short.", least=0)
    server_disk: int = _row(
        50 * 1024**3,
        "A server whose database, spool and logs take more than this many bytes carries a warning that it is too large; 0: no limit.",
        least=0,
    )
    tmp_bytes: int = _row(
        10 * 1024**3,
        "Bytes that a server's uploads and downloads may take on the servers' disk at the same time, and so the largest artifact that "
        "can pass through it; artifacts that go straight to the object store (`artifact_access: direct`) need none of it.",
        least=1,
    )
    max_upload_bytes: int = _row(
        0, "Largest artifact that may be sent through a server, if less than `tmp_bytes`; 0: the same as `tmp_bytes`.", least=0
    )
    # what is kept, and for how long
    restore_days: int = _row(14, "Days for which a deleted server can be restored.", least=0, most=36500)
    previous_days: int = _row(
        14, "Days for which the database from before an upgrade is kept, and the upgrade can be rolled back.", least=0, most=36500
    )
    port_rest_days: int = _row(90, "Days for which the port of a purged server is not given to another one.", least=0, most=36500)
    operations_days: int = _row(30, "Days for which finished operations are kept.", least=1, most=36500)
    # the service itself
    observe_seconds: float = _row(5, "Seconds between two checks of each server.", least=0.05)
    reconciler_threads: int = _row(8, "Servers that the reconciler works on at the same time.", least=1, most=256)
    log_format: str = _row(
        "text", "How the service writes its log: `text`, or `json` with one object per line (docs/howto/monitor.md).", choices=FORMATS
    )
    workers: int = _row(2, "Processes that answer the API.", least=1, most=64)
    threads: int = _row(8, "Threads in each of these processes.", least=1, most=256)
    max_body_bytes: int = _row(65536, "Largest request body, in bytes.", least=1024)

    def __post_init__(self) -> None:
        for name, value in (
            ("socket", self.state_dir / "run" / "service.sock"),
            ("database_url", f"sqlite:///{self.state_dir}/registry.db"),
            ("inside_host", sockets.gethostname()),
            ("default_size", self.sizes[0].name if self.sizes else ""),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "inside_host", self.inside_host.lower())
        for name in ("portal_url", "console_url"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_browsers_write(getattr(self, name)))

    def __repr__(self) -> str:
        return f"Settings(state_dir={str(self.state_dir)!r})"  # database_url may hold a password

    @property
    def endpoint_url_fixed(self) -> bool:
        """Whether servers may not name an object store of their own."""
        return self.endpoint_url is not None

    @property
    def run_dir(self) -> Path:
        """Sockets and locks of the running service."""
        return self.state_dir / "run"

    @property
    def sure_time_file(self) -> Path:
        """By when it surely was when the reconciler last knew (backend.sure_time)."""
        return self.state_dir / sure_time.FILE

    @property
    def kick_socket(self) -> Path:
        """Where the reconciler is woken (backend.wishes.kick)."""
        return self.run_dir / "reconciler.sock"

    @property
    def servers_dir(self) -> Path:
        """One folder per server, named by its id (docs/reference/box.md)."""
        return self.state_dir / "servers"

    @property
    def kept_dir(self) -> Path:
        """One folder per deleted server that can be restored."""
        return self.state_dir / "kept"

    @property
    def previous_dir(self) -> Path:
        """One folder per server that was upgraded: its database from before."""
        return self.state_dir / "previous"

    @property
    def replaced_dir(self) -> Path:
        """Databases that an upgrade or a roll back, under way now, replaces."""
        return self.state_dir / "replaced"

    @property
    def copies_dirs(self) -> tuple[Path, ...]:
        """The three of them: what is in each belongs to one server and is part of a backup."""
        return self.kept_dir, self.previous_dir, self.replaced_dir

    @property
    def keys_file(self) -> Path:
        """The keyring (backend.registry.keyring)."""
        return self.state_dir / "keys.json"


def settings_file() -> Path:
    """The file that ``AIHUB_SETTINGS`` names, else ``/etc/aihub/settings.yml``."""
    return Path(os.environ.get(ENVIRONMENT_NAME) or DEFAULT_FILE)


def environment() -> dict[str, str]:
    """A copy of the service's own environment, for those who start programs; they choose what of it these get."""
    return dict(os.environ)
