"""README.md beside info.yaml: the model card, in the form that model hubs read, from the same facts."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from mlwf import info

MARK = re.compile(r"\n<!-- made from info\.yaml; edit freely, it is then left alone \(([0-9a-f]{64})\) -->\n\Z")


def model_card(form: Mapping[str, Any]) -> str:
    """The card's text, the same for the same form."""
    body = "\n\n".join(part for part in [_front_matter(form), *_sections(form)] if part) + "\n"
    return f"{body}\n<!-- made from info.yaml; edit freely, it is then left alone ({_digest(body)}) -->\n"


def is_ours(text: str) -> bool:
    """Whether a card is as it was made here, so that it may be made anew; a human's edits are never lost."""
    found = MARK.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _front_matter(form: Mapping[str, Any]) -> str:
    facts: dict[str, Any] = {"library_name": "mlflow"}
    licence = _text(form, "License", "Name")
    if licence:
        facts["license"] = licence.lower() if re.fullmatch(r"[A-Za-z0-9.+-]+", licence) else "other"
        facts["license_name"] = licence
    if _text(form, "License", "URL"):
        facts["license_link"] = _text(form, "License", "URL")
    words = [word for word in form.get("Keywords") or () if isinstance(word, str) and word.strip()]
    if words:
        facts["tags"] = words
    return f"---\n{yaml.safe_dump(info.clean(facts), allow_unicode=True, sort_keys=False, width=10_000)}---"


def _sections(form: Mapping[str, Any]) -> list[str]:
    urls = [url for url in info.value_at(form, ("Distribution", "ContentURL")) or () if isinstance(url, str)]
    citations = [each for each in form.get("Citation") or () if isinstance(each, str) and each.strip()]
    contact = _text(form, "Creator", "ContactPoint", "Email") or _text(form, "Creator", "ContactPoint", "URL")
    creator = _text(form, "Creator", "Name")
    return [
        f"# {_text(form, 'Name')}",
        _text(form, "Description"),
        _section("Use", _text(form, "UsageInfo")),
        _section("Download", "\n".join(f"- <{url}>" for url in urls)),
        _section("Contact", ", ".join(part for part in (creator, contact) if part)),
        _section("Citation", "\n".join(f"- {each}" for each in citations)),
        _text(form, "AdditionalInfo"),
    ]


def _section(title: str, content: str) -> str:
    return f"## {title}\n\n{content}" if content else ""


def _text(form: Mapping[str, Any], *path: str) -> str:
    value = info.value_at(form, path)
    return str(value).strip() if isinstance(value, str) else ""
