"""The service's listening sockets: the Unix socket for callers on this host, TCP behind the TLS nginx for those on others,
and TCP for who collects the metrics.
"""

from __future__ import annotations

import grp
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Final

from backend.i18n import _
from backend.settings import Settings

log = logging.getLogger(__name__)
_BACKLOG: Final = 1024


class CannotListenError(Exception):
    """The socket cannot be made; the message says why and the cure."""


@contextmanager
def listeners(settings: Settings) -> Iterator[dict[str, socket.socket]]:
    """The listening sockets by the names of their parts. Error: ``CannotListenError``."""
    with ExitStack() as stack:
        found = {"api": stack.enter_context(_listening(settings))}
        for name, address in addresses(settings).items():
            found[name] = stack.enter_context(_tcp(f"{name}_listen", address))
        yield found


def addresses(settings: Settings) -> dict[str, str]:
    """``ADDRESS:PORT`` of each TCP listener that the settings name, by its part; the setting is called ``PART_listen``."""
    named = {"munge": settings.munge_listen, "token": settings.token_listen, "metrics": settings.metrics_listen}
    return {name: address for name, address in named.items() if address is not None}


def conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings that name another one's address, each with why that cannot be."""
    for (first, one), (second, other) in combinations(addresses(settings).items(), 2):
        if one == other:
            why = _(
                "is the same as {other}, and each listener treats its callers in its own way; choose another port", other=f"{first}_listen"
            )
            yield f"{second}_listen", why


def somebody_listens(address: str) -> bool:
    """Whether a connection to ``ADDRESS:PORT`` is taken."""
    try:
        with socket.create_connection(_host_and_port(address), timeout=2):
            return True
    except OSError:
        return False


def _tcp(setting: str, address: str) -> socket.socket:
    host, port = _host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        told = _("{address} cannot be used ({why}); free that port, or name another one", address=address, why=error.strerror)
        raise CannotListenError(f"{setting}: {told}") from None
    log.info("listening on %s", address)
    return listener


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket. It gets its mode before it gets its name, and replaces a dead one by rename. Error: ``CannotListenError``."""
    path = settings.socket
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and not path.is_socket():
            raise CannotListenError(
                _("{path} exists and is not a socket; remove it, or name another place in the setting socket", path=path)
            )
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotListenError(
            _("{path} cannot be used ({why}); make it for the service's account, or set socket", path=path.parent, why=error.strerror)
        ) from None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = Path(f"/proc/self/fd/{folder}/.{path.name[:60]}.{os.getpid()}")  # short, however deep the folder lies
    try:
        try:
            new.unlink(missing_ok=True)
            with ExitStack() as unfinished:
                listener.bind(str(new))
                unfinished.callback(new.unlink)
                _open_to_users(new, settings)
                listener.listen(_BACKLOG)
                new.rename(new.with_name(path.name))
                unfinished.pop_all()
        except OSError as error:
            raise CannotListenError(
                _("the socket {path} cannot be made ({why}); see its folder's owner and mode", path=path, why=error.strerror)
            ) from None
        log.info("listening on %s", path)
        yield listener
        path.unlink(missing_ok=True)
    finally:
        listener.close()
        os.close(folder)


def _open_to_users(path: Path, settings: Settings) -> None:
    if settings.socket_group is None:
        path.chmod(0o666)
        return
    try:
        gid = grp.getgrnam(settings.socket_group).gr_gid
    except KeyError:
        raise CannotListenError(
            _("socket_group: there is no group {group}; name one that exists, or leave it out", group=settings.socket_group)
        ) from None
    os.chown(path, -1, gid)
    path.chmod(0o660)
