"""What a reader of the page sees or is read: texts, and the attributes that are shown or spoken."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from tests.console.fake_service import FakeService

COLLECT = """() => {
  const found = [document.title];
  const attributes = ["aria-label", "aria-description", "aria-valuetext", "title", "placeholder", "alt", "data-done", "data-label"];
  const tops = [document.documentElement, ...[...document.querySelectorAll("template")].map((each) => each.content)];
  for (const element of tops.flatMap((top) => [...top.querySelectorAll("*")])) {
    if (element.closest("head, script, style, template, noscript")) continue;
    for (const name of attributes) if (element.getAttribute(name)) found.push(element.getAttribute(name));
    if (element.matches("pre")) found.push(...element.textContent.split("\\n").filter((line) => line.startsWith("# ")));
    if (element.closest("pre")) continue;
    // What stands between two elements is one text; a mark where a long name may break divides none.
    let text = "";
    for (const child of [...element.childNodes, document.createElement("br")]) {
      if (child.nodeType === Node.TEXT_NODE) text += child.data;
      else if (child.nodeName !== "WBR") {
        found.push(text);
        text = "";
      }
    }
  }
  return [...new Set(found.map((each) => each.replace(/\\s+/g, " ").trim()))];
}"""
"""All of it, also what is folded or hidden now. Of lines to copy only what explains them is for people, and a log is as it is."""

LABELS = (
    # The page's own, which the documentation names: they are the same in every language.
    "App for MLflow Server", "MLflow Server", "Open OnDemand", "English", "Service List", "Service List Update", "Control Service",
    "Start", "Stop", "Delete", "Restore", "Open", "Create Service", "Service created", "Operational status for requests", "Reset",
    "Auth Info Registration", "Update Auth Info", "Export model", "Create image", "URL for access from inside",
    "URL for access from outside", "URL", "manual", "Read credentials",
    # Names of fields and columns, and their values.
    "status", "group_name", "env_name", "cloud_storage_bucket_name", "cloud_storage_accesskey_ID", "cloud_storage_secret_accesskey",
    "profile", "endpoint_url", "region", "artifact_access", "mlflow_version", "size", "idle_seconds", "model_name", "model_version",
    "output_dir", "model_package", "base_container_url", "proxied", "direct", "small", "medium", "us-east-1",
    "running", "sleeping", "stopped", "failed", "creating", "deleting", "deleted",
    # Units and proper names.
    "MLflow", "MB",
)  # fmt: skip
NAMES = (
    "gaa50000", "gaa50001", "gone", "wine-models", "alice", "carol", "job 17", "night run", "lab", "AKIAEXAMPLEWXYZ", "OSError",
)  # fmt: skip
"""What the tests call people and things."""
JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龥]")
ADDRESS = re.compile(r"\b(https?|s3|docker)://\S+|\b[0-9a-f]{16}\b")
"""Addresses, and requests' ids."""


def read(page: Page) -> set[str]:
    texts: list[str] = page.evaluate(COLLECT)
    return {text for text in texts if text}


def left_in_english(page: Page, service: FakeService, *more: str) -> set[str]:
    """Texts of the page, or parts of them, that are no Japanese, and more than labels, addresses and names: `NAMES`, servers', `more`."""
    names = {str(each[key]) for each in service.servers.values() for key in ("group", "env_name", "auth_file")}
    names |= {each["storage"]["prefix"] for each in service.servers.values()}
    known = sorted({*LABELS, *NAMES, *names, *more}, key=len, reverse=True)
    words = re.compile("|".join(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" for word in known))
    parts = {part for text in read(page) for part in text.split(" · ")}
    return {part for part in parts if not JAPANESE.search(part) and re.search("[A-Za-z]{2}", words.sub("", ADDRESS.sub("", part)))}
