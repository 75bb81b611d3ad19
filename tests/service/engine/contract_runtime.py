"""What every runtime must do. A runtime's own test module makes a `Bench` fixture and inherits `RuntimeContract`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlwf.secret import Secret

from backend.domain import Box, BoxState, Observation, StorageKey, new_server_id
from backend.errors import ServiceError
from backend.files.boxfiles import BoxDirectories
from backend.ports import Runtime
from tests.service.engine.support import SIZE, VERSION, schema_of, until


@dataclass
class Bench:
    """A runtime with a place for boxes. `kill` ends a box without a word, as a power cut would."""

    runtime: Runtime
    boxes: BoxDirectories
    kill: Callable[[str], None]
    ports: list[int]
    reopen: Callable[[], Runtime]
    version: str = VERSION
    uids: list[int] | None = None
    """Where boxes have uids of their own: the first of two for each."""

    def schema_of(self, directory: Path) -> str | None:
        """The version to which the box's database was migrated last."""
        return schema_of(directory / "data" / "mlflow.db")

    def box(self, server_id: str | None = None) -> tuple[str, Path, tuple[str, int]]:
        """A box that is written and does not run: id, directory, address."""
        server_id = server_id or new_server_id()
        address = ("127.0.0.1", self.ports.pop())
        listen = f"{address[0]}:{address[1]}" if self.uids is None else f"0.0.0.0:{address[1]}"
        settings: dict[str, object] = {
            "server_id": server_id,
            "listen": listen,
            "mlflow_version": self.version,
            "public_hosts": [f"{address[0]}:{address[1]}"],
            "bucket": "no-such-bucket",
            "prefix": f"mlflow/{server_id}",
            "endpoint_url": "http://s3.example.org",
        }
        keys = Secret('{"webhook_secret_encryption_key": "w", "crypto_kek_passphrase": "k", "flask_secret_key": "f"}')
        key = StorageKey(access_key_id="AKIA", secret_access_key=Secret("a secret of the box"))
        self.boxes.install(Box(server_id=server_id, settings=settings, key=key, keys=keys, uids=self._own_uids()))
        return server_id, self.boxes.directory(server_id), address

    def _own_uids(self) -> tuple[int, int] | None:
        if self.uids is None:
            return None
        first = self.uids.pop()
        return first, first + 1

    def start(self) -> tuple[str, Path, tuple[str, int]]:
        server_id, directory, address = self.box()
        self.runtime.start(server_id=server_id, directory=directory, mlflow_version=self.version, size=SIZE)
        self.settled(server_id, directory, address)
        return server_id, directory, address

    def settled(self, server_id: str, directory: Path, address: tuple[str, int]) -> Observation:
        """What is seen once the box answers."""

        def answer() -> Observation | None:
            seen = self.runtime.observe(server_id=server_id, directory=directory, address=address)
            return None if seen.state is BoxState.SILENT else seen

        found: Observation = until(answer)
        return found


class RuntimeContract:
    def test_a_box_that_was_started_is_seen_and_answers(self, bench: Bench):
        server_id, directory, address = bench.start()
        seen = bench.settled(server_id, directory, address)
        assert seen.state in {BoxState.ASLEEP, BoxState.WAKING, BoxState.AWAKE}, seen
        assert not seen.stranger
        assert list(bench.runtime.running()) == [server_id]

    def test_starting_again_leaves_it_alone(self, bench: Bench):
        server_id, directory, address = bench.start()
        bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=bench.version, size=SIZE)
        assert list(bench.runtime.running()) == [server_id]
        assert bench.settled(server_id, directory, address).state is not BoxState.ABSENT

    def test_stop_ends_it_and_gone_already_is_success(self, bench: Bench):
        server_id, directory, address = bench.start()
        for _ in range(2):
            bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
            assert bench.runtime.observe(server_id=server_id, directory=directory, address=address).state is BoxState.ABSENT
            assert list(bench.runtime.running()) == []

    def test_what_never_was_is_absent_and_can_be_stopped(self, bench: Bench):
        server_id = new_server_id()
        directory = bench.boxes.directory(server_id)
        assert bench.runtime.observe(server_id=server_id, directory=directory, address=("127.0.0.1", 1)).state is BoxState.ABSENT
        bench.runtime.stop(server_id=server_id, directory=directory, timeout=1)

    def test_a_version_that_is_not_there_is_said(self, bench: Bench):
        server_id, directory, _address = bench.box()
        with pytest.raises(ServiceError) as caught:
            bench.runtime.start(server_id=server_id, directory=directory, mlflow_version="0.0.1", size=SIZE)
        assert (caught.value.code, caught.value.params) == ("version_missing", {"version": "0.0.1"})
        assert list(bench.runtime.running()) == []

    def test_one_that_died_is_absent_and_starts_again(self, bench: Bench):
        server_id, directory, address = bench.start()
        bench.kill(server_id)
        until(lambda: bench.runtime.observe(server_id=server_id, directory=directory, address=address).state is BoxState.ABSENT)
        bench.runtime.start(server_id=server_id, directory=directory, mlflow_version=bench.version, size=SIZE)
        assert bench.settled(server_id, directory, address).state is not BoxState.ABSENT

    def test_another_runtime_object_finds_what_runs(self, bench: Bench):
        server_id, directory, address = bench.start()
        fresh = bench.reopen()
        assert list(fresh.running()) == [server_id]
        assert fresh.observe(server_id=server_id, directory=directory, address=address).state is not BoxState.ABSENT
        fresh.stop(server_id=server_id, directory=directory, timeout=20)
        assert list(bench.runtime.running()) == []

    def test_a_box_that_runs_is_asked_where_it_listens_whatever_address_is_wished_since(self, bench: Bench):
        server_id, directory, (_host, port) = bench.start()
        seen = bench.runtime.observe(server_id=server_id, directory=directory, address=("127.0.0.2", port))
        assert seen.state in {BoxState.ASLEEP, BoxState.WAKING, BoxState.AWAKE}, seen

    def test_boxes_do_not_meet(self, bench: Bench):
        first, second = bench.start(), bench.start()
        assert list(bench.runtime.running()) == sorted([first[0], second[0]])
        bench.runtime.stop(server_id=first[0], directory=first[1], timeout=20)
        assert list(bench.runtime.running()) == [second[0]]

    def test_a_database_is_migrated_by_the_version_that_is_named(self, bench: Bench):
        server_id, directory, _address = bench.start()
        until((directory / "data" / "mlflow.db").exists, 60)
        bench.runtime.stop(server_id=server_id, directory=directory, timeout=20)
        bench.runtime.migrate(server_id=server_id, directory=directory, mlflow_version=bench.version, timeout=60)
        assert bench.schema_of(directory) == bench.version
        assert list(bench.runtime.running()) == []
        with pytest.raises(ServiceError) as caught:
            bench.runtime.migrate(server_id=server_id, directory=directory, mlflow_version="0.0.1", timeout=60)
        assert caught.value.code == "version_missing"

    def test_logs_are_the_boxs_last_words_without_any_secret(self, bench: Bench):
        server_id, directory, _address = bench.start()
        logs = bench.runtime.logs(server_id=server_id, directory=directory, lines=100)
        assert "the guard runs" in logs, "what a failure's message shows"
        assert "a secret of the box" not in logs
