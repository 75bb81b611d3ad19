"""What the service's processes are made of."""

import subprocess
import sys
from pathlib import Path

import pytest

from backend.serving import wiring
from backend.settings import SettingsError
from tests.service.edge.world import make_settings

ROOT = Path(__file__).parents[3]


def modules_after(imports: str) -> set[str]:
    script = f"import {imports}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_services_processes_never_hold_mlflow_or_the_box() -> None:
    loaded = modules_after(
        "backend.serving.wiring, backend.api.app, backend.serving.http_server, "
        "backend.adapters.s3, backend.cli.servers, backend.runtimes.process"
    )
    assert {"flask", "sqlalchemy", "boto3", "gunicorn"} <= loaded
    assert not loaded & {"mlflow", "tracking_server", "docker", "ood_app", "demo", "tests", "pytest"}


def test_the_supervisor_is_light() -> None:
    assert not modules_after("backend.serving.supervisor") & {"sqlalchemy", "flask", "boto3", "pydantic", "cryptography", "gunicorn"}


def test_a_runtime_that_keeps_nobody_apart_must_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one group could read another's keys; choose another runtime, or set allow_unisolated: true"):
        wiring.make_runtime(make_settings(tmp_path, allow_unisolated=False))
    assert not wiring.make_runtime(make_settings(tmp_path)).isolates


def test_everything_is_wired(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.run_dir.mkdir(parents=True)
    service = wiring.make_service(settings)
    assert (service.runtime_name, service.runtime_isolates) == ("process", False)
    assert wiring.make_reconciler(settings)
    service.registry.close()
