"""The one place that speaks Docker (or Podman's Docker-compatible socket). Where it does not answer, that is ``runtime_unavailable``."""

from __future__ import annotations

import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import docker  # type: ignore[import-untyped]
import requests
from docker import errors

from backend.errors import ServiceError
from backend.runtimes import failures
from backend.runtimes.boxlogs import tail_of
from backend.runtimes.docker_about import About, about_in
from backend.runtimes.docker_seen import ONCE, WRITES, Container, Image, Seen, is_of, seen_in
from backend.runtimes.docker_spec import LABEL

log = logging.getLogger(__name__)

T = TypeVar("T")
_CONNECTIONS: Final = 64
UNREADY: Final = 124
"""What ``Engine.run`` gives as the status of a container that was not ready in time."""
_POLL: Final = 0.1
_BEING_REMOVED: Final = re.compile(r"removal of container \S+ is already in progress")
_REFUSED_API: Final = re.compile(r"client version [0-9.]+ is too (old|new)")


class EngineConflictError(Exception):
    """The daemon refuses: the name is taken, the port is taken, a mount is missing … ``str`` is its own word."""


class MissingError(Exception):
    """There is no such image, network or container."""


class Engine:
    """The daemon at ``address`` (``unix:///run/docker.sock``), for the installation ``install``: what has another label is invisible."""

    def __init__(self, *, address: str, install: str, timeout: float) -> None:
        self.address = address
        self._install = install
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: Any = None
        self._close: Callable[[], object] | None = None
        self._has_root = False
        self._listing = threading.Lock()
        self._networking = threading.Lock()
        self._seen = Seen()
        self._changed = float("-inf")
        self._stuck = frozenset[str]()

    def close(self) -> None:
        """Close its connections. One that is not closed closes them when nobody has it any more."""
        with self._lock:
            if self._close is not None:
                self._close()
            self._made, self._close, self._has_root = None, None, False

    def ensure_root(self) -> None:
        """A daemon without root's rights cannot give boxes their uids, leaves out limits without a word, and its traffic does not
        pass the host's firewall rules. Error: ``runtime_rootless``.
        """
        if not self._has_root:
            if self.about().rootless:
                raise ServiceError("runtime_rootless", address=self.address)
            self._has_root = True

    def about(self) -> About:
        """What it tells of itself now."""
        return about_in(self._ask_all(lambda client: client.info()))

    def containers(self, *, fresh: bool = False) -> tuple[Container, ...]:
        """All of ours, those that do not run included; at most ``SEEN_SECONDS`` old."""
        return self._show(fresh=fresh).containers

    def _show(self, *, fresh: bool = False) -> Seen:
        """The listing. Those who ask at once share one answer."""
        asked = time.monotonic()
        with self._listing:
            if not self._seen.is_for(asked, fresh=fresh, changed=self._changed):
                self._seen = self._look()
            seen = self._seen
        if seen.failure is not None:
            raise ServiceError(seen.failure.code, runtime="docker", why=seen.failure.params["why"])
        return seen

    def remove_left(self) -> None:
        """Remove what is nobody's any more; what cannot be removed is said once, is in nobody's way, and is tried again."""
        stuck = set[str]()
        for container in self._show().left:
            try:
                self.remove(container, if_it_runs=False)
            except EngineConflictError as error:
                stuck.add(container)
                if container not in self._stuck:
                    log.warning("the container %s, which nobody needs any more, cannot be removed (tried again): %s", container, error)
        self._stuck = frozenset(stuck)

    def end_writers(self, server_id: str) -> None:
        """Remove the one-off containers that change that server's database: who waited for them was killed, and they went on. Error:
        ``EngineConflictError``.
        """
        for container, whose in self._show(fresh=True).writers.items():
            if whose == server_id:
                self.remove(container)

    def of(self, server_id: str, *, fresh: bool = False) -> dict[str, Container]:
        """That server's containers by role."""
        return {found.role: found for found in self.containers(fresh=fresh) if found.server_id == server_id}

    def image_id(self, name: str) -> str:
        """Error: ``MissingError``."""
        return str(self._ask(lambda client: client.images.get(name).id))

    def images(self, reference: str) -> list[Image]:
        """Those whose name matches ``reference`` (``*`` stands for anything)."""
        rows = self._ask_all(lambda client: client.api.images(filters={"reference": reference}))
        return [Image(id=row["Id"], created=int(row["Created"]), labels=row.get("Labels") or {}) for row in rows]

    def create(self, arguments: Mapping[str, Any]) -> str:
        """Make a container, not started; returns its id. Errors: ``EngineConflictError``, ``MissingError``, ``runtime_rootless``."""
        self.ensure_root()
        return str(self._ask(lambda client: client.containers.create(**arguments).id, changes=True))

    def start(self, container: str) -> None:
        """Error: ``EngineConflictError``."""
        self._ask(lambda client: client.api.start(container), changes=True)

    def stop(self, container: str, *, seconds: float) -> None:
        """SIGTERM, then SIGKILL after ``seconds``; gone already is fine. Error: ``EngineConflictError``."""
        self._ask_gone(lambda client: client.api.stop(container, timeout=max(0, int(seconds))))

    def remove(self, container: str, *, if_it_runs: bool = True) -> None:
        """Kill and remove; gone already is fine. Error: ``EngineConflictError``.

        Where somebody else's removal is under way it is asked for again until that one's end: only then the name is free, and one that
        failed leaves the container there.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self._ask_gone(lambda client: client.api.remove_container(container, force=if_it_runs, v=True))
            except EngineConflictError as error:
                if not _BEING_REMOVED.search(str(error)) or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_POLL)

    def log(self, container: str, lines: int) -> str:
        """The last lines of its standard output and error; nothing for one that is gone, or is being removed."""
        try:
            return (self._ask_gone(lambda client: client.api.logs(container, tail=lines)) or b"").decode(errors="replace")
        except EngineConflictError:
            return ""

    def tail(self, container: str, path: str, lines: int) -> list[str]:
        """The last telling lines of a log as the container sees it: its links lead nowhere outside. Nothing where there is none, or where
        the daemon cannot look into the container any more, or ends while it does: the log only tells more of a failure that has its word.
        """
        try:
            return self._ask_gone(lambda client: tail_of(client.api.get_archive(container, path)[0], lines)) or []
        except (EngineConflictError, ServiceError):
            return []

    def run(self, what: str, arguments: Mapping[str, Any], *, seconds: float, writes: str | None = None) -> tuple[int, str]:
        """Run a one-off container to its end and remove it: exit status and, unless that is 0, the last lines it said. ``what``: a word
        for its label. ``writes``: the id of the server whose database it changes; no two of these run at once.

        Errors: ``MissingError``, ``EngineConflictError``, ``runtime_unavailable``. The status is ``UNREADY`` where it was not in time.
        """
        labels = {f"{LABEL}.install": self._install, ONCE: what}
        if writes is not None:
            self.end_writers(writes)
            labels[WRITES] = writes
        container = self.create({**arguments, "labels": labels})
        try:
            self.start(container)
            status = self._wait(container, seconds)
            return status, self.log(container, 40) if status else ""
        finally:
            self.remove(container)

    def ensure_networks(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Make those that are not there, by name. Errors: ``network_unusable``, ``network_differs``."""
        if not self._missing_networks(wanted):
            return  # so it is nearly always: a daemon that hangs then holds nobody up who waits for the lock
        with self._networking:
            for name in self._missing_networks(wanted):
                self._make_network(name, wanted[name])

    def _missing_networks(self, wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Error: ``network_differs``."""
        there = {network.name: network.attrs for network in self._ask_all(lambda client: client.networks.list(names=list(wanted)))}
        for name, arguments in wanted.items():
            if name in there and not is_of(there[name], arguments):
                raise ServiceError("network_differs", network=name, subnet=arguments["subnet"])
        return [name for name in wanted if name not in there]

    def _make_network(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Refused is fine where it is there all the same: another process made it at the same moment."""
        options = {key: value for key, value in arguments.items() if key != "subnet"}
        ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=arguments["subnet"])])
        try:
            self._ask(lambda client: client.networks.create(name, ipam=ipam, check_duplicate=True, **options), changes=True)
        except (EngineConflictError, MissingError) as error:
            if self._missing_networks({name: arguments}):
                raise failures.refused(error, "network_unusable", network=arguments["subnet"]) from error

    def _look(self) -> Seen:
        began, wanted = time.monotonic(), {"label": f"{LABEL}.install={self._install}"}
        try:
            rows = self._ask_all(lambda client: client.api.containers(all=True, filters=wanted))
        except ServiceError as error:
            return Seen(began=began, ended=time.monotonic(), failure=error)
        return seen_in(rows, began=began, timeout=self._timeout)

    def _wait(self, container: str, seconds: float) -> int:
        try:
            return int(self._ask(lambda client: client.api.wait(container, timeout=seconds))["StatusCode"])
        except ServiceError as error:
            if error.params.get("why") != failures.LATE:
                raise
            return UNREADY

    def _client(self) -> Any:
        """Made at the first use: a service may start before the daemon does. Those who come at once do not wait for one another's try."""
        if self._made is not None:
            return self._made
        made = docker.DockerClient(base_url=self.address, version="auto", timeout=self._timeout, num_pools=4, max_pool_size=_CONNECTIONS)
        with self._lock:
            if self._made is None:
                self._made, self._close = made, weakref.finalize(self, made.close)
                return made
        made.close()
        return self._made

    def _ask(self, question: Callable[[Any], T], *, changes: bool = False) -> T:
        """Whatever a change did, also one that failed half-way, the next listing must show. Errors: ``MissingError``,
        ``EngineConflictError``; of a plain question ``runtime_refused`` (by a proxy before the daemon, say), ``runtime_unavailable``.
        """
        try:
            return self._answer(question)
        except errors.NotFound as error:
            raise MissingError(_word(error)) from error
        except errors.APIError as error:
            if changes:
                raise EngineConflictError(_word(error)) from error
            if error.status_code is not None and error.status_code < 500:
                raise _refused(_word(error)) from error
            raise _unavailable(_word(error)) from error
        except (errors.DockerException, requests.RequestException) as error:
            raise _unavailable(failures.kind(error)) from error
        finally:
            if changes:
                self._changed = time.monotonic()

    def _answer(self, question: Callable[[Any], T]) -> T:
        """Where another version of the daemon is there now than when the API's was settled, it is settled anew."""
        try:
            return question(self._client())
        except errors.APIError as error:
            if not _REFUSED_API.search(_word(error)):
                raise
        self.close()
        return question(self._client())

    def _ask_all(self, question: Callable[[Any], T]) -> T:
        """Ask what is there at all, to which nothing can be missing."""
        try:
            return self._ask(question)
        except MissingError as error:
            raise _refused(str(error)) from error

    def _ask_gone(self, question: Callable[[Any], T]) -> T | None:
        try:
            return self._ask(question, changes=True)
        except MissingError:
            return None


def _unavailable(why: str) -> ServiceError:
    return ServiceError("runtime_unavailable", runtime="docker", why=why)


def _refused(why: str) -> ServiceError:
    return ServiceError("runtime_refused", runtime="docker", why=why)


def _word(error: errors.APIError) -> str:
    return str(error.explanation or error)[:500]
