"""A uv.lock that came with a model: MLflow copies it from the project in which the model was logged, whether or not the model is of it."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.address import split_url
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.model.requirements import STRICT, Policy, RefusedRequirementError

MAX_BYTES = 32 << 20
# Whatever index it was locked against: the hashes hold for every mirror, and packages are asked of the machine's own index.
PYPI = ("pypi.org", "files.pythonhosted.org")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==\s*(?P<version>[A-Za-z0-9.+!_-]+)\s*(?:;.*)?$)?")
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
VERSION = re.compile(r"[A-Za-z0-9.+!_-]+")


@dataclass(frozen=True)
class UvLock:
    """`sources`: where each package comes from, by its plain name; `pins`: its version, where the lock has one for all machines."""

    file: Path
    sources: dict[str, dict[str, object]]
    pins: dict[str, str]

    def is_of(self, requirements: Sequence[str]) -> bool:
        """Whether the model's requirements are packages of this lock, in its versions: then it is the lock of the model's environment."""
        for line in requirements:
            match = REQUIREMENT.match(line)
            name = plain(match["name"]) if match else ""
            if not match or name not in self.sources or (match["version"] and match["version"] != self.pins.get(name, match["version"])):
                return False
        return bool(requirements)

    def check_required(self, requirements: Sequence[str], policy: Policy = STRICT) -> None:
        """The same for each package that the requirements name: one of the project's own must not be taken from an index instead."""
        for line in requirements:
            match = REQUIREMENT.match(line)
            if match:
                self.check(match["name"], policy)

    def check(self, name: str, policy: Policy = STRICT) -> None:
        """Raises RefusedRequirementError when the package comes from where the policy does not allow it to come from."""
        kinds = self.sources.get(plain(name), {})
        line = f"{name} ({', '.join(f'{kind} = {value}' for kind, value in kinds.items())})"
        if set(kinds) == {"registry"}:
            if split_url(str(kinds["registry"])).hostname not in PYPI and not policy.indexes:
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


def read_uv_lock(file: Path) -> UvLock:
    """Raises MlwfError for a file that is no uv.lock."""
    try:
        with file.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        packages = tomllib.loads(data.decode("utf-8"))["package"] if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, KeyError, RecursionError):
        packages = None
    if not isinstance(packages, list) or not all(isinstance(each, dict) for each in packages):
        raise MlwfError(_("The model's {file} cannot be read").format(file=file.name), cure=_("Log the model again with a current mlflow."))
    sources: dict[str, dict[str, object]] = {}
    versions: dict[str, set[str]] = {}
    for package in packages:
        name, source = plain(str(package.get("name"))), package.get("source")
        sources.setdefault(name, {}).update(source if isinstance(source, dict) else {})
        if set(sources[name]) == {"registry"} and NAME.fullmatch(name) and VERSION.fullmatch(str(package.get("version"))):
            versions.setdefault(name, set()).add(str(package["version"]))
    return UvLock(file, sources, {name: min(found) for name, found in versions.items() if len(found) == 1})


def stands_alone(project: Path) -> bool:
    """Whether a pyproject.toml names no other projects: uv would look for them in whatever folders of this machine its patterns match."""
    try:
        with project.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        told = tomllib.loads(data.decode("utf-8"))
        workspace = told.get("tool", {}).get("uv", {}).get("workspace", {})
        return len(data) <= MAX_BYTES and not workspace.get("members")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def plain(name: str) -> str:
    """The name as indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()
