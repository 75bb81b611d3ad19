"""What a tracking server's two containers are, as values: the arguments of the Docker SDK's ``containers.create``. Pure.

One server is two containers of one image (docs/reference/box.md): ``gate`` (guard and nginx) takes the connections, has
the files with secrets, and hands MLflow the object store's key; ``mlflow`` runs MLflow and has no file with a secret. Neither has a
capability, and each has a uid of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.domain import SizeClass

LABEL: Final = "org.aihub"
GATE, MLFLOW = "gate", "mlflow"
ROLES: Final = (MLFLOW, GATE)
"""In the order in which they are started: the gate finds the other's socket."""
PYTHON: Final = "/opt/aihub/env/bin/python"
"""The image's."""

MIB: Final = 1024**2
GATE_MEMORY: Final = 256 * MIB
GATE_PIDS: Final = 64
GATE_CPUS: Final = 1.0
ONE_SHOT_CPUS: Final = 1.0
LOG_SIZE: Final = MIB
LOG_FILES: Final = "2"
CPU_UNIT: Final = 10**9
"""Docker counts billionths of a processor."""
FILES: Final = 16384


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One server as its containers need it. ``directory``: its folder on the host. ``image``: the image's id, so that a rebuilt one of the
    same name makes another digest. ``address``: where clients reach it on the host. ``uids``: gate's and mlflow's.
    """

    install: str
    server_id: str
    mlflow_version: str
    image: str
    directory: Path
    address: tuple[str, int]
    uids: tuple[int, int]
    size: SizeClass
    networks: tuple[str, str]
    resolvers: tuple[str, ...] = ()
    ca_file: Path | None = None


def container_name(install: str, server_id: str, role: str) -> str:
    """By ids alone: nothing that a user typed names a container."""
    return f"aihub-{install}-{server_id}-{role}"


def create_arguments(pod: Pod) -> dict[str, dict[str, Any]]:
    """By role, all arguments of ``containers.create``; the label ``digest`` tells whether a container is still what is wanted."""
    return {role: _with_digest(made) for role, made in ((GATE, _gate(pod)), (MLFLOW, _mlflow(pod)))}


def _gate(pod: Pod) -> dict[str, Any]:
    host, port = pod.address
    return {
        **_common(pod, GATE, uid=pod.uids[0], network=pod.networks[0]),
        **_limits(memory=GATE_MEMORY, pids=GATE_PIDS, cpus=GATE_CPUS),
        "ulimits": _ulimits(GATE_PIDS),
        "command": [GATE],
        "ports": {f"{port}/tcp": (host, port)},
        "mounts": [
            bind(pod.directory / "config", "/box/config", read_only=True),
            bind(pod.directory / "spawn", "/box/spawn", read_only=True),
            bind(pod.directory / "run", "/box/run"),
            bind(pod.directory / "log", "/box/log"),
        ],
    }


def _mlflow(pod: Pod) -> dict[str, Any]:
    ca_file = [] if pod.ca_file is None else [bind(pod.ca_file, str(pod.ca_file), read_only=True)]
    return {
        **_common(pod, MLFLOW, uid=pod.uids[1], network=pod.networks[1]),
        **_limits(memory=pod.size.memory, pids=pod.size.pids, cpus=pod.size.cpus),
        "ulimits": _ulimits(pod.size.pids),
        "log_config": _log_config(pod.size.log),
        "command": [MLFLOW, str(pod.uids[0])],  # the one who may ask for MLflow
        "dns": list(pod.resolvers),
        "mounts": [
            bind(pod.directory / "data", "/box/data"),
            bind(pod.directory / "tmp", "/box/tmp"),
            bind(pod.directory / "spawn", "/box/spawn"),
            *ca_file,
        ],
    }


def _common(pod: Pod, role: str, *, uid: int, network: str) -> dict[str, Any]:
    return {
        **_closed(),
        "image": pod.image,
        "name": container_name(pod.install, pod.server_id, role),
        "hostname": role,
        "user": f"{uid}:{uid}",
        "network": network,
        "ipc_mode": "private",
        "shm_size": 8 * MIB,
        # it serves again after a boot of the host, also while the service is stopped
        "restart_policy": {"Name": "unless-stopped"},
        "labels": {
            f"{LABEL}.install": pod.install,
            f"{LABEL}.server": pod.server_id,
            f"{LABEL}.role": role,
            f"{LABEL}.mlflow-version": pod.mlflow_version,
            f"{LABEL}.size": pod.size.name,
        },
    }


def one_shot(*, memory: int, pids: int) -> dict[str, Any]:
    """What every container has that runs once, to its end, beside a server: no network, and bounds; the rest is added."""
    return {
        **_closed(),
        **_limits(memory=memory, pids=pids, cpus=ONE_SHOT_CPUS),  # no ulimits: nproc would count those of the server with this uid
        "network_mode": "none",
    }


def _closed() -> dict[str, Any]:
    """No right, nothing to write but mounts, and a log that fills no disk, whatever its words are."""
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "log_config": _log_config(LOG_SIZE),
        "use_config_proxy": False,  # the declared environment is the image's, nothing of whoever runs the service
    }


def _log_config(most: int) -> dict[str, Any]:
    return {"type": "json-file", "config": {"max-size": str(most), "max-file": LOG_FILES}}


def _limits(*, memory: int, pids: int, cpus: float) -> dict[str, Any]:
    """No swap: what a class says is what its server gets."""
    return {
        "mem_limit": memory,
        "memswap_limit": memory,
        "pids_limit": pids,
        "nano_cpus": int(cpus * CPU_UNIT),
    }


def _ulimits(pids: int) -> list[dict[str, Any]]:
    """All three are said: Podman would raise those that are not."""
    return [_ulimit("nofile", FILES), _ulimit("nproc", pids), _ulimit("core", 0)]


def _ulimit(name: str, most: int) -> dict[str, Any]:
    return {"Name": name, "Soft": most, "Hard": most}


def bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    """A mount that fails where the folder is missing, instead of making it for root."""
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _with_digest(made: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(made, sort_keys=True, default=str)
    return {**made, "labels": {**made["labels"], f"{LABEL}.digest": hashlib.sha256(text.encode()).hexdigest()[:32]}}
