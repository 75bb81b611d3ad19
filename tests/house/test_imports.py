"""Who imports whom: the rules that keep the rooms apart, each with its reason."""

import ast
import fnmatch
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files

ROOMS = {"backend": "backend", "ood_app": "ood_app", "tracking_server": "tracking_server", "demo": "demo", "mlwf": "mlwf/src/mlwf"}
OURS = (*ROOMS, "tests", "benchmarks")


@dataclass(frozen=True)
class Rule:
    """`modules` may be imported only by files that match one of `allowed`, among the files that match `among`."""

    modules: tuple[str, ...]
    allowed: tuple[str, ...]
    why: str
    among: tuple[str, ...] = ("backend/*", "ood_app/*", "tracking_server/*", "demo/*", "mlwf/*", "template/*", "samples/*")


RULES = [
    Rule(("docker",), ("backend/runtimes/docker.py",), "one file speaks Docker; the rest knows runtimes"),
    Rule(
        ("boto3", "botocore", "s3transfer"),
        ("backend/adapters/s3*.py", "mlwf/*", "demo/*", "tracking_server/mlflow_process/*"),
        "S3 is spoken at the object-store edges only",
    ),
    Rule(
        ("flask", "flask_openapi3", "flask_wtf", "werkzeug"),
        ("backend/api/*", "ood_app/*", "tracking_server/mlflow_process/*"),
        "HTTP layers, and what answers inside MLflow's own",
    ),
    Rule(("gunicorn",), ("backend/serving/serve.py", "backend/serving/http_server.py"), "how it is served is one module's business"),
    Rule(("mlflow",), ("tracking_server/*", "samples/*"), "mlflow's import costs seconds and 200 MB; only the box and jobs have it"),
    Rule(("uv",), ("mlwf/src/mlwf/image/environment/uv_program.py",), "every call of uv gets named variables only"),
    Rule(("backend",), ("backend/*", "tests/*", "benchmarks/*"), "the service is reached over its API, by mlwf's client", among=("*",)),
    Rule(
        ("ood_app",), ("ood_app/*", "demo/*", "tests/*", "benchmarks/*"), "the console serves pages and is nobody's library", among=("*",)
    ),
    Rule(("demo",), ("demo/*", "tests/*", "benchmarks/*"), "the demo stands on the product, never below it", among=("*",)),
    Rule(("tests", "pytest"), ("tests/*", "benchmarks/*"), "no product code leans on tests", among=("*",)),
    Rule(tuple(room for room in OURS if room != "mlwf"), (), "mlwf is installed alone", among=("mlwf/*",)),
    Rule(
        tuple(room for room in ROOMS if room != "tracking_server"),
        (),
        "the box knows nothing of who starts it",
        among=("tracking_server/*",),
    ),
    Rule(
        ("backend", "boto3", "docker", "sqlalchemy"),
        (),
        "the console asks the service, by mlwf's client",
        among=("ood_app/*", "template/*"),
    ),
    Rule(
        ("mlwf.export",),
        tuple(f"mlwf/src/mlwf/{name}" for name in ("export/*", "cli/export_model.py", "job/tasks.py", "image/model/registry.py")),
        "what image and publish share with the export is in mlwf.transfer; an image of `models:/…` begins with an export",
        among=("mlwf/*",),
    ),
    Rule(("mlwf.cli",), ("mlwf/src/mlwf/cli/*",), "the commands are nobody's library", among=("mlwf/*",)),
    Rule(
        ("mlwf.export", "mlwf.image", "mlwf.publish"), (), "what is shared knows nobody who shares it", among=("mlwf/src/mlwf/transfer/*",)
    ),
]
# What implements a port of backend/ports.py against the world.
ADAPTERS = (
    "backend.files.boxfiles",
    "backend.adapters.nss",
    "backend.runtimes.containers",
    "backend.runtimes.keeper",
    "backend.runtimes.process",
    "backend.adapters.s3",
    "backend.adapters.trial",
)
# The service's rooms from the bottom up, as its README has them; the words that all of them use lie below, in the package itself.
SERVICE = (
    "registry",
    "files",
    "networks",
    "wishes",
    "plans",
    "reconcile",
    "runtimes",
    "adapters",
    "backup",
    "api",
    "serving",
    "checks",
    "cli",
)
READS_ENVIRONMENT = {
    "backend/settings.py": "the service's settings",
    "ood_app/settings.py": "the console's settings",
    "demo/settings.py": "the demo's settings",
    "mlwf/src/mlwf/settings.py": "the tools' settings",
    "tracking_server/mlflow_process/environment.py": "what MLflow takes from its environment alone is set there, for that one process",
}
ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}
GUARD_MAY_IMPORT = {"bcrypt", "tracking_server"}


FILES = [str(path) for path in files("*.py")]


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), filename=name)


def imports(name: str) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, anywhere in it, with the line; relative ones made absolute. Imports for types alone count too."""
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = Path(name).parent.parts[: len(Path(name).parent.parts) - node.level + 1]
                base = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _is_of(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{'+'.join(rule.modules[:2])} in {rule.among[0]}")
def test_only_those_who_may_import_it(rule: Rule) -> None:
    broken = [
        f"{name}:{line} imports {module}"
        for name in FILES
        if _matches(name, rule.among) and not _matches(name, rule.allowed)
        for line, module in imports(name)
        if _is_of(module, rule.modules)
    ]
    assert broken == [], rule.why


def test_the_rules_see_every_room_and_every_kind_of_import(tmp_path: Path) -> None:
    for folder in ROOMS.values():
        assert any(name.startswith(folder + "/") for name in FILES), folder
    file = tmp_path / "sample.py"
    file.write_text("import docker.errors\ndef f():\n    from docker import api\n")
    assert [module for _, module in imports(str(file))] == ["docker.errors", "docker.api"]


def test_a_test_module_is_nobodys_library() -> None:
    """What several of them need stands beside them under a name of its own."""
    asked = [
        f"{name}:{line} imports {module}"
        for name in FILES
        for line, module in imports(name)
        if module.startswith("tests.") and ".test_" in module
    ]
    assert asked == []


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_are_chosen_by_the_wiring_and_never_import_each_other(adapter: str) -> None:
    users = {name for name in FILES if name.startswith("backend/") for _line, module in imports(name) if _is_of(module, (adapter,))}
    assert users == {"backend/serving/wiring.py"}


def test_each_room_of_the_service_stands_on_those_below_it() -> None:
    floors = {f"backend.{room}": floor for floor, room in enumerate(SERVICE)}

    def floor(module: str) -> int:
        return floors.get(".".join(module.split(".")[:2]), -1)

    assert {str(Path(name).parent) for name in FILES if fnmatch.fnmatch(name, "backend/*/__init__.py") and name.count("/") == 2} == {
        room.replace(".", "/") for room in floors
    }
    upward = [
        f"{name}:{line} imports {module}"
        for name in FILES
        if name.startswith("backend/")
        for line, module in imports(name)
        if floor(module) > floor(name.removesuffix(".py").replace("/", "."))
    ]
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {name.removesuffix(".py").removesuffix("/__init__").removeprefix("mlwf/src/").replace("/", "."): name for name in FILES}
    asks = {module: {of.rpartition(".")[0] if of not in modules else of for _, of in imports(name)} for module, name in modules.items()}
    TopologicalSorter({module: (of & modules.keys()) - {module} for module, of in asks.items()}).prepare()  # raises CycleError


def test_the_environment_is_read_in_the_settings_modules_only() -> None:
    broken = []
    for name in FILES:
        if name in READS_ENVIRONMENT or name.startswith(("tests/", "benchmarks/", "samples/")):
            continue
        for node in ast.walk(_tree(name)):
            of_os = (
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr in ENVIRONMENT
            )
            from_os = isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names} & ENVIRONMENT
            if of_os or from_os:
                broken.append(f"{name}:{getattr(node, 'lineno', 0)}")
    assert broken == [], "one reader of the environment in each room"
    assert [name for name in READS_ENVIRONMENT if name not in FILES] == [], "exemptions that nobody needs"


def test_what_the_guard_imports_is_light() -> None:
    """The guard stays when MLflow sleeps: each megabyte that it imports is paid by every sleeping server."""
    script = (
        "bare = set(sys.modules)\n"
        "import tracking_server.guard\n"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - bare} - sys.stdlib_module_names))\n"
    )
    run = subprocess.run(
        [ROOT / ".venv/bin/python", "-I", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = [name for name in run.stdout.split() if name not in GUARD_MAY_IMPORT and not name.startswith("_")]
    assert heavy == [], "the guard imports nothing heavy"
