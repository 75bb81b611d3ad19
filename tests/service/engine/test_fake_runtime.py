"""The fake that the other tests stand on keeps the contract too."""

from pathlib import Path

import pytest

from backend.files.boxfiles import BoxDirectories
from tests.service.engine.contract_runtime import Bench, RuntimeContract
from tests.service.engine.support import FakeRuntime


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    runtime = FakeRuntime()
    return Bench(
        runtime=runtime,
        boxes=BoxDirectories(tmp_path),
        kill=runtime.kill,
        ports=[1, 2, 3],
        reopen=lambda: runtime,
    )


class TestFakeRuntime(RuntimeContract):
    pass
