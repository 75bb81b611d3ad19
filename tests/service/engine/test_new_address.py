"""`listen_address` is changed while servers run: nobody is restarted for it, and each has it from its next start on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.domain import BoxState
from backend.runtimes.process import ProcessRuntime
from backend.runtimes.proctable import guard_pid
from tests.service.engine.support import VERSION, Site, install_version

OLD, NEW = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    program = (Path(__file__).parent / "fake_box.py").read_text()
    install_version(tmp_path / "envs", VERSION, f"#!{sys.executable}\n{program}")
    runtime = ProcessRuntime(servers_dir=tmp_path / "state" / "servers", envs_dir=tmp_path / "envs", environment=dict(os.environ))
    site = opened(tmp_path, runtime, listen_address=OLD)
    yield site
    for server_id in site.boxes.ids():
        site.runtime.stop(server_id=server_id, directory=site.boxes.directory(server_id), timeout=0)


def opened(home: Path, runtime: ProcessRuntime, **settings: Any) -> Site:
    """The site as a service sees it that starts with these settings."""
    return Site(home / "state", runtime=runtime, envs_dir=home / "envs", **settings)


def test_it_counts_from_each_servers_next_start(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = site.made()
    directory = site.boxes.directory(server.id)
    guard = guard_pid(directory)
    monkeypatch.setattr("backend.reconcile.look.SILENT_SECONDS", -1)
    later = opened(tmp_path, site.runtime, port_first=server.port, ports=1, listen_address=NEW, portal_url="https://portal.example.org")
    reconciler = later.reconciler()
    for _look in range(3):
        reconciler.reconcile_all()
        assert (later.one().status, later.one().reason) == ("sleeping", None)
    assert guard_pid(directory) == guard
    wished = later.settings_of(server)
    assert (wished["listen"], wished["origins"]) == (f"{NEW}:{server.port}", ["https://portal.example.org"])
    for what in ("stop", "start"):
        asked = later.ask(what)
        reconciler.reconcile_all()
        assert later.operation(asked).state == "succeeded"
    seen = later.runtime.observe(server_id=server.id, directory=directory, address=(NEW, server.port))
    assert seen.state is BoxState.ASLEEP
    assert guard_pid(directory) not in {guard, None}
    assert f"listen {NEW}:{server.port} " in (directory / "run" / "nginx.conf").read_text()
