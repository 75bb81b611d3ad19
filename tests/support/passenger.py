"""A person's own web server, as the portal starts one for each: real Passenger (in Apache) that runs as that person."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.ports import LOOPBACK, free_ports
from tests.support.box import until

ROOT = Path(__file__).resolve().parents[2]
MODULES = Path("/usr/lib/apache2/modules")
PASSENGER = "/usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini"
MOUNT = "/pun/sys/mlflow-console"
PYTHON = "/usr/bin/python3"
"""Debian's own: everybody may run it, which the development environment's need not be so."""


@dataclass
class PersonalServer:
    """`address`: of the console. `app`: its folder, as the site links it."""

    home: Path
    port: int
    uid: int

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}{MOUNT}"

    @property
    def app(self) -> Path:
        return self.home / "apps" / "mlflow-console"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def processes(self) -> list[int]:
        """The console's processes, by what the kernel says that they run."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                program, folder = (entry / "exe").readlink(), (entry / "cwd").readlink()
            except OSError:
                continue  # it ended, or is a thread of the kernel
            if program.name.startswith("python") and folder == self.app:
                found.append(int(entry.name))
        return found


@contextmanager
def personal_server(uid: int, gid: int, environment: Mapping[str, str]) -> Iterator[PersonalServer]:
    """Start it; the console's process gets `environment` and nothing of ours."""
    home = Path(tempfile.mkdtemp(prefix="pun-", dir="/tmp"))
    server = PersonalServer(home, free_ports(1)[0], uid)
    process: subprocess.Popen[bytes] | None = None
    try:
        _lay_out(server, environment)
        for path in [home, *home.rglob("*")]:
            os.chown(path, uid, gid, follow_symlinks=False)
        as_person = ["setpriv", "--pdeathsig", "TERM", f"--reuid={uid}", f"--regid={gid}", "--init-groups"]
        with (home / "log").open("ab") as log:
            argv = [*as_person, "apache2", "-DFOREGROUND", "-f", str(home / "apache.conf")]
            process = subprocess.Popen(argv, env={"PATH": os.environ["PATH"], "HOME": str(home)}, cwd=home, stdout=log, stderr=log)
        until(lambda: _answers(server, process), what="the person's web server")
        yield server
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
            until(lambda: not server.processes(), what="the end of the console")
        shutil.rmtree(home, ignore_errors=True)


def _lay_out(server: PersonalServer, environment: Mapping[str, str]) -> None:
    home = server.home
    home.chmod(0o755)
    (home / "log").touch()
    (server.app / "tmp").mkdir(parents=True)
    (server.app / "public").mkdir()
    for entry in (ROOT / "ood_app").iterdir():  # linked, with a tmp/ of its own, so that the checkout stays as it is
        if entry.name not in {"tmp", "public", "__pycache__"}:
            (server.app / entry.name).symlink_to(entry)
    python = home / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    places = f"{sysconfig.get_paths()['purelib']}:{ROOT / 'mlwf' / 'src'}:{ROOT}"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={places} PYTHONDONTWRITEBYTECODE=1\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    given = {"AIHUB_VENV": str(home / "venv"), "HOME": str(home), **environment}
    (home / "apache.conf").write_text(_configuration(server, given))


def _configuration(server: PersonalServer, environment: Mapping[str, str]) -> str:
    """What the portal's own template sets: one process for each app, the app's `bin/python`, production, no login shell's environment."""
    variables = "\n".join(f'  SetEnv {name} "{value}"' for name, value in environment.items())
    wanted = ("mpm_event", "authz_core", "alias", "env", "dir", "mime", "passenger")
    loads = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in wanted)
    return f"""
{loads}
TypesConfig /etc/mime.types
ServerRoot {server.home}
PidFile {server.home}/pid
ErrorLog {server.home}/log
ServerName {LOOPBACK}
Listen {LOOPBACK}:{server.port}
PassengerRoot {PASSENGER}
PassengerInstanceRegistryDir {server.home}
PassengerUserSwitching off
PassengerLogFile {server.home}/log
PassengerDisableSecurityUpdateCheck on
PassengerDisableAnonymousTelemetry on
PassengerMaxPoolSize 1
PassengerMaxInstancesPerApp 1
PassengerStatThrottleRate 0
DocumentRoot {server.home}
<Directory "{server.home}">
  Require all granted
</Directory>
Alias {MOUNT} {server.app}/public
<Location {MOUNT}>
  PassengerBaseURI {MOUNT}
  PassengerAppRoot {server.app}
  PassengerAppEnv production
  PassengerAppType wsgi
  PassengerStartupFile passenger_wsgi.py
  PassengerPython {server.app}/bin/python
  PassengerMinInstances 0
  PassengerLoadShellEnvvars off
{variables}
</Location>
"""


def _answers(server: PersonalServer, process: "subprocess.Popen[bytes] | None") -> bool:
    assert process is not None
    assert process.poll() is None, server.log
    try:
        return requests.get(server.address + "/", timeout=60).status_code > 0
    except requests.ConnectionError:
        return False
