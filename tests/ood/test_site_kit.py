"""The site kit: its examples are what their readers take, and the documentation names all of it."""

import re
from pathlib import Path

import yaml
from mlwf.wire.connection import connection
from mlwf.wire.munge import MungeAuth

from ood_app.settings import load
from tests.ood.rendering import EXAMPLE, ROOT

KIT = ROOT / "deploy" / "ondemand"


def test_the_console_takes_its_part_of_the_example() -> None:
    settings = load({"AIHUB_SITE": str(EXAMPLE), "SECRET_KEY_BASE": "k" * 64})
    assert settings.portal_url == "https://portal.example.org"
    assert settings.export_form_url.endswith("/sys/mlflow/export_model/session_contexts/new")
    assert settings.image_form_url.endswith("/sys/mlflow/create_image/session_contexts/new")
    assert not settings.local_jobs


def test_the_forms_links_name_entries_that_exist() -> None:
    console = yaml.safe_load(EXAMPLE.read_text())["console"]
    for name in ("export_form_url", "image_form_url"):
        entry = console[name].split("/")[-3]
        assert (ROOT / "local" / f"{entry}.yml.erb").is_file()


def test_every_choice_of_the_forms_is_documented_and_in_the_example() -> None:
    page = (ROOT / "docs" / "reference" / "batch-connect.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", page.partition("The part `batch_connect`:")[2], flags=re.MULTILINE))
    used = set()
    for path in (ROOT / "form.yml.erb", ROOT / "view.html.erb", ROOT / "template" / "script.sh.erb"):
        text = path.read_text()
        used |= set(re.findall(r'offer\["(\w+)"\]', text)) | set(re.findall(r'\["batch_connect"\] \|\| \{\}\)\["(\w+)"\]', text))
    assert documented == used == set(yaml.safe_load(EXAMPLE.read_text())["batch_connect"])


def test_a_job_proves_who_calls_on_a_node_without_settings_of_its_own(tmp_path: Path) -> None:
    environment = yaml.safe_load(EXAMPLE.read_text())["batch_connect"]["environment"]
    reached = connection({**environment, "HOME": str(tmp_path)}, site_file=tmp_path / "mlwf.yml")
    assert isinstance(reached.auth, MungeAuth)


def test_the_host_pattern_is_narrow() -> None:
    lines = yaml.safe_load((KIT / "ood_portal.yml.example").read_text())
    assert lines["rnode_uri"] == "/rnode"
    pattern = re.compile(rf"^/rnode/(?P<host>{lines['host_regex']})/(?P<port>\d+)")
    assert pattern.match("/rnode/mlflow01.example.org/21000/mlflow/")
    for host in ("evil.example.com", "mlflow01-example.org", "mlflow01.example.org.evil.com", "localhost", "127.0.0.1"):
        assert not pattern.match(f"/rnode/{host}/21000/"), host


def test_the_clusters_and_the_environment_are_as_their_readers_want_them() -> None:
    adapters = {path.name: yaml.safe_load(path.read_text())["v2"]["job"]["adapter"] for path in (KIT / "clusters.d").iterdir()}
    assert adapters == {"slurm.yml.example": "slurm", "pbs.yml.example": "pbspro", "gridengine.yml.example": "sge"}
    environment = yaml.safe_load((KIT / "nginx_stage.yml.example").read_text())["pun_custom_env"]
    assert set(environment) == {"AIHUB_SITE"}


def test_both_apps_are_under_ai_hub() -> None:
    own = yaml.safe_load((ROOT / "manifest.yml").read_text())
    console = yaml.safe_load((ROOT / "ood_app" / "manifest.yml").read_text())
    assert (own["category"], own["role"]) == (console["category"], "batch_connect")
    assert own["name"] != console["name"]
