"""What one listing of the daemon shows, as values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.errors import ServiceError
from backend.runtimes.docker_spec import LABEL

SEEN_SECONDS: Final = 1.0
"""One listing answers every look of a pass: hundreds of servers ask at the same time."""
LEFT_SECONDS: Final = 900.0
"""After that time a container that does not run and should have is nobody's any more, unless the daemon may be slower than that."""
ANSWERS: Final = 8
"""At most so many are waited for between the first create of a server's containers and the last start, questions asked twice included."""
SERVER, ONCE, WRITES = f"{LABEL}.server", f"{LABEL}.once", f"{LABEL}.writes"
"""Labels: of a server's two containers, whose they are; of a one-off one, what it does; and whose database it changes, if it does."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container of ours, as a listing has it. ``state``: Docker's word (``running``, ``restarting``, ``exited``, …). ``address``: where
    it takes connections on the host now; None: nowhere.
    """

    id: str
    name: str
    server_id: str
    role: str
    digest: str
    state: str
    status: str
    address: tuple[str, int] | None = None

    @property
    def runs(self) -> bool:
        return self.state == "running"

    @property
    def restarts(self) -> bool:
        return self.state == "restarting"


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of ours. ``created``: seconds since the epoch."""

    id: str
    created: int
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One listing: when it was asked for, when it was answered, and with what; ``left``: containers that are nobody's any more;
    ``writers``: one-off containers that change a server's database, and whose; ``failure``: why it was not answered.
    """

    began: float = float("-inf")
    ended: float = float("-inf")
    containers: tuple[Container, ...] = ()
    left: tuple[str, ...] = ()
    writers: Mapping[str, str] = field(default_factory=dict)
    failure: ServiceError | None = None

    def is_for(self, asked: float, *, fresh: bool, changed: float) -> bool:
        """Whether it is an answer to who asked then. A failure is everybody's who asked while it was waited for, or just after: a daemon
        that hangs is waited for once, and not once for each server.
        """
        if self.failure is not None:
            return self.ended >= asked - (0.0 if fresh else SEEN_SECONDS)
        return self.began >= max(asked, changed) if fresh else self.ended >= asked - SEEN_SECONDS and self.began >= changed


def seen_in(rows: Sequence[Mapping[str, Any]], *, began: float, timeout: float) -> Seen:
    """A listing that was just answered, with these rows, by a daemon that may take ``timeout`` seconds for an answer."""
    oldest = time.time() - max(LEFT_SECONDS, ANSWERS * timeout)
    labelled = [(row, row.get("Labels") or {}) for row in rows]
    return Seen(
        began=began,
        ended=time.monotonic(),
        containers=tuple(_container(row, labels) for row, labels in labelled if SERVER in labels),
        left=tuple(row["Id"] for row, labels in labelled if int(row.get("Created", 0)) < oldest and _is_left(row, labels)),
        writers={row["Id"]: labels[WRITES] for row, labels in labelled if WRITES in labels},
    )


def _container(row: Mapping[str, Any], labels: Mapping[str, str]) -> Container:
    return Container(
        id=row["Id"],
        name=(row.get("Names") or [row["Id"]])[0].lstrip("/"),
        server_id=labels[SERVER],
        role=labels.get(f"{LABEL}.role", ""),
        digest=labels.get(f"{LABEL}.digest", ""),
        state=str(row.get("State", "")),
        status=str(row.get("Status", "")),
        address=_published(row),
    )


def _published(row: Mapping[str, Any]) -> tuple[str, int] | None:
    """One port of ours, which Docker lists for IPv4 and for IPv6 where it is all addresses'."""
    found = [(str(each.get("IP") or ""), int(each["PublicPort"])) for each in row.get("Ports") or () if each.get("PublicPort")]
    return min(found, key=lambda place: ":" in place[0], default=None)


def _is_left(row: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A one-off container that does not run and that nobody is removing; or one of a server's that never ran: its create was answered after
    whoever asked had given up, so no row may know of it any more, and who starts the server makes it anew.
    """
    state = row.get("State")
    return (ONCE in labels and state not in {"running", "removing"}) or (SERVER in labels and state == "created")


def is_of(network: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a network of that name is the one that we made with these arguments. What has our label has our options: none can be changed
    later, and Podman does not tell them.
    """
    subnets = [each.get("Subnet") for each in (network.get("IPAM") or {}).get("Config") or ()]
    return subnets == [wanted["subnet"]] and wanted["labels"].items() <= (network.get("Labels") or {}).items()
