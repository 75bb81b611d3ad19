"""The scrape configuration and the alerts: their names are ours, Prometheus' own tool accepts them, and Prometheus itself runs them."""

import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backend.api.numbers import collectors
from backend.registry.database import Registry
from backend.settings import Settings
from demo.ports import free_ports
from tests.service.edge.live import AIHUB, Live, live_service, until

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "aihub.rules.yml"
SCRAPE = ROOT / "deploy" / "prometheus" / "scrape.yml"
CASES = Path(__file__).with_name("aihub.rules.test.yml")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    (port,) = free_ports(1)
    with live_service(metrics_listen=f"127.0.0.1:{port}") as service:
        service.start()
        yield service


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 (ours)
        text: str = answer.read().decode()
    return text


def test_every_name_and_label_of_the_rules_is_one_that_the_service_tells(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    registry = Registry(settings.database_url)
    registry.migrate()
    families = text_string_to_metric_families(generate_latest(collectors(settings, registry)).decode())
    told = {(sample.name, *sample.labels.items()) for family in families for sample in family.samples}
    names = {name for name, *_ in told}
    for rule in rules():
        used = re.findall(r"(aihub_\w+)(?:\{(\w+)=\"(\w+)\"\})?", rule["expr"])
        assert used
        for name, label, value in used:
            assert name in names, rule["alert"]
            assert not label or (name, (label, value)) in told, rule["alert"]
        assert {"summary", "description"} <= set(rule["annotations"])
    registry.close()
    (job,) = yaml.safe_load(SCRAPE.read_text())
    assert {rule["expr"].count('job="aihub"') for rule in rules()} == {0, 2}
    assert job["job_name"] == "aihub"


def test_every_command_that_an_alert_names_is_one() -> None:
    for rule in rules():
        for command in re.findall(r"`aihub ([a-z ]+)[^`]*`", rule["annotations"]["description"]):
            done = subprocess.run([AIHUB, *command.split(), "--help"], capture_output=True, check=False)
            assert done.returncode == 0, command


@pytest.mark.heavy
def test_promtool_accepts_the_rules_and_they_alert_when_they_should(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text().replace("RULES", str(RULES)))
    for argv in (["promtool", "check", "rules", str(RULES)], ["promtool", "test", "rules", str(cases)]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.heavy
def test_prometheus_collects_the_numbers_and_evaluates_the_rules(live: Live, tmp_path: Path) -> None:
    (job,) = yaml.safe_load(SCRAPE.read_text())
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [live.settings["metrics_listen"]]}]}
    file = tmp_path / "prometheus.yml"
    configuration = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": [job]}
    file.write_text(yaml.safe_dump(configuration))
    (port,) = free_ports(1)
    argv = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:

        def ask(path: str) -> Any:
            with contextlib.suppress(OSError):
                return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}"))["data"]

        def evaluated() -> dict[str, tuple[str, str]]:
            groups = (ask("rules") or {"groups": []})["groups"]
            return {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}

        query = "query?query=aihub_reconciler_last_pass_timestamp_seconds"
        value = until(lambda: (found := ask(query)) and found["result"], what="a number")
        assert float(value[0]["value"][1]) > 0
        calm = {rule["alert"]: ("ok", "inactive") for rule in rules()}
        until(lambda: evaluated() == calm, what="the rules' evaluation, with nothing to tell")
        live.stop()
        until(lambda: evaluated().get("AihubNotWorking") == ("ok", "pending"), what="the alert that waits for its minutes")
    finally:
        process.terminate()
        process.wait(20)
