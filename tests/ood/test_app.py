"""The batch-connect app: its form, its submission and the service agree, and whatever is typed reaches nothing but a JSON file."""

import base64
import fnmatch
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlwf.errors import WrongUseError
from mlwf.job.request import NEEDED, JobRequest
from pydantic import ValidationError

from backend.api.inputs import LeasePut, ServerCreate
from backend.domain import BUCKET_NAME, ENV_NAME
from backend.settings_file import load
from tests.ood.rendering import EXAMPLE, EXPORT, IMAGE, ROOT, SERVER, form, render, submit, template

TASKS = {"server": SERVER, "export": EXPORT, "image": IMAGE}
SUB_APPS = {"server": "server.yml", "export": "export_model.yml.erb", "image": "create_image.yml.erb"}
HOSTILE = [
    "a'b",
    'a"b',
    "a`id`b",
    "$(touch /tmp/owned)",
    "${HOME}",
    "a\nb: c",
    "a\r\nb",
    "--- !ruby/object:Gem::Installer",
    "{a: b}",
    "*anchor",
    "a\\nb",
    "<%= 7 * 7 %>",
    "<script>alert(1)</script>",
    "モデル 🍷",
    "a\u2028b",
    "a\u202eb",
    "-rf",
    "../../etc/passwd",
    "/etc/passwd; id",
    "null",
    "0123",
    "a\tb",
    "%s%n",
    "~root",
    "x" * 5000,
    "docker-daemon:python:3.11",
    "docker-archive:/a.tar",
    "docker-archive:a.tar",
    "docker:x",
]
TYPED = ["group_name", "env_name", "cloud_storage_bucket_name", "profile", "model_name", "model_version", "model_package"]
TYPED += ["base_container_url", "output_dir", "bc_num_hours", "bc_queue", "at_end", "mlflow_task"]


@pytest.fixture(scope="module")
def forms() -> dict[str, dict[str, Any]]:
    rendered = render([form(name) for name in SUB_APPS.values()])
    return {task: each["result"] for task, each in zip(SUB_APPS, rendered, strict=True)}


def test_each_form_asks_for_what_its_task_needs(forms: dict[str, dict[str, Any]]) -> None:
    for task, found in forms.items():
        assert found["attributes"]["mlflow_task"] == task
        needed = {"bc_num_hours" if name == "hours" else name for name in NEEDED[task]} | {"mlflow_task", "bc_num_hours", "bc_queue"}
        assert needed <= set(found["form"]), task
        assert set(found["form"]) <= {*found["attributes"]}, "each field is described"
        assert set(found["form"]) == set(TASKS[task]) - {"cluster"}, "the tests' own values are a whole form"


def test_no_form_has_a_place_for_a_secret(forms: dict[str, dict[str, Any]]) -> None:
    for found in forms.values():
        for name, attribute in found["attributes"].items():
            assert not re.search(r"secret|key|pass|token", name)
            assert not isinstance(attribute, dict) or attribute.get("widget") not in {"password_field", "text_area"}
    assert "Never type a key here" in forms["server"]["attributes"]["profile"]["help"]
    assert "(/pun/sys/mlflow-console)" in forms["server"]["attributes"]["profile"]["help"]


def test_the_forms_patterns_are_the_services(forms: dict[str, dict[str, Any]]) -> None:
    attributes = forms["server"]["attributes"]
    for name, rule in (("env_name", ENV_NAME), ("cloud_storage_bucket_name", BUCKET_NAME)):
        # In a browser's patterns a hyphen in brackets is escaped, and both ends are anchored.
        assert attributes[name]["pattern"].replace("\\-", "-") == rule.strip("^$")


def test_an_image_asks_for_a_server_and_needs_none(forms: dict[str, dict[str, Any]]) -> None:
    for name in ("group_name", "env_name"):
        assert forms["image"]["attributes"][name]["required"] is False
        assert forms["export"]["attributes"][name]["required"] is True
    (with_none,) = render([submit({**IMAGE, "group_name": "", "env_name": ""})])
    assert "result" in with_none


@pytest.mark.parametrize(
    ("locale", "words"), [("en", ["Absolute path", "3 to 63", "letters, digits"]), ("ja", ["絶対パス", "3〜63", "英数字"])]
)
def test_what_is_refused_as_not_as_described_is_described(locale: str, words: list[str]) -> None:
    (found,) = render([form("server.yml")], locale=locale)
    attributes = found["result"]["attributes"]
    for name, rule in zip(["output_dir", "cloud_storage_bucket_name", "bc_queue"], words, strict=True):
        assert rule in attributes[name]["help"]


def test_choices_come_from_the_sites_file(tmp_path: Path) -> None:
    site = tmp_path / "site.yml"
    offer = {"clusters": ["hpc"], "queues": ["a", "b"], "hours": {"default": 3, "max": 5}, "base_containers": ["docker://x", "docker://y"]}
    site.write_text(yaml.safe_dump({"service": {"allowed_groups": ["no-such-group*"]}, "batch_connect": offer}))
    (found,) = render([form("create_image.yml.erb")], site=site)
    attributes = found["result"]["attributes"]
    assert found["result"]["cluster"] == ["hpc"]
    assert (attributes["group_name"]["options"], attributes["group_name"]["value"]) == ([""], "")
    assert (attributes["bc_queue"]["widget"], attributes["bc_queue"]["options"]) == ("select", ["a", "b"])
    assert (attributes["bc_num_hours"]["value"], attributes["bc_num_hours"]["max"]) == (3, 5)
    assert (attributes["base_container_url"]["widget"], attributes["base_container_url"]["options"]) == (
        "select",
        ["docker://x", "docker://y"],
    )


def test_groups_are_matched_as_the_service_matches_them(tmp_path: Path) -> None:
    groups = ["DOMAIN\\研究", "domain users", "研究室", "staff@ad", "other"]
    for patterns in (["DOMAIN\\*"], ["研究*", "staff@*"], ["*users"], ["*\\*"], ["[do]*"]):
        site = tmp_path / "site.yml"
        site.write_text(yaml.safe_dump({"service": {"allowed_groups": patterns}}, allow_unicode=True), "utf-8")
        (found,) = render([{**form("server.yml"), "groups": groups}], site=site)
        offered = [group for group in sorted(groups) if any(fnmatch.fnmatchcase(group, pattern) for pattern in patterns)]
        assert found["result"]["attributes"]["group_name"]["options"] == ["", *offered]


def test_the_form_is_japanese_where_the_portal_is() -> None:
    (found,) = render([form("server.yml")], locale="ja_JP")
    assert "グループ" in found["result"]["attributes"]["group_name"]["help"]
    (refused,) = render([submit({**SERVER, "env_name": "Wine"})], locale="ja_JP")
    assert refused["error"].startswith("RuntimeError: env_name の値は使えません")


@pytest.mark.parametrize("task", TASKS)
def test_a_good_form_is_submitted_without_any_of_its_values(task: str) -> None:
    (found,) = render([submit(TASKS[task])])
    assert found["result"] == {
        "batch_connect": {"template": "basic", "conn_params": ["card"]},
        "script": {"job_name": f"mlflow-{task}"},
    }


@pytest.mark.parametrize("task", TASKS)
def test_on_grid_engine_a_job_is_for_bash_has_one_output_and_is_warned(task: str, tmp_path: Path) -> None:
    (found,) = render([submit({**TASKS[task], "cluster": "grid"})])
    assert found["result"]["script"] == {"job_name": f"mlflow-{task}", "native": ["-S", "/bin/bash", "-j", "y", "-notify"]}
    unknown = render([submit({**TASKS[task], "cluster": name}) for name in ("none", "", "grid;one")])
    assert [each["result"]["script"] for each in unknown] == [{"job_name": f"mlflow-{task}"}] * 3


def as_request(values: dict[str, str]) -> dict[str, str]:
    names = {"mlflow_task": "task", "bc_num_hours": "hours"}
    return {names.get(name, name): value.strip() for name, value in values.items() if name not in {"cluster", "bc_queue"}}


def takes(values: dict[str, str]) -> bool:
    try:
        JobRequest.from_json(as_request(values))
    except WrongUseError:
        return False
    return True


PACKAGES = {
    "s3://b/a/model.tar.gz": True,
    "s3://b/": False,
    "https://h:8/m?a=b@c": True,
    "https://u:p@h/m": False,
    "http://h/m": False,
    "models:/wine/1": True,
    "models:/wine@best": True,
    "models:/ワイン 50%@東京/12": True,
    "models:/wine": False,
    "/m.tar.gz": True,
    "/" + "m" * 2048: False,
}


def test_submission_and_job_take_the_packages_that_the_command_takes() -> None:
    changed = [{**IMAGE, "model_package": package} for package in PACKAGES]
    assert [takes(each) for each in changed] == list(PACKAGES.values())
    assert ["result" in each for each in render([submit(values) for values in changed])] == list(PACKAGES.values())
    nameless = {**IMAGE, "model_package": "models:/wine/1", "group_name": ""}
    (refused,) = render([submit(nameless)])
    assert not takes(nameless)
    assert refused["error"] == "RuntimeError: group_name is empty: fill it in."


def test_submission_and_job_refuse_the_same() -> None:
    tried = [(task, name, word) for task, values in TASKS.items() for name in values if name in TYPED for word in [*HOSTILE, ""]]
    tried = [each for each in tried if each[1] != "bc_queue"]
    changed = [{**TASKS[task], name: word} for task, name, word in tried]
    # What a portal's form needs besides: both of a new server's fields or none, and the hours for the scheduler.
    portals = [("server", "cloud_storage_bucket_name", ""), ("server", "profile", "")]
    portals += [(task, "bc_num_hours", "") for task in ("export", "image")]
    for each, values, answer in zip(tried, changed, render([submit(values) for values in changed]), strict=True):
        assert ("result" in answer) == (takes(values) and each not in portals), (each, answer)
        assert "result" in answer or answer["error"].startswith("RuntimeError: "), answer


def test_submission_and_service_refuse_the_same_names() -> None:
    words = [*HOSTILE, "wine", "w", "Wine", "-wine", "a_b-c", "a" * 255, "a" * 256, "ab"]
    answers = render([submit({**SERVER, "env_name": word}) for word in words])
    for word, answer in zip(words, answers, strict=True):
        body = {"group": "g", "env_name": word.strip(), "bucket": "bbb", "access_key_id": "k", "secret_access_key": "s"}
        try:
            ServerCreate.model_validate(body)
            good = True
        except ValidationError:
            good = False
        assert ("result" in answer) == good, word
    assert set(LeasePut.model_json_schema()["properties"]["at_end"]["enum"]) == {"keep", "stop"}


@pytest.mark.parametrize("queue", ["gpu; id", "-p x", "a b", "$(id)"])
def test_a_queue_is_a_word(queue: str) -> None:
    (answer,) = render([submit({**SERVER, "bc_queue": queue})])
    assert "bc_queue" in answer["error"]


def test_the_sites_limits_hold_whatever_a_browser_sends(tmp_path: Path) -> None:
    """Queues as Open OnDemand's choices may be written: a word, a number, or a pair of label and value."""
    site = tmp_path / "site.yml"
    bases = [IMAGE["base_container_url"], "docker://other"]
    offer = {"hours": {"max": 9}, "queues": ["gpu", 7, ["The long one", "long", {"data-hide-profile": True}]], "base_containers": bases}
    site.write_text(yaml.safe_dump({"batch_connect": offer}))
    good = {**IMAGE, "bc_num_hours": "9", "bc_queue": "gpu"}
    taken = [{}, {"bc_queue": "7"}, {"bc_queue": "long"}, {"base_container_url": "docker://other"}]
    assert ["result" in each for each in render([submit({**good, **change}) for change in taken], site=site)] == [True] * len(taken)
    refused = {
        "bc_num_hours": ["10", "168", "9999"],
        "bc_queue": ["other", "", "The", "gpu,long"],
        "base_container_url": ["docker://none", "/home/alice/base.sif"],
    }
    tried = [(name, {**good, name: word}) for name, words in refused.items() for word in words]
    for (name, values), answer in zip(tried, render([submit(values) for _name, values in tried], site=site), strict=True):
        assert answer["error"].startswith(f"RuntimeError: {name} "), values[name]
        assert not values[name] or values[name] not in answer["error"], "no value of the form is shown to anybody"
    (japanese,) = render([submit({**good, "bc_num_hours": "10"})], site=site, locale="ja")
    assert japanese["error"] == "RuntimeError: bc_num_hours は 9 以下にしてください。"


def test_hours_are_limited_where_the_site_says_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site.yml"
    site.write_text("")
    answers = render([submit({**SERVER, "bc_num_hours": hours, "bc_queue": "any"}) for hours in ("168", "169")], site=site)
    assert ["result" in each for each in answers] == [True, False]


def test_whatever_was_typed_the_scripts_are_the_same_and_the_request_is_what_was_typed() -> None:
    names = [name for name in TYPED if name not in {"mlflow_task", "bc_queue"}]
    jobs = [{**dict.fromkeys(names, word), "mlflow_task": "server", "bc_queue": word} for word in HOSTILE]
    scripts = render([template("script.sh.erb", values) for values in jobs])
    assert len({each["result"] for each in scripts}) == 1
    for values, answer in zip(jobs, render([template("request.json.erb", values) for values in jobs]), strict=True):
        request = json.loads(answer["result"])
        assert request["task"] == "server"
        assert {request["env_name"], request["profile"], request["output_dir"]} == {values["env_name"].strip()}


def test_the_rendered_scripts_pass_shellcheck_and_quote_the_sites_words(tmp_path: Path) -> None:
    site = tmp_path / "site.yml"
    offer = {
        "mlwf": "/apps/ai hub/$(id)/mlwf",
        "environment": {"MLWF_SERVICE": "https://x;id", "A": "two words"},
        "setup": ["module load s"],
    }
    site.write_text(yaml.safe_dump({"batch_connect": offer}))
    (found,) = render([template("script.sh.erb", SERVER)], site=site)
    script = tmp_path / "script.sh"
    script.write_text(found["result"])
    subprocess.run(["shellcheck", script, *(ROOT / "template").glob("*.sh")], check=True)
    lines = found["result"].splitlines()
    assert "module load s" in lines
    words = [shlex.split(line) for line in lines if line.startswith(("export", "exec"))]
    assert ["export", "MLWF_SERVICE=https://x;id"] in words
    assert words[-1][:4] == ["exec", "/apps/ai hub/$(id)/mlwf", "job", "request.json"]


def test_what_the_forms_take_of_the_services_settings_is_in_the_example_and_nothing_else() -> None:
    texts = [(ROOT / name).read_text() for name in ("form.yml.erb", "view.html.erb", "template/script.sh.erb")]
    taken = {name for text in texts for name in re.findall(r'site\["service"\] \|\| \{\}\)\["(\w+)"\]', text)}
    assert taken == set(yaml.safe_load(EXAMPLE.read_text())["service"])


def test_the_service_takes_its_part_of_one_file_for_both() -> None:
    """As the page on settings has it, where the portal's host is the service's, too."""
    settings = load(EXAMPLE)
    assert (settings.endpoint_url, settings.allowed_groups) == ("https://s3.example.org", ("gaa*", "gbb*"))


def view(card: dict[str, Any] | str) -> dict[str, Any]:
    text = card if isinstance(card, str) else base64.urlsafe_b64encode(json.dumps(card).encode()).decode()
    return {"what": "view", "file": str(ROOT / "view.html.erb"), "values": {"card": text, "host": "h", "port": None}}


def test_the_card_shows_addresses_and_lines_to_copy() -> None:
    server = {
        "group": "gaa50000",
        "env_name": "wine",
        "inside_url": "http://h:21000/mlflow/",
        "outside_url": "https://p/rnode/h/21000/mlflow/",
        "auth_file": "/groups/gaa50000/aihub/wine/yml/basic_auth.yml",
        "users": ["alice"],
        "warnings": ["Nobody can log in. Register."],
    }
    (found, nobody) = render([view({"server": server}), view({"server": {**server, "users": []}})])
    page = found["result"]
    assert "register Auth Info in the console first" not in page
    assert "register Auth Info in the console first" in nobody["result"]
    assert 'href="/pun/sys/mlflow-console/open/gaa50000/wine"' in page
    assert "export MLFLOW_TRACKING_URI=http://h:21000/mlflow/\nexport MLFLOW_TRACKING_USERNAME=alice\n" in page
    assert "https://p/rnode/h/21000/mlflow/" in page
    assert "Nobody can log in. Register." in page
    assert "\n\n" not in page.strip(), "a blank line would end the block for Markdown"


def test_a_hostile_card_is_text() -> None:
    bad = "<script>alert(1)</script>'\"$(id)"
    server = dict.fromkeys(("group", "env_name", "auth_file"), bad) | {
        "inside_url": "javascript:alert(1)",
        "users": [bad],
        "warnings": [bad],
    }
    (page, empty, none) = render([view({"server": server}), view("!!not base64"), view("")])
    assert "<script" not in page["result"]
    assert "javascript:" not in page["result"]
    assert "steps above" in empty["result"]
    assert "steps above" in none["result"]


def test_the_steps_are_shown_as_they_are_told(tmp_path: Path) -> None:
    def info(folder: Path) -> dict[str, Any]:
        return {"what": "info", "file": str(ROOT / "info.html.erb"), "values": {"staged_root": str(folder)}}

    told = {
        "state": "failed",
        "updated_at": "2026-11-24T09:00:00.000+00:00",
        "bytes": 5_000_000,
        "total": 10_000_000,
        "steps": [{"label": "Export <b>", "state": "failed", "detail": "wine & co"}],
        "error": {"detail": "It broke", "cure": "Mend it."},
    }
    (tmp_path / "progress.json").write_text(json.dumps(told))
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "progress.json").write_text(json.dumps({**told, "state": "running", "error": None}))
    os.utime(tmp_path / "lost" / "progress.json", (1, 1))
    (tmp_path / "behind").mkdir()  # the node's clock is: what it just wrote says an earlier time
    (tmp_path / "behind" / "progress.json").write_text(json.dumps({**told, "state": "running", "error": None}))
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "progress.json").write_text(json.dumps({**told, "total": None}))
    page, lost, none, unknown, behind = render([info(tmp_path / each) for each in ("", "lost", "none", "open", "behind")])
    assert "✗ Export &lt;b&gt;: wine &amp; co" in page["result"]
    assert '<progress max="10000000" value="5000000" aria-label="Bytes so far">' in page["result"]
    assert "</progress> 5 / 10 MB" in page["result"]
    assert "<p>5 MB</p>" in unknown["result"]
    assert "<progress" not in unknown["result"]
    assert "It broke.</strong> Mend it." in page["result"]
    assert "no sign of life" in lost["result"]
    assert "no sign of life" not in behind["result"]
    assert "<li>" not in none["result"]
