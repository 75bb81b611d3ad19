"""Languages: every text has its Japanese, and the reader gets what was asked for."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from ood_app.app import create_app
from ood_app.settings import load
from ood_app.texts import catalogue
from tests.console.catalogue import msgids
from tests.console.conftest import Caller
from tests.console.fake_service import FakeService

LABELS = (
    "App for MLflow Server",
    "Create Service",
    "Service List Update",
    "Operational status for requests",
    "Read credentials",
    "cloud_storage_accesskey_ID",
    "Service List",
)


def test_the_texts_are_found() -> None:
    assert {"Fill in this field.", "More options", "Copied", "the pass of this user in {path}:"} <= set(msgids())
    assert len(msgids()) > 100


@pytest.mark.parametrize("msgid", msgids())
def test_every_text_has_its_japanese_with_the_same_names(msgid: str) -> None:
    japanese = catalogue("ja").get(msgid)
    assert japanese, f"ood_app/locale/ja/LC_MESSAGES/console.po has no translation of {msgid!r}"
    assert sorted(re.findall(r"\{\w+\}", japanese)) == sorted(re.findall(r"\{\w+\}", msgid))


def test_the_catalogue_holds_nothing_that_is_used_no_longer() -> None:
    assert set(catalogue("ja")) <= set(msgids())


def test_latin_words_in_the_japanese_stand_apart_as_in_the_services_messages() -> None:
    close = re.compile(r"[A-Za-z0-9][ぁ-んァ-ヶ一-龥]|[ぁ-んァ-ヶ一-龥][A-Za-z0-9]")
    assert [text for text in catalogue("ja").values() if close.search(text)] == []


@pytest.mark.parametrize(("asked", "language"), [("ja", "ja"), ("ja-JP,en;q=0.5", "ja"), ("en-US", "en"), ("fr", "en"), ("", "en")])
def test_the_page_speaks_what_the_browser_asks_for(app: Flask, asked: str, language: str) -> None:
    html = app.test_client().get("/", headers={"Accept-Language": asked}).get_data(as_text=True)
    assert f'<html lang="{language}">' in html


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_labels_stay_as_they_are(app: Flask, language: str) -> None:
    html = app.test_client().get("/", headers={"Accept-Language": language}).get_data(as_text=True).replace("<wbr>", "")
    assert all(label in html for label in LABELS)


def test_the_switch_is_remembered_and_the_service_is_asked_in_that_language(caller: Caller, service: FakeService) -> None:
    answer = caller.get("/language/ja")
    assert answer.status_code == 302
    assert '<html lang="ja">' in caller.get("/", headers={"Accept-Language": "en"}).get_data(as_text=True)
    caller.get("/api/state")
    assert service.languages[-1] == "ja"


def test_an_unknown_language_changes_nothing(caller: Caller) -> None:
    caller.get("/language/xx")
    assert '<html lang="en">' in caller.get("/").get_data(as_text=True)


def test_the_sites_language_comes_before_the_browsers() -> None:
    client = create_app(load({"AIHUB_CONSOLE_LANGUAGE": "ja"})).test_client()
    assert '<html lang="ja">' in client.get("/", headers={"Accept-Language": "en"}).get_data(as_text=True)


def test_failures_of_the_console_are_in_japanese(caller: Caller) -> None:
    answer = caller.send("POST", "/servers", {}, **{"Accept-Language": "ja"})
    assert answer.json["fields"]["env_name"] == "この項目を入力してください。"
