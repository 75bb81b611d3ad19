"""The service with `runtime: docker`, as an admin starts it, and an object store that its containers reach."""

import contextlib
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

from backend.networks import layout
from backend.networks.layout import install_id
from demo.containers import BRIDGE, address_of
from tests.service.edge.live import Live, live_service
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.s3 import S3Store
from tests.support.tls import Authority, in_front_of

GATE_NETWORK, MLFLOW_NETWORK = "10.214.4.0/24", "10.214.5.0/24"


class _Forward(socketserver.BaseRequestHandler):
    """One connection, passed on to the store on loopback."""

    def handle(self) -> None:
        with socket.create_connection(self.server.to) as store:  # type: ignore[attr-defined]
            back = threading.Thread(target=_pour, args=(store, self.request), daemon=True)
            back.start()
            _pour(self.request, store)
            back.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _pour(source: socket.socket, into: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            into.sendall(data)
    with contextlib.suppress(OSError):
        into.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def forwarded(address: str, port: int) -> Iterator[int]:
    """A port of that address, passed on to one of loopback."""
    with _Server((address, 0), _Forward) as server:
        server.to = ("127.0.0.1", port)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


@contextlib.contextmanager
def reachable(docker: Docker, store: S3Store) -> Iterator[str]:
    """The store's address for host and containers alike: Docker's own bridge, passed on to loopback."""
    gateway = address_of((docker.beside or docker).run(*BRIDGE))
    with forwarded(gateway, store.store.ports["s3"]) as port:
        yield f"http://{gateway}:{port}"


@contextlib.contextmanager
def reachable_by_https(docker: Docker, store: S3Store, authority: Authority) -> Iterator[str]:
    """As `reachable`, behind a certificate of that authority."""
    gateway = address_of(docker.run(*BRIDGE))
    with in_front_of(store.endpoint_url, authority, gateway) as tls, forwarded(gateway, tls) as port:
        yield f"https://{gateway}:{port}"


@contextlib.contextmanager
def docker_service(docker: Docker, store: S3Store, **settings: Any) -> Iterator[Live]:
    """A running service whose servers are containers; all of them and their networks are gone at the end."""
    docker.box_image(MLFLOW_VERSION)
    with reachable(docker, store) as endpoint_url:
        choices: dict[str, Any] = {
            "runtime": "docker",
            "allow_unisolated": False,
            "docker_host": docker.host,
            "gate_network": GATE_NETWORK,
            "mlflow_network": MLFLOW_NETWORK,
            "endpoint_url": endpoint_url,
            "mlflow_versions": [MLFLOW_VERSION],
        }
        with live_service(**choices | settings) as live:
            install = install_id(live.state)
            try:
                live.start()
                yield live
            finally:
                remove_containers(docker, install)
                live.stop()
                remove_containers(docker, install)  # what the reconciler brought back meanwhile
                for name in layout.network_names(install):
                    with contextlib.suppress(Exception):  # a service that never started has made none
                        docker.run("network", "rm", name)
                shutil.rmtree(live.state, ignore_errors=True)


def remove_containers(docker: Docker, install: str) -> None:
    found = docker.run("ps", "--all", "--quiet", "--filter", f"label=org.aihub.install={install}").split()
    if found:
        docker.run("rm", "--force", *found)
