"""The console's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mlwf.wire.munge import MungeAuth

from ood_app.settings import TABLE, SettingsError, for_programs, load

DOCUMENT = Path(__file__).parents[2] / "ood_app/README.md"
CONSOLE = Path(__file__).parents[2] / "ood_app"


def test_defaults_stand_without_an_environment() -> None:
    settings = load({})
    assert settings.service == "unix:///run/aihub/service.sock"
    assert settings.title == "App for MLflow Server"
    assert settings.timeout == 5


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AIHUB_CONSOLE_TIMEOUT", "soon"),
        ("AIHUB_CONSOLE_TIMEOUT", "0"),
        ("AIHUB_CONSOLE_PORTAL_URL", "portal.example.org"),
        ("AIHUB_CONSOLE_PORTAL_MENU_URL", "javascript:alert(1)"),
        ("AIHUB_CONSOLE_EXPORT_FORM_URL", "//evil.example.org/"),
        ("AIHUB_CONSOLE_LANGUAGE", "fr"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load({variable: value})


def test_a_typo_is_found() -> None:
    with pytest.raises(SettingsError, match="AIHUB_CONSOLE_TITEL is not a setting"):
        load({"AIHUB_CONSOLE_TITEL": "x"})


def test_the_secret_key_is_not_shown() -> None:
    assert "hush" not in repr(load({"SECRET_KEY_BASE": "hush"}))


def test_every_setting_is_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    for row in TABLE:
        assert f"| `{row.variable}` | {f'`{row.default}`' if row.default else ''} | {row.help} |" in text


def test_the_sites_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "site.yml"
    file.write_text("service: {region: x}\nconsole:\n  title: Ours\n  timeout: 7\n  local_jobs: true\n")
    settings = load({"AIHUB_SITE": str(file), "AIHUB_CONSOLE_TIMEOUT": "8"})
    assert (settings.title, settings.timeout, settings.local_jobs) == ("Ours", 8, True)
    example = load({"AIHUB_SITE": str(CONSOLE.parent / "deploy/site.yml.example")})
    assert example.portal_url == "https://portal.example.org"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("console: {titel: x}", "titel is not a setting of the console's part"),
        ("console: {secret_key: x}", "secret_key is not a setting of the console's part"),
        ("console: [x]", "must be `name: value` lines"),
        ("console: {title: [x]}", "title must be one value"),
        ("console: {", "it cannot be read"),
        ("console: {service: 'https://x.example.org'}", "munge_uid"),
        (None, "there is no such file"),
    ],
)
def test_a_sites_file_that_cannot_be_used(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "site.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load({"AIHUB_SITE": str(file)})


def test_the_way_to_a_service_on_another_host(tmp_path: Path) -> None:
    file = tmp_path / "site.yml"
    file.write_text("console: {service: 'https://x.example.org:8443/', munge_uid: 990}")
    settings = load({"AIHUB_SITE": str(file)})
    assert isinstance(settings.connection.auth, MungeAuth)
    assert settings.service == "https://x.example.org:8443"
    assert for_programs(settings, "en")["MLWF_MUNGE_UID"] == "990"


def test_the_environment_is_read_in_one_place() -> None:
    readers = [path.name for path in CONSOLE.glob("*.py") if "environ" in path.read_text() and path.name != "settings.py"]
    assert readers == []


def test_the_portals_manifest_puts_it_under_ai_hub() -> None:
    manifest = yaml.safe_load((CONSOLE / "manifest.yml").read_text())
    assert (manifest["name"], manifest["category"]) == ("MLflow Server", "AI Hub")


def test_what_passenger_loads_answers() -> None:
    from ood_app.passenger_wsgi import application

    assert application.test_client().get("/").status_code == 200


def test_the_vendored_style_sheet_is_the_one_that_is_named() -> None:
    css = (CONSOLE / "static/vendor/bootstrap/bootstrap.min.css").read_text()
    version = css.split("Bootstrap  v")[1].split(" ")[0]
    assert f"`bootstrap` {version} " in (CONSOLE / "static/vendor/README.md").read_text()
    assert "url(http" not in css
