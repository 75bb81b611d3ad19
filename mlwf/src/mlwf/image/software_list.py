"""The list of what an image holds besides its base: CycloneDX 1.6, JSON. A page of Python; a library for it is larger than the list."""

import email.parser
import uuid
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from mlwf.image.environment.lock import Lock
from mlwf.image.model.requirements import plain

MAX_HEADERS = 1 << 20


def software_list(lock: Lock, site_packages: Path, *, base: str, digest: str) -> dict[str, object]:
    """The same lock gives the same list: no times, and a serial number of its content. `site_packages`: where what packages say of
    themselves is read: that they are there (a lock of the model's own has those for other systems, too), their licences, and the version of
    one that has an address instead.
    """
    installed = _installed(site_packages)
    components: list[dict[str, object]] = [
        {"type": "container", "name": base, "version": digest, "bom-ref": "base"},
        {"type": "platform", "name": "CPython", "version": lock.python, "bom-ref": "python"},
    ]
    often = Counter(plain(package.name) for package in lock.packages)
    for package in sorted(lock.packages, key=lambda each: each.name):
        own_version, licence = installed.get(plain(package.name), ("", None))
        version = package.version or own_version
        if plain(package.name) not in installed or (often[plain(package.name)] > 1 and version != own_version):
            continue
        name = package.name.lower().replace("_", "-")  # as package URLs of PyPI are written
        address = f"?download_url={quote(package.address, safe='')}" if package.address else ""
        purl = f"pkg:pypi/{quote(name)}@{quote(version)}{address}"
        entry: dict[str, object] = {
            "type": "library",
            "name": package.name,
            "version": version,
            "purl": purl,
            "bom-ref": purl,
        }
        if licence:
            entry["licenses"] = [licence]
        components.append(entry)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, lock.digest + digest)}",
        "version": 1,
        "components": components,
    }


def _installed(site_packages: Path) -> dict[str, tuple[str, dict[str, object] | None]]:
    """Package → its version and its licence as it says itself: an SPDX expression, else a short name."""
    found: dict[str, tuple[str, dict[str, object] | None]] = {}
    for file in sorted(site_packages.glob("*.dist-info/METADATA")):
        with file.open(encoding="utf-8", errors="replace") as content:
            # Only what stands before the first empty line: the text after it is long, and no header.
            headers = email.parser.HeaderParser().parsestr(content.read(MAX_HEADERS).partition("\n\n")[0])
        expression, name = headers.get("License-Expression"), str(headers.get("License") or "").strip()
        licence: dict[str, object] | None = None
        if expression:
            licence = {"expression": str(expression)}
        elif name and "\n" not in name and len(name) < 80:
            licence = {"license": {"name": name}}
        found[plain(str(headers.get("Name")))] = str(headers.get("Version") or ""), licence
    return found
