"""The Docker runtime: each tracking server is two containers (backend.runtimes.docker_spec). What runs is read from the daemon each time.

What a box needs stands in its directory: the port in ``config/settings.json``, the uids as the owners of its folders. So a box can be
started again by whoever has the directory, and nothing is remembered here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.domain import BoxState, Observation, SizeClass
from backend.errors import ServiceError
from backend.files.untrusted_files import refuse_links
from backend.i18n import Told
from backend.runtimes import failures
from backend.runtimes.docker import UNREADY, Engine, EngineConflictError, MissingError
from backend.runtimes.docker_seen import Container
from backend.runtimes.docker_spec import GATE, LABEL, MLFLOW, PYTHON, ROLES, Pod, bind, create_arguments, one_shot
from backend.runtimes.health import ask

MLFLOW_STOP_SECONDS: Final = 10.0
"""The gate has drained MLflow before: what is left is the spawner."""
MIGRATE_MEMORY: Final = 1024**3
MIGRATE_PIDS: Final = 64
_LOGS: Final = ("guard.log", "nginx-error.log", "mlflow.log")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all servers of an installation share. ``image``: a name with ``{version}`` in it."""

    install: str
    image: str
    listen_address: str
    networks: Mapping[str, Mapping[str, Any]]
    """Gate's and mlflow's, in this order: name to the arguments of ``networks.create``."""
    resolvers: tuple[str, ...] = ()
    ca_file: Path | None = None


class ContainerRuntime:
    """Implements the port ``Runtime``."""

    name = "docker"
    isolates = True

    def __init__(self, *, engine: Engine, site: Site) -> None:
        self._engine = engine
        self._site = site

    def start(self, *, server_id: str, directory: Path, mlflow_version: str, size: SizeClass) -> None:
        """See the port. A container that differs from what is wanted now (another image, size, address) is made anew."""
        wanted = create_arguments(self._pod(server_id, directory, mlflow_version, size))
        there = self._engine.of(server_id, fresh=True)
        if all(self._is_well(there.get(role), wanted[role]) for role in ROLES):
            return
        self._engine.ensure_networks(self._site.networks)
        try:
            for container in there.values():
                self._engine.remove(container.id)
            made = {role: self._engine.create(wanted[role]) for role in ROLES}
            for role in ROLES:
                self._engine.start(made[role])
        except (EngineConflictError, MissingError) as error:
            log = self._words(server_id) or None
            self._remove(self._engine.of(server_id, fresh=True))
            raise failures.refused(error, "box_failed_to_start", log=log) from error

    def migrate(self, *, server_id: str, directory: Path, mlflow_version: str, timeout: float) -> None:
        """See the port: in a container of that version's image, as the uid of the box's MLflow, with the database and nothing else."""
        refuse_links(directory)
        owner = _uids(directory)[1]
        arguments = {
            **one_shot(memory=MIGRATE_MEMORY, pids=MIGRATE_PIDS),
            "image": self._image_id(mlflow_version),
            "entrypoint": [PYTHON, "-P", "-m", "tracking_server.migrate"],
            "command": ["/box/data/mlflow.db"],
            "user": f"{owner}:{owner}",
            "environment": {"TMPDIR": "/box/data", "HOME": "/box/data"},
            "mounts": [bind(directory / "data", "/box/data")],
        }
        try:
            status, words = self._engine.run("migrate", arguments, seconds=timeout, writes=server_id)
        except (EngineConflictError, MissingError) as error:
            raise failures.refused(error, "runtime_refused", runtime=self.name) from error
        if status != 0:
            why = (words.strip().splitlines() or [Told("it ended with status {status}", status=status)])[-1]
            if status == UNREADY:
                why = Told("it did not end within {seconds} seconds", seconds=f"{timeout:g}")
            raise ServiceError("migration_failed", version=mlflow_version, why=why, log=words)

    def stop(self, *, server_id: str, directory: Path, timeout: float) -> None:  # noqa: ARG002 (the port's)
        """See the port. Its containers are removed: what was stopped does not come back with the host's next boot."""
        with _stopping():
            self._engine.end_writers(server_id)
        there = self._engine.of(server_id, fresh=True)
        with _stopping():
            for role, seconds in ((GATE, timeout), (MLFLOW, min(timeout, MLFLOW_STOP_SECONDS))):
                if role in there and there[role].runs:
                    self._engine.stop(there[role].id, seconds=seconds)
        self._remove(there)

    def observe(self, *, server_id: str, directory: Path, address: tuple[str, int]) -> Observation:  # noqa: ARG002 (the port's)
        """See the port. While the daemon does not answer, the box itself still may."""
        try:
            there = self._engine.of(server_id)
        except ServiceError as error:
            seen = ask(server_id, address)
            return seen if seen.state is not BoxState.SILENT else Observation(state=BoxState.SILENT, detail=str(error))
        # MLflow's container restarts by itself in an instant, while the gate keeps whoever waits
        down = [role for role in ROLES if role not in there or not (there[role].runs or (role == MLFLOW and there[role].restarts))]
        if not down:  # another address is taken by new containers only
            return ask(server_id, there[GATE].address or address)
        return Observation(state=BoxState.ABSENT, detail=self._why_down(there, down))

    def running(self) -> Sequence[str]:
        """See the port. Containers that have ended count: they would come back with the next boot, or hold their names."""
        return sorted({container.server_id for container in self._engine.containers(fresh=True)})

    def tidy(self) -> None:
        """Nothing is left of one-off containers that were cut short, nor of a server's that were made too late to be started."""
        self._engine.remove_left()

    def versions(self) -> Mapping[str, str]:
        """MLflow version to schema revision of the images that are there."""
        labels = [image.labels for image in self._engine.images(self._site.image.format(version="*"))]
        return {
            one["org.aihub.mlflow-version"]: one.get("org.aihub.schema-revision", "") for one in labels if "org.aihub.mlflow-version" in one
        }

    def logs(self, *, server_id: str, directory: Path, lines: int) -> str:  # noqa: ARG002 (the port's)
        """See the port. The daemon reads the files as the container sees them: a link in them leads nowhere outside."""
        there = self._engine.of(server_id)
        parts = [self._words(server_id, lines)]
        for name in _LOGS if GATE in there else ():
            tail = self._engine.tail(there[GATE].id, f"/box/log/{name}", lines)
            parts += [f"== {name}\n" + "\n".join(tail)] if tail else []
        return "\n".join(part for part in parts if part)

    def _pod(self, server_id: str, directory: Path, mlflow_version: str, size: SizeClass) -> Pod:
        refuse_links(directory)
        image = self._image_id(mlflow_version)
        gate, mlflow = self._site.networks
        return Pod(
            install=self._site.install,
            server_id=server_id,
            mlflow_version=mlflow_version,
            image=image,
            directory=directory,
            address=(self._site.listen_address, _port(directory)),
            uids=_uids(directory),
            size=size,
            networks=(gate, mlflow),
            resolvers=self._site.resolvers,
            ca_file=self._site.ca_file,
        )

    def _image_id(self, mlflow_version: str) -> str:
        try:
            return self._engine.image_id(self._site.image.format(version=mlflow_version))
        except MissingError as error:
            raise ServiceError("version_missing", version=mlflow_version) from error

    @staticmethod
    def _is_well(container: Container | None, wanted: Mapping[str, Any]) -> bool:
        return container is not None and container.runs and container.digest == wanted["labels"][f"{LABEL}.digest"]

    def _remove(self, containers: Mapping[str, Container]) -> None:
        """Error: ``box_failed_to_stop``."""
        with _stopping():
            for container in containers.values():
                self._engine.remove(container.id)

    def _why_down(self, there: Mapping[str, Container], down: Sequence[str]) -> str | None:
        if not there:
            return None
        gone = [role for role in down if role not in there]
        if gone:
            return Told("its container {role} was removed", role=gone[0])
        container = there[down[0]]
        with suppress(ServiceError):
            words = self._engine.log(container.id, 1).strip()
            if words:
                return words
        return Told("its container {role} is {state} ({status})", role=container.role, state=container.state, status=container.status)

    def _words(self, server_id: str, lines: int = 20) -> str:
        """What its containers said themselves, before any log file was open."""
        parts = []
        for role, container in sorted(self._engine.of(server_id).items()):
            words = self._engine.log(container.id, lines).strip()
            parts += [f"== {role}\n{words}"] if words else []
        return "\n".join(parts)


@contextmanager
def _stopping() -> Iterator[None]:
    """A container that the daemon cannot end or remove becomes ``box_failed_to_stop``, with the daemon's word."""
    try:
        yield
    except EngineConflictError as error:
        raise failures.refused(error, "box_failed_to_stop") from error


def _port(directory: Path) -> int:
    """The one in its settings: they are written before a box is started."""
    settings = json.loads((directory / "config" / "settings.json").read_text(encoding="utf-8"))
    return int(str(settings["listen"]).rpartition(":")[2])


def _uids(directory: Path) -> tuple[int, int]:
    """As its folders were prepared."""
    return (directory / "run").stat().st_uid, (directory / "data").stat().st_uid
