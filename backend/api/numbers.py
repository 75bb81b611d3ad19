"""The service's numbers for a monitoring system: read from the registry, the reconciler's sign of life and the disk at each question.

Nothing here names a user, a group or a server.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from backend import __version__
from backend.domain import FINISHED, UNFINISHED, OperationKind, Status
from backend.files import disk
from backend.reconcile import heartbeat
from backend.registry.database import Registry
from backend.registry.models import Operation, Server, now
from backend.registry.tally import BOUNDS, ENDLESS, Tally
from backend.settings import Settings
from backend.wishes import portpool

_KIND_AND_STATE: Final = ("kind", "state")
TROUBLES: Final = ("box_ill", "database_lost", "disk_low", "group_changed", "port_taken", "server_too_large")
"""Reasons that are always told, with 0 where no server has them, so that a rule finds them before their first day."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the registry says, of one moment."""

    servers: Mapping[str, int]
    troubles: Mapping[str, int]
    unfinished: Mapping[tuple[str, str], int]
    oldest: datetime | None
    finished: Sequence[Tally]
    ports_free: int


class ServiceCollector(Collector):
    """Gathers them anew for each question."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry

    def describe(self) -> list[Metric]:
        """Nothing: the library would ask the registry for the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of them. Errors: those of the database and of the disk, before the first number."""
        with self._registry.reading() as session:
            numbers = _read(session, self._settings)
        whole = [*_service(self._settings), *_servers(numbers), *_operations(numbers), *_reconciler(self._settings)]
        yield from [*whole, *_disk(self._settings)]


def collectors(settings: Settings, registry: Registry) -> CollectorRegistry:
    """What the library writes out: ours alone, nothing of the process that answers."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServiceCollector(settings, registry))
    return made


def _read(session: Session, settings: Settings) -> Numbers:
    """Grouped by the database, so that it costs the same with ten servers and with ten thousand."""
    code = Server.reason["code"].as_string()
    here = Server.deleted_at.is_(None)
    open_now = Operation.state.in_(UNFINISHED)
    unfinished = select(Operation.kind, Operation.state, func.count()).where(open_now).group_by(Operation.kind, Operation.state)
    return Numbers(
        servers=_counts(session, select(Server.status, func.count()).group_by(Server.status)),
        troubles=_counts(session, select(code, func.count()).where(here, code.is_not(None)).group_by(code)),
        unfinished={(kind, state): count for kind, state, count in session.execute(unfinished)},
        oldest=session.scalar(select(func.min(Operation.created_at)).where(open_now)),
        finished=session.scalars(select(Tally)).all(),
        ports_free=portpool.count_free(session, settings),
    )


def _counts(session: Session, question: Select[str, int]) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(question)}


def _service(settings: Settings) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "aihub_build", "The service's version and what runs its servers.", {"version": __version__, "runtime": settings.runtime}
    )


def _servers(numbers: Numbers) -> Iterator[Metric]:
    servers = GaugeMetricFamily("aihub_servers", "Tracking servers by status; deleted ones can still be restored.", labels=["status"])
    for status in Status:
        servers.add_metric([status], numbers.servers.get(status, 0))
    yield servers
    troubled = GaugeMetricFamily(
        "aihub_servers_troubled", "Tracking servers with something wrong, by the reason's code (docs/reference/api.md).", labels=["reason"]
    )
    for reason in sorted({*TROUBLES, *numbers.troubles}):
        troubled.add_metric([reason], numbers.troubles.get(reason, 0))
    yield troubled
    yield GaugeMetricFamily("aihub_ports_free", "Ports that a new tracking server could be given.", numbers.ports_free)


def _operations(numbers: Numbers) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("aihub_operations_unfinished", "Operations that have not ended, by kind and state.", labels=_KIND_AND_STATE)
    for kind in OperationKind:
        for state in UNFINISHED:
            waiting.add_metric([kind, state], numbers.unfinished.get((kind, state), 0))
    yield waiting
    age = 0.0 if numbers.oldest is None else max(0.0, (now() - numbers.oldest).total_seconds())
    yield GaugeMetricFamily("aihub_operations_oldest_age_seconds", "Age of the oldest operation that has not ended; 0: there is none.", age)
    ended = CounterMetricFamily("aihub_operations", "Operations that ended, by kind and state.", labels=_KIND_AND_STATE)
    lasted = HistogramMetricFamily(
        "aihub_operation_duration_seconds", "Seconds from the request to the operation's end.", labels=_KIND_AND_STATE
    )
    for kind in OperationKind:
        for state in FINISHED:
            rows = [row for row in numbers.finished if (row.kind, row.state) == (kind, state)]
            ended.add_metric([kind, state], sum(row.count for row in rows))
            lasted.add_metric([kind, state], _buckets(rows), sum(row.seconds for row in rows))
    yield ended
    yield lasted


def _buckets(rows: Sequence[Tally]) -> list[tuple[str, float]]:
    """Cumulated, as histograms are written. A bound that an older version counted under goes to the next one above."""
    counts = dict.fromkeys((*BOUNDS, float(ENDLESS)), 0)
    for row in rows:
        counts[min(bound for bound in counts if bound >= float(row.bound))] += row.count
    names = (*map(str, BOUNDS), ENDLESS)
    return list(zip(names, accumulate(counts.values()), strict=True))


def _reconciler(settings: Settings) -> Iterator[Metric]:
    seen = heartbeat.last(settings.run_dir)
    at = 0.0 if seen is None else seen.at.timestamp()
    yield GaugeMetricFamily(
        "aihub_reconciler_last_pass_timestamp_seconds", "When the reconciler's last look at all servers went well; 0: never.", at
    )
    yield GaugeMetricFamily(
        "aihub_reconciler_last_pass_duration_seconds",
        "How long that look took until all its work was handed out.",
        0.0 if seen is None else seen.seconds,
    )


def _disk(settings: Settings) -> Iterator[Metric]:
    usage = shutil.disk_usage(disk.volume(settings))
    yield GaugeMetricFamily("aihub_state_volume_free_bytes", "Free bytes of the disk that holds the servers, for the service.", usage.free)
    yield GaugeMetricFamily("aihub_state_volume_size_bytes", "Size of that disk.", usage.total)
