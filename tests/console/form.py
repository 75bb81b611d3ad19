"""The create form: what is typed into it, the page's parts, and how one comes to them by keyboard."""

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


def focused(page: Page) -> str:
    """What has the focus, by its field's name, its text or its title."""
    name: str = page.evaluate("document.activeElement.name || document.activeElement.textContent.trim() || document.activeElement.title")
    return name


def tab_to(page: Page, text: str, key: str = "Tab") -> None:
    """Goes on until that has the focus, and sees that this can be seen. AssertionError where it never comes."""
    for _each in range(60):
        page.keyboard.press(key)
        if focused(page) == text:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", f"the focus on {text} cannot be seen"
            return
    raise AssertionError(f"Tab never came to {text}")
