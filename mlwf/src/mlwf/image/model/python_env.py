"""The environment that a model recorded: its exact Python, and its requirements, from the first of the files that MLflow writes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.model.requirements import STRICT, Policy, Requirements, check_length, check_requirements, read_requirements, shown
from mlwf.plain_yaml import NotPlainError, load

PYTHON = re.compile(r"3\.[0-9]{1,2}\.[0-9]{1,2}")
PINNED = re.compile(r"python\s*={1,3}\s*(?P<version>[0-9][0-9.]*)\S*")
MAX_FILE = 8 << 20
# What conda itself needs there, and what the environment gets anyway.
CONDA_OWN = re.compile(r"(?:python|pip|setuptools|wheel)(?:\s*[=<>!~\s].*)?")


@dataclass(frozen=True)
class Recorded:
    """`python`: "3.11.7"; `origin`: the file that says it; `left_out`: packages of conda, beside requirements for pip.

    What python_env.yaml has as `build_dependencies` (pip, setuptools, wheel) no image gets: it is made of wheels.
    """

    python: str
    origin: str
    requirements: Requirements
    uv_lock: Path | None = None
    left_out: tuple[str, ...] = ()


def read_environment(folder: Path, mlmodel: Mapping[str, object], policy: Policy = STRICT) -> Recorded:
    """python_env.yaml, else conda.yaml, else MLmodel. Raises MlwfError, also where the exact Python is not said."""
    pyfunc = _flavor(mlmodel)
    env = pyfunc.get("env")
    names: Mapping[str, object] = env if isinstance(env, dict) else {"conda": env} if isinstance(env, str) else {}
    virtualenv = _read(folder, names.get("virtualenv"), "python_env.yaml")
    conda = _read(folder, names.get("conda"), "conda.yaml")
    python, origin = _python(virtualenv, conda, pyfunc)
    return Recorded(
        python,
        origin,
        _requirements(folder, virtualenv, conda, policy),
        _uv_lock(folder),
        tuple(_only_conda(conda)),
    )


def read_mapping(file: Path) -> dict[str, object]:
    """A YAML file of the package, which must be a mapping. Raises MlwfError."""
    why = _("it is not a mapping")
    try:
        with file.open("rb") as content:
            data = content.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            why = _("it is larger than {size} MB").format(size=MAX_FILE >> 20)
        else:
            loaded = load(data)
            if isinstance(loaded, dict):
                return loaded
    except OSError as error:
        why = error.strerror or str(error)
    except NotPlainError as error:
        why = _("it refers to itself too often") if error.endless else _("it is not YAML ({kind})").format(kind=error)
    raise MlwfError(_("{file} of the model package cannot be read").format(file=file.name), why, _("Make it with mlwf_export_model."))


def _flavor(mlmodel: Mapping[str, object]) -> Mapping[str, object]:
    flavors = mlmodel.get("flavors")
    pyfunc = flavors.get("python_function") if isinstance(flavors, dict) else None
    if not isinstance(pyfunc, dict):
        raise MlwfError(
            _("This model cannot be served by mlflow"),
            _("its MLmodel has no python_function flavor"),
            _("Log it with mlflow's log_model of its library, or as a pyfunc."),
        )
    return pyfunc


def _read(folder: Path, named: object, usual: str) -> dict[str, object] | None:
    """The file that MLmodel names, else the usual one; None where there is none."""
    for name in (named, usual):
        path = inside(folder, name) if isinstance(name, str) else None
        if path:
            return read_mapping(path)
    return None


def inside(folder: Path, name: str) -> Path | None:
    """The file `name` of the package; None when there is none, or the name leads out of it."""
    path = folder / name
    try:
        return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


def _python(virtualenv: dict[str, object] | None, conda: dict[str, object] | None, pyfunc: Mapping[str, object]) -> tuple[str, str]:
    """The exact version and the file that says it. What an earlier file says without a patch, a later one may only refine."""
    candidates = [
        ("python_env.yaml", (virtualenv or {}).get("python")),
        ("conda.yaml", _conda_python(conda)),
        ("MLmodel", pyfunc.get("python_version")),
    ]
    said = [(origin, str(value)) for origin, value in candidates if value]
    series = ""
    for origin, value in said:
        if not f"{value}.".startswith(series):
            break
        if PYTHON.fullmatch(value):
            return value, origin
        series = f"{value.rstrip('.*')}."
    raise MlwfError(
        _("The model does not record its exact Python version"),
        ", ".join(f"{origin}: {value[:40]!r}" for origin, value in said),
        _("Log it again with a current mlflow; if you write the conda_env yourself, give an exact version in it, such as python=3.11.7."),
    )


def _conda_python(conda: dict[str, object] | None) -> str | None:
    for each in _dependencies(conda):
        match = PINNED.fullmatch(each) if isinstance(each, str) else None
        if match:
            return match["version"]
    return None


def _dependencies(mapping: dict[str, object] | None) -> list[object]:
    """What it lists; the patterns that read it take time that grows with a line's square. Raises RefusedRequirementError."""
    found = (mapping or {}).get("dependencies")
    listed = found if isinstance(found, list) else []
    for each in listed:
        if isinstance(each, str):
            check_length(each)
    return listed


def _requirements(folder: Path, virtualenv: dict[str, object] | None, conda: dict[str, object] | None, policy: Policy) -> Requirements:
    """python_env.yaml lists what MLflow installs, which is usually `-r requirements.txt` and nothing else; an old package has only
    conda.yaml.
    """
    listed = [each for each in _dependencies(virtualenv) if isinstance(each, str)]
    if listed:
        return check_requirements(folder, listed, policy)
    if (folder / "requirements.txt").is_file():
        return read_requirements(folder, "requirements.txt", policy)
    if conda is None:
        raise MlwfError(_("The model does not record its requirements"), cure=_("Log it again with a current mlflow, which writes them."))
    return check_requirements(folder, _conda_requirements(conda), policy)


def _conda_requirements(conda: dict[str, object]) -> list[str]:
    """Where nothing else says what pip is to install. Raises MlwfError where conda was to install some of it."""
    others = _only_conda(conda)
    if others:
        raise MlwfError(
            _("The model requires conda packages"),
            ", ".join(map(shown, others))[:400],
            _("Log it with pip requirements (pip_requirements=…), or name in a requirements.txt of the package what pip is to install."),
        )
    pip = [each.get("pip") for each in _dependencies(conda) if isinstance(each, dict)]
    return [str(line) for lines in pip if isinstance(lines, list) for line in lines]


def _only_conda(conda: dict[str, object] | None) -> list[str]:
    """What it asks of conda itself, besides Python and what installs packages."""
    return [str(each) for each in _dependencies(conda) if not isinstance(each, dict) and not CONDA_OWN.fullmatch(str(each).strip())]


def _uv_lock(folder: Path) -> Path | None:
    """uv.lock, where pyproject.toml is beside it: only together they say something."""
    both = (folder / "uv.lock").is_file() and (folder / "pyproject.toml").is_file()
    return folder / "uv.lock" if both else None
