"""A uv.lock that came with a model: where its packages come from is held to the same policy as plain requirements."""

import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.requirements import STRICT, Policy, RefusedRequirementError

MAX_BYTES = 32 << 20
# Whatever index it was locked against: the hashes hold for every mirror, and packages are asked of the machine's own index.
PYPI = ("pypi.org", "files.pythonhosted.org")


def check_uv_lock(file: Path, policy: Policy = STRICT) -> None:
    """Raises RefusedRequirementError for what the policy does not allow, MlwfError for a file that is no uv.lock."""
    try:
        with file.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        packages = tomllib.loads(data.decode("utf-8"))["package"] if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, KeyError, RecursionError):
        packages = None
    if not isinstance(packages, list):
        raise MlwfError(_("The model's {file} cannot be read").format(file=file.name), cure=_("Log the model again with a current mlflow."))
    for package in packages:
        _check(package if isinstance(package, dict) else {}, policy)


def _check(package: dict[str, object], policy: Policy) -> None:
    name, source = str(package.get("name")), package.get("source")
    kinds = source if isinstance(source, dict) else {}
    if set(kinds) <= {"virtual", "editable"} and "." in kinds.values():
        return  # the project itself, which is not installed
    line = f"{name} ({', '.join(f'{kind} = {value}' for kind, value in kinds.items())})"
    if set(kinds) == {"registry"}:
        if urlsplit(str(kinds["registry"])).hostname not in PYPI and not policy.indexes:
            raise RefusedRequirementError(
                line, _("packages would come from an index of the model's choice"), _("If you trust it, allow it with --allow-indexes.")
            )
        return
    if set(kinds) == {"url"} and str(kinds["url"]).startswith("https://"):
        if not policy.urls:
            raise RefusedRequirementError(
                line, _("it is fetched from an address of the model's choice"), _("If you trust it, allow it with --allow-urls.")
            )
        return
    raise RefusedRequirementError(
        line, _("it is a path or an address, not the name of a package"), _("Log the model with plain requirements (NAME==VERSION).")
    )
