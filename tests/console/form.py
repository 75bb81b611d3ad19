"""The create form: what is typed into it, and the page's parts."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

FORM = {
    "group_name": "gaa50000",
    "env_name": "wine",
    "cloud_storage_bucket_name": "wine-models",
    "credentials": "manual",
    "cloud_storage_accesskey_ID": "AKIAEXAMPLE",
    "cloud_storage_secret_accesskey": "s3cr3t-key",
}


def row(page: Page, name: str) -> Locator:
    return page.locator("tr.server").filter(has=page.get_by_text(name, exact=True))


def fill(page: Page, env_name: str = "wine", key: str = "right") -> None:
    page.get_by_label("group_name").select_option("gaa50000")
    page.get_by_label("env_name").fill(env_name)
    page.get_by_label("cloud_storage_bucket_name").fill("wine-models")
    page.get_by_label("cloud_storage_accesskey_ID").fill("AKIAEXAMPLE")
    page.get_by_label("cloud_storage_secret_accesskey").fill(key)
