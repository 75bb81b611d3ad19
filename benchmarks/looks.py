"""What the reconciler's look at a server costs when nothing is to be done: `python -m benchmarks.looks --servers 300 --rounds 10`.

A real registry, keyring and folders, whose servers have users, tokens and sign-ins; what runs the servers is the tests' fake, which reads
only the times of a box's files. So it is the service's own part, in the processor's time of this process, all threads together. In turn
with it, what only reading each server's row by itself and making its files say what they should, whatever they say, would take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import select

from backend.domain import BoxState
from backend.plans.wanted import wanted_box
from backend.registry.models import Server, Token, Visit, now
from backend.settings import Settings
from tests.service.engine.support import FakeRuntime, Site

MANY = 8
"""Tokens and sign-ins of each server."""


def filled(home: Path, count: int) -> Site:
    """A site whose servers run, asleep."""
    runtime = FakeRuntime(born=BoxState.ASLEEP)
    site = Site(home / "state", envs_dir=home / "envs", ports=count + 1, runtime=runtime, max_servers_per_group=count, disk_least=0)
    for number in range(count):
        site.create(f"env-{number}")
    site.reconciler().reconcile_all()
    with site.registry.session() as session:
        for server in session.scalars(select(Server)):
            server.users = [{"name": f"user{each}", "bcrypt": "$2b$12$" + "x" * 53} for each in range(2)]
            for each in range(MANY):
                until = now() + timedelta(days=30)
                token = Token(id=f"{server.id[:10]}{each:02d}", name="jobs", user="alice", uid=1001, sha256="0" * 64, expires_at=until)
                server.tokens.append(token)
                server.visits.append(Visit(user=f"user{each}", uid=2000 + each, ticket_at=now()))
    return site


def files_one_by_one(site: Site) -> None:
    """Of each server the row and the files alone."""
    with site.registry.reading() as session:
        wanted = session.scalars(select(Server.id)).all()
    for server_id in wanted:
        with site.registry.reading() as session:
            box = wanted_box(session.get_one(Server, server_id), site.settings, site.keyring)
        assert not site.boxes.install(box), "nothing is to be done"


def seconds_of(way: Callable[[], None]) -> float:
    """Of the processor."""
    began = time.process_time()
    way()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = filled(Path(folder), options.servers)
        whole_pass = site.reconciler().reconcile_all
        for _ in range(3):  # the first tell the boxes of their tokens
            whole_pass()
        pairs = [(seconds_of(whole_pass), seconds_of(partial(files_one_by_one, site))) for _ in range(options.rounds)]
        site.registry.close()
    every = Settings.observe_seconds
    for name, values in (("a pass", [each for each, _ in pairs]), ("files one by one", [each for _, each in pairs])):
        ms = shown([each / options.servers * 1000 for each in values])
        print(f"{name}: {ms} ms of processor a server; every {every} s: {statistics.median(values) / every:.0%} of a core")
    if options.json:
        options.json.write_text(json.dumps(pairs) + "\n")


def shown(values: Sequence[float]) -> str:
    """The median, and the spread."""
    return f"{statistics.median(values):.2f} [{min(values):.2f} .. {max(values):.2f}]"


if __name__ == "__main__":
    main()
