"""A uv.lock that came with a model: MLflow copies it from the project in which the model was logged, whether or not the model is of it."""

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlwf.address import split_url
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.environment.pytorch import FAMILY, index_backend
from mlwf.image.model.requirements import (
    STRICT,
    Policy,
    RefusedRequirementError,
    Requirements,
    check_index,
    plain,
    shown,
    without_passwords,
)

MAX_BYTES = 32 << 20
# What was locked against it is asked of the machine's own index: the hashes hold for every mirror.
PYPI = ("pypi.org", "files.pythonhosted.org")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==\s*(?P<version>[A-Za-z0-9.+!_-]+)\s*(?:;.*)?$)?")
# A requirement of which can be seen whether an export gives it.
PLAIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*(?P<version>[A-Za-z0-9.+!_-]+)|@\s*(?P<address>https://\S+))?\s*(?:;(?P<marker>.*))?"
)
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
VERSION = re.compile(r"[A-Za-z0-9.+!_-]+")
# The marker of what is for a Mac or for Windows only, as uv writes it.
NOT_LINUX = re.compile(r"(?:[^()]* and )?sys_platform == '(?:darwin|win32)'(?: and [^()]*)?")


@dataclass(frozen=True)
class UvLock:
    """`sources`: where each package comes from, by its plain name; `pins`: its version, where the lock has one for all machines.

    `registries`: the indexes that it comes from, which for each kind of machine may be another one, and its versions there; `extras` and
    `groups`: what its project has besides its main dependencies, with the plain names of their packages; `usual`: the indexes that this
    machine asks anyway.
    """

    file: Path
    sources: dict[str, dict[str, object]]
    pins: dict[str, str]
    registries: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    extras: dict[str, frozenset[str]] = field(default_factory=dict)
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    usual: frozenset[str] = frozenset()

    def lacks(self, requirements: Sequence[str]) -> str:
        """The first requirement that is no package of this lock, or is one in another version; empty where they may all be of it."""
        for line in requirements:
            match = REQUIREMENT.match(line)
            name = plain(match["name"]) if match else ""
            if not match or name not in self.sources or (match["version"] and not gives(self.pins.get(name), match["version"])):
                return shown(line)
        return ""

    def exports(self, requirements: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The options of the exports that may be the model's environment: of the main dependencies, then also of the extras and groups all
        of whose packages the model names. MLflow (`uv_extras`, `uv_groups`) writes down the packages, and not the names of these.
        """
        named = {plain(match["name"]) for line in requirements if (match := REQUIREMENT.match(line))}
        extras, groups = ([name for name, packages in sorted(parts.items()) if packages <= named] for parts in (self.extras, self.groups))
        yield ("--no-dev",)
        if extras or groups:
            main = () if "dev" in groups else ("--no-dev",)
            yield (*main, *(f"--extra={name}" for name in extras), *(f"--group={name}" for name in groups))

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
            for address in self._other_indexes(name):
                check_index(address, f"{name} (registry = {address})", policy)
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

    def indexes(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """Option lines for where these packages, all of which were checked, come from besides the machine's own index."""
        names = sorted({plain(match["name"]) for line in requirements if (match := REQUIREMENT.match(line))})
        found = dict.fromkeys(address for name in names for address in self._other_indexes(name))
        return tuple(f"{'--find-links' if address.endswith('.html') else '--extra-index-url'} {address}" for address in found)

    @functools.cached_property
    def backend(self) -> str:
        """Which builds of PyTorch it has; empty for none, and for several among which the model may choose by an extra."""
        found = {index_backend(name, address) for name, addresses in self.registries.items() for address in addresses} - {""}
        return found.pop() if len(found) == 1 else ""

    def astray(self, exported: Sequence[re.Match[str]], backend: str) -> str:
        """Which of these packages uv would look for in vain: told `backend`, it asks that index of PyTorch's for all of the family."""
        for package in exported if backend else ():
            name, marker = plain(package["name"]), _marker(package["marker"])
            if name not in FAMILY or (" or " not in marker and NOT_LINUX.fullmatch(marker)):
                continue
            places = [address for address, versions in self.registries.get(name, {}).items() if package["version"] in versions]
            if any(index_backend(name, address) != backend for address in places):
                return f"it has {name} from another index than PyTorch's"
        return ""

    def _other_indexes(self, name: str) -> list[str]:
        """Without PyTorch's own, of which uv is told by a word of its own."""
        named = self.registries.get(plain(name), {})
        found = [each for each in named if split_url(each).hostname not in PYPI and each.rstrip("/") not in self.usual]
        return [each for each in found if not self.backend or index_backend(name, each) != self.backend]


def usual_indexes(environ: Mapping[str, str]) -> frozenset[str]:
    """The addresses that uv's variables name, as a uv.lock does: without names, user names and passwords."""
    told = " ".join(environ.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"))
    return frozenset(re.sub(r"^[A-Za-z0-9._-]+=", "", each).rstrip("/") for each in without_passwords(told).split())


def read_uv_lock(file: Path, environ: Mapping[str, str] | None = None) -> UvLock:
    """`environ`: names this machine's indexes. Raises MlwfError for a file that is no uv.lock."""
    try:
        with file.open("rb") as content:
            data = content.read(MAX_BYTES + 1)
        packages = tomllib.loads(data.decode("utf-8"))["package"] if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, KeyError, RecursionError):
        packages = None
    if not isinstance(packages, list) or not all(isinstance(each, dict) for each in packages):
        raise MlwfError(_("The model's {file} cannot be read").format(file=file.name), cure=_("Log the model again with a current mlflow."))
    sources: dict[str, dict[str, object]] = {}
    registries: dict[str, dict[str, set[str]]] = {}
    versions: dict[str, set[str]] = {}
    parts: dict[str, dict[str, frozenset[str]]] = {"optional-dependencies": {}, "dev-dependencies": {}}
    for package in packages:
        name, source = plain(str(package.get("name"))), package.get("source")
        sources.setdefault(name, {}).update(source if isinstance(source, dict) else {})
        if isinstance(source, dict) and "registry" in source:
            registries.setdefault(name, {}).setdefault(str(source["registry"]), set()).add(str(package.get("version")))
        if set(sources[name]) == {"registry"} and NAME.fullmatch(name) and VERSION.fullmatch(str(package.get("version"))):
            versions.setdefault(name, set()).add(str(package["version"]))
        if source in ({"virtual": "."}, {"editable": "."}):
            for kind, found in parts.items():
                found.update(_parts(package.get(kind)))
    pins = {name: min(found) for name, found in versions.items() if len(found) == 1}
    extras, groups = parts["optional-dependencies"], parts["dev-dependencies"]
    return UvLock(file, sources, pins, registries, extras, groups, usual_indexes(environ or {}))


def _parts(tables: object) -> Iterator[tuple[str, frozenset[str]]]:
    """Extras or groups of a project, and the plain names of their packages."""
    for name, listed in tables.items() if isinstance(tables, dict) else ():
        if NAME.fullmatch(name) and isinstance(listed, list) and listed and all(isinstance(each, dict) for each in listed):
            yield name, frozenset(plain(str(each.get("name"))) for each in listed)


def unmet(wanted: Requirements, exported: Sequence[re.Match[str]]) -> str:
    """What the exported packages do not surely give of what the model asks for; empty where they give all of it.

    Sure is a NAME, NAME==VERSION or NAME @ https://… that is there for every machine, or with the very marker that the requirement has. A
    range, extras of a package, and what is bounded by constraints are for uv to resolve.
    """
    if wanted.constraints or not wanted.packages:
        return "the model has constraints" if wanted.constraints else "the model asks for nothing"
    found: dict[str, set[tuple[str, str]]] = {}
    for package in exported:
        found.setdefault(plain(package["name"]), set()).add((package["version"] or package["address"], _marker(package["marker"])))
    for line in wanted.packages:
        match = PLAIN.fullmatch(line)
        entries = found.get(plain(match["name"]), set()) if match else set()
        version, address = (match["version"], match["address"]) if match else (None, None)
        markers = {marker for given, marker in entries if (given == address if address else not version or gives(given, version))}
        if not match or not {"", _marker(match["marker"])} & markers:
            return f"its export does not surely give {shown(line)}"
    return ""


def gives(version: str | None, asked: str) -> bool:
    """Whether `==asked` takes that version, as it takes each build of it (2.8.0+cu128) unless it names one. None: nobody knows it."""
    return version is None or version == asked or ("+" not in asked and version.partition("+")[0] == asked)


def _marker(text: str | None) -> str:
    """A marker as it can be compared with another one: uv and pip quote otherwise."""
    return re.sub(r"\s+", " ", (text or "").replace('"', "'")).strip()


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
