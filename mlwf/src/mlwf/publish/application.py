"""The text with which a published model is registered in the centre's list of data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlwf import info
from mlwf.i18n import _


def application(form: Mapping[str, Any], urls: Sequence[str]) -> str:
    """Ready to be pasted into a form or a letter; in the reader's language."""
    contact = info.value_at(form, ("Creator", "ContactPoint")) or {}
    rows = [
        (_("Name"), form.get("Name")),
        (_("Version"), form.get("Version")),
        (_("Description"), form.get("Description")),
        (_("Keywords"), ", ".join(map(str, form.get("Keywords") or ()))),
        (_("Creator"), info.value_at(form, ("Creator", "Name"))),
        (_("Contact"), contact.get("Email") or contact.get("URL")),
        (_("Licence"), info.value_at(form, ("License", "Name"))),
        (_("Published"), form.get("DatePublished")),
        (_("Package"), "\n".join(urls)),
    ]
    lines = [_("Application: registration of a model as a data set"), ""]
    for name, value in rows:
        text = str(value or "").strip()
        if text:
            first, *more = text.splitlines()
            lines += [f"{name}: {first}", *(f"    {line}" for line in more)]
    lines += ["", _("The complete description is in info.yaml beside the package.")]
    return "\n".join(lines)
