"""The console as the walk's user knows it: by the labels and names that product and docs promise."""

from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

STEP_SECONDS = 120


@dataclass
class ConsolePage:
    page: Page

    def open(self, url: str) -> None:
        self.page.goto(url)
        expect(self.page.get_by_role("heading", name="App for MLflow Server")).to_be_visible()

    def fill_form(self, *, group: str, env_name: str, bucket: str, profile: str) -> None:
        self.page.locator("#group_name").select_option(group)
        self.page.locator("#env_name").fill(env_name)
        self.page.locator("#cloud_storage_bucket_name").fill(bucket)
        self.page.get_by_label("Read credentials").check()
        self.page.locator("#profile").select_option(profile)

    def create_service(self) -> None:
        """Press it and wait for the published words."""
        self.page.get_by_role("button", name="Create Service").click()
        expect(self.page.locator("#operations")).to_contain_text("Service created", timeout=STEP_SECONDS * 1000)

    def row(self, env_name: str) -> Locator:
        return self.page.locator("tr.server", has_text=env_name)

    def register_users(self, env_name: str) -> None:
        self.row(env_name).get_by_role("button", name="Auth Info Registration").click()
        expect(self.row(env_name).get_by_role("button", name="Update Auth Info")).to_be_visible(timeout=STEP_SECONDS * 1000)

    def inside_url(self, env_name: str) -> str:
        link = self.row(env_name).get_by_role("link", name="http://").first
        return link.get_attribute("href") or ""

    def expect_status(self, env_name: str, status: str) -> None:
        self.page.get_by_role("button", name="Service List Update").click()
        expect(self.row(env_name)).to_have_attribute("data-status", status, timeout=STEP_SECONDS * 1000)

    def export_model(self, env_name: str, fields: dict[str, str]) -> str:
        """Fill the dialog of Export model and wait; the folder that the page names."""
        self.row(env_name).get_by_role("button", name="Export model").click()
        dialog = self.page.get_by_role("dialog")
        for name, value in fields.items():
            dialog.locator(f"[name={name}]").fill(value)
        dialog.get_by_role("button", name="Export model").click()
        expect(dialog).to_have_count(0)
        export = self.page.locator(".operation", has_text="Export model")
        expect(export).to_have_attribute("data-state", "succeeded", timeout=STEP_SECONDS * 1000)
        expect(export.locator(".conclusion")).to_contain_text("Result:")
        return export.locator(".conclusion code").inner_text()
