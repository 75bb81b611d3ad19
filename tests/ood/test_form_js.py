"""form.js fills the form from the address, and believes little of it."""

import html
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page, Route

from ood_app.settings import load
from ood_app.view import _form
from tests.mlwf.fake_service import server_json
from tests.ood.rendering import EXAMPLE, ROOT, form, render

pytestmark = pytest.mark.browser
GROUPS = ("gaa50000", "gbb60000")
ADDRESS = "https://portal.invalid/pun/sys/dashboard/batch_connect/sys/mlflow/export_model/session_contexts/new"


def page_of(attributes: dict[str, Any], names: list[str], last: dict[str, str], language: str) -> str:
    """The fields as Open OnDemand draws them, as far as form.js looks: ids, options, patterns, and the last session's values."""
    fields = []
    for name in names:
        attribute = attributes[name] if isinstance(attributes[name], dict) else {}
        if attribute.get("widget") == "select" and name == "group_name":
            options = "".join(f"<option{' selected' * (value == last.get(name))}>{value}</option>" for value in ("", *GROUPS))
            fields.append(f'<select id="batch_connect_session_context_{name}">{options}</select>')
        else:
            pattern = f' pattern="{html.escape(attribute["pattern"])}"' if "pattern" in attribute else ""
            fields.append(f'<input id="batch_connect_session_context_{name}" value="{last.get(name, "")}"{pattern}>')
    return f"<!doctype html><html lang={language}>{''.join(fields)}<script>{(ROOT / 'form.js').read_text()}</script>"


@pytest.fixture(scope="module")
def export_form() -> dict[str, Any]:
    found: dict[str, Any] = render([form("export_model.yml.erb")])[0]["result"]
    return found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def values(page: Page, export_form: dict[str, Any], query: str, last: dict[str, str] | None = None, language: str = "en") -> dict[str, str]:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    drawn = page_of(export_form["attributes"], export_form["form"], last or {}, language)
    page.route("**", lambda route: _answer(route, drawn))
    page.goto(f"{ADDRESS}?{query}")
    found: dict[str, str] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('input, select')]
            .map(field => [field.id.replace('batch_connect_session_context_', ''), field.value]))"""
    )
    assert complaints == []
    return found


def _answer(route: Route, drawn: str) -> None:
    route.fulfill(body=drawn, content_type="text/html; charset=utf-8")


def test_the_consoles_link_fills_the_form(page: Page, export_form: dict[str, Any]) -> None:
    from mlwf.answers import Server

    site = yaml.safe_load(EXAMPLE.read_text())["console"]
    settings = load({"AIHUB_CONSOLE_EXPORT_FORM_URL": site["export_form_url"]})
    link = _form(settings.export_form_url, Server.from_json(server_json("gbb60000", "wine_2", "/x")))
    assert link is not None
    assert urlsplit(link).path == urlsplit(ADDRESS).path
    assert set(parse_qs(urlsplit(link).query)) <= set(export_form["form"])
    found = values(page, export_form, urlsplit(link).query)
    assert (found["group_name"], found["env_name"]) == ("gbb60000", "wine_2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("env_name", "Wine"),
        ("env_name", "a b"),
        ("env_name", "<img src=x onerror=alert(1)>"),
        ("model_version", "1;id"),
        ("model_name", "a\nb"),
        ("model_name", "x" * 3000),
        ("output_dir", "/home/alice/elsewhere"),
        ("bc_num_hours", "999"),
        ("mlflow_task", "server"),
        ("__proto__", "x"),
    ],
)
def test_what_does_not_suit_a_field_is_not_taken(page: Page, export_form: dict[str, Any], name: str, value: str) -> None:
    found = values(page, export_form, urlencode({name: value, "model_version": "7"} if name != "model_version" else {name: value}))
    assert found.get(name, "") == ""
    assert found["model_version"] == ("" if name == "model_version" else "7")


@pytest.mark.parametrize(("language", "said"), [("en", "no choice here"), ("ja", "選択できない")])
def test_a_group_that_is_no_choice_leaves_no_other_in_its_place(page: Page, export_form: dict[str, Any], language: str, said: str) -> None:
    last = {"group_name": "gaa50000", "env_name": "old"}
    query = urlencode({"group_name": "joined-today", "env_name": "wine", "model_version": "7"})
    found = values(page, export_form, query, last, language)
    assert (found["group_name"], found["env_name"], found["model_version"]) == ("", "", "")
    note = page.get_by_role("alert").inner_text()
    assert said in note
    assert "joined-today" not in note, "what an address says is a stranger's word"


def test_the_consoles_link_fills_the_form_of_an_image_too(page: Page) -> None:
    image_form = render([form("create_image.yml.erb")])[0]["result"]
    found = values(page, image_form, "group_name=gbb60000&env_name=wine_2")
    assert (found["group_name"], found["env_name"]) == ("gbb60000", "wine_2")
    assert page.get_by_role("alert").count() == 0


def test_only_fields_of_a_form_are_named(export_form: dict[str, Any]) -> None:
    names = re.search(r"const FIELDS = (\[.*?\]);", (ROOT / "form.js").read_text())
    assert names is not None
    assert set(json.loads(names[1])) <= set(export_form["attributes"])
