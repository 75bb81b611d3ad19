"""What must be there before the parts start: folders, the service's settings, its registry; and the bucket, once the store answers."""

import grp
import os
import shutil
import subprocess

import yaml

from demo.containers import check_image
from demo.errors import DemoError
from demo.files import write_private
from demo.home import BUCKET, PROFILE, TRACKING_SERVER_PORTS, Home
from demo.ports import LOOPBACK
from demo.settings import DOCKER, MLFLOW_VERSION, PROCESS, Settings
from demo.store import REGION


def caller_groups() -> list[str]:
    """Names of the groups that may have tracking servers here: all of the caller's that have a name, the primary one first."""
    names = []
    for gid in dict.fromkeys([os.getgid(), *os.getgroups()]):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue  # a number without a name, as containers have them: it could not be chosen in the form
    return names


def prepare(home: Home, settings: Settings) -> None:
    """Make what the parts need; what is there stays. Raises DemoError."""
    _check_machine(home, settings)
    groups = caller_groups()
    if not groups:
        raise DemoError("none of your groups has a name here, so that no server could belong to one: ask for an entry in /etc/group")
    for group in groups:
        (home.groups / group / "aihub").mkdir(parents=True, exist_ok=True)
    store = home.store()
    home.write_credentials(store.users[PROFILE])
    write_private(home.service_settings, _service_settings(home, settings, groups, store.endpoint_url))
    _initialise(home, settings)


def make_bucket(home: Home) -> None:
    """The example's bucket; one that exists is fine."""
    client = home.store().client("admin")
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def _check_machine(home: Home, settings: Settings) -> None:
    docker_host = home.state().docker_host
    if docker_host is not None:
        check_image(docker_host, settings)
    elif not shutil.which("nginx", path=settings.environment()["PATH"]):
        raise DemoError("nginx is not on this machine: install it (Debian, Ubuntu: apt-get install nginx), then try again")
    if not (settings.box_programs / "python").exists():
        raise DemoError(f"the tracking servers' environment is not made yet ({settings.box_programs.parent} is missing): run make envs")


def _service_settings(home: Home, settings: Settings, groups: list[str], endpoint_url: str) -> str:
    first = home.state().first_server_port
    return yaml.safe_dump(
        {
            "state_dir": str(home.service),
            "group_area": str(home.groups),
            "allowed_groups": groups,
            "inside_host": LOOPBACK,
            "listen_address": LOOPBACK,
            "port_first": first,
            "port_last": first + TRACKING_SERVER_PORTS - 1,
            "endpoint_url": endpoint_url,
            "region": REGION,
            **_runtime_settings(home.state().docker_host, settings),
            "mlflow_versions": [MLFLOW_VERSION],
            "idle_seconds": settings.idle_seconds,
            "workers": 1,
        }
    )


def _runtime_settings(docker_host: str | None, settings: Settings) -> dict[str, object]:
    if docker_host is not None:
        return {"runtime": DOCKER, "docker_host": docker_host}
    # Nothing is kept apart here: one person's demo on loopback.
    return {"runtime": PROCESS, "allow_unisolated": True, "envs_dir": str(settings.environments)}


def _initialise(home: Home, settings: Settings) -> None:
    run = subprocess.run(
        [settings.programs / "aihub", "init"],
        env=settings.environment(AIHUB_SETTINGS=str(home.service_settings)),
        cwd=home.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise DemoError(f"the service could not be initialised:\n{(run.stderr or run.stdout).strip()}")
