"""A uv.lock that came with a model: when it is the lock of the model's environment, and what it is good for otherwise."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.environment.uv_lock import read_uv_lock
from mlwf.image.model.requirements import Policy

from tests.image.conftest import Locking
from tests.image.index import Index

Serve = Callable[[Index], Index]
MakeFolder = Callable[..., Path]

UV_LOCK = """\
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "below"
version = "1.5"
source = {{ {source} }}
wheels = [{{ url = "{url}/below-1.5-py3-none-any.whl", hash = "sha256:{digest}" }}]

[[package]]
name = "project"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "below" }}]

[package.metadata]
requires-dist = [{{ name = "below" }}]
"""
PYPROJECT = '[project]\nname = "project"\nversion = "0.1.0"\nrequires-python = ">=3.11"\ndependencies = ["below"]\n'
PYPI = 'registry = "https://pypi.org/simple"'


def locked_package(make_folder: MakeFolder, source: str, name: str = "package") -> Path:
    text = UV_LOCK.format(source=source, url="https://files.pythonhosted.org/packages", digest="ab" * 32)
    return make_folder({"uv.lock": text, "pyproject.toml": PYPROJECT, "requirements.txt": "below==1.5"}, name=name)


def test_a_uv_lock_is_honoured(make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    folder = locked_package(make_folder, PYPI)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lock = locking(Index(port=1)).lock(folder)  # nobody is there, and nobody is asked
    assert [(each.name, each.version, each.hashes) for each in lock.packages] == [("below", "1.5", ("ab" * 32,))]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('registry = "https://evil.example/simple"', "--allow-indexes"),
        ('url = "https://evil.example/below-1.5-py3-none-any.whl"', "--allow-urls"),
        ('git = "https://evil.example/below?rev=main#abc"', "a path or an address"),
        ('path = "../../below-1.5-py3-none-any.whl"', "a path or an address"),
        ('directory = "/etc"', "a path or an address"),
        ('editable = "code"', "a path or an address"),
    ],
)
def test_where_a_uv_lock_may_not_point_to(make_folder: MakeFolder, locking: Callable[..., Locking], source: str, words: str) -> None:
    with pytest.raises(MlwfError) as caught:
        locking(Index(port=1)).lock(locked_package(make_folder, source))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["x\\n-e /artifacts\\ny", "-e /artifacts #", "x\\r-r /etc/hostname\\ry", "x ; y"])
def test_what_is_no_name_in_a_uv_lock_tells_no_version(make_folder: MakeFolder, name: str) -> None:
    folder = locked_package(make_folder, PYPI)
    text = (folder / "uv.lock").read_text()
    (folder / "uv.lock").write_text(f'{text}[[package]]\nname = "{name}"\nversion = "1"\nsource = {{ {PYPI} }}\n')
    assert read_uv_lock(folder / "uv.lock").pins == {"below": "1.5"}


def test_a_uv_lock_of_something_else_only_tells_versions(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]
) -> None:
    """MLflow copies the lock of whatever project the model was logged in."""
    index = serve_index(Index().add("top", "1.0", requires=["below"]).add("below", "1.5").add("below", "2.0"))
    folder = locked_package(make_folder, PYPI)
    (folder / "requirements.txt").write_text("top==1.0")
    lock = locking(index).lock(folder)
    assert [(each.name, each.version) for each in lock.packages] == [("below", "1.5"), ("top", "1.0")]
    assert lock.packages[0].hashes == (hashlib.sha256(index.files["below-1.5-py3-none-any.whl"]).hexdigest(),)
    (folder / "requirements.txt").write_text("top==1.0\nbelow>1.5")
    assert [each.version for each in locking(index).lock(folder).packages] == ["2.0", "1.0"]
    # Nor does it matter where that project's other packages come from.
    (folder / "uv.lock").write_text((folder / "uv.lock").read_text().replace(PYPI, 'git = "https://evil.example/x"'))
    assert [each.version for each in locking(index).lock(folder).packages] == ["2.0", "1.0"]


def test_a_uv_lock_of_a_workspace_whose_members_are_not_here(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]
) -> None:
    index = serve_index(Index().add("below", "1.5").add("below", "2.0"))
    folder = locked_package(make_folder, PYPI)
    (folder / "requirements.txt").write_text("below")
    (folder / "pyproject.toml").write_text(PYPROJECT + '[tool.uv.workspace]\nmembers = ["member"]\n')
    (folder / "uv.lock").write_text(
        (folder / "uv.lock").read_text() + '[[package]]\nname = "member"\nversion = "1"\nsource = { editable = "member" }\n'
    )
    makes = locking(index)
    assert [each.version for each in makes.lock(folder).packages] == ["1.5"]
    for members in ('["/**"]', '["../../**"]', '"/**"'):
        (folder / "pyproject.toml").write_text(PYPROJECT + f"[tool.uv.workspace]\nmembers = {members}\n")
        assert [each.version for each in makes.lock(folder).packages] == ["1.5"]
    for broken in ("tool = 3", "[tool", "\x00"):
        (folder / "pyproject.toml").write_text(broken)
        assert [each.version for each in makes.lock(folder).packages] == ["1.5"]
    assert " export " not in (makes.folder / "build.log").read_text(), "uv would walk through all that the patterns match"


@pytest.mark.parametrize("text", ["", "version = 1", "package = 3", "package = [1]", "[[package", "\x00"])
def test_a_broken_uv_lock(make_folder: MakeFolder, locking: Callable[..., Locking], text: str) -> None:
    with pytest.raises(MlwfError, match=r"uv\.lock cannot be read"):
        locking(Index(port=1)).lock(make_folder({"uv.lock": text, "pyproject.toml": PYPROJECT}))


@dataclass(frozen=True)
class Project:
    """Whose uv.lock has below 1.5 for the `main` dependencies, and rare 1.0, which is of the `others` if at all."""

    main: str = '{ name = "below" }'
    others: str = ""
    told: str = ""

    def package(self, make_folder: MakeFolder, requirements: str) -> Path:
        text = UV_LOCK.format(source=PYPI, url="https://files.pythonhosted.org/packages", digest="ab" * 32)
        start, end = text.index("[[package]]"), text.index('[[package]]\nname = "project"')
        rare = text[start:end].replace("below", "rare").replace("1.5", "1.0")
        root = text[end:].replace('dependencies = [{ name = "below" }]', f"dependencies = [{self.main}]\n\n{self.others}")
        project = PYPROJECT + self.told
        return make_folder({"uv.lock": text[:end] + rare + root, "pyproject.toml": project, "requirements.txt": requirements})


PLAIN = Project()
ML = Project(others='[package.optional-dependencies]\nml = [{ name = "rare" }]\n', told='[project.optional-dependencies]\nml = ["rare"]\n')
DEV = Project(others='[package.dev-dependencies]\ndev = [{ name = "rare" }]\n', told='[dependency-groups]\ndev = ["rare"]\n')
TWO = Project(
    "", '[package.dev-dependencies]\ntest = [{ name = "rare" }, { name = "below" }]\n', '[dependency-groups]\ntest = ["rare", "below"]\n'
)
WINDOWS = Project('{ name = "below", marker = "sys_platform == \'win32\'" }')


@pytest.mark.parametrize(("project", "options"), [(ML, "--no-dev --extra=ml"), (DEV, "--group=dev")])
def test_an_extra_or_a_group_that_the_model_has(
    make_folder: MakeFolder, locking: Callable[..., Locking], project: Project, options: str
) -> None:
    """MLflow writes its packages into requirements.txt (uv_extras, uv_groups), and nowhere its name."""
    folder = project.package(make_folder, "rare==1.0\nbelow==1.5")
    makes = locking(Index(port=1))
    lock = makes.lock(folder)
    assert [(each.name, each.version, each.hashes) for each in lock.packages] == [
        ("below", "1.5", ("ab" * 32,)),
        ("rare", "1.0", ("ab" * 32,)),
    ]
    assert lock.uv_lock == "taken as it is"
    assert f"export --frozen {options} --" in (makes.folder / "build.log").read_text()
    (folder / "requirements.txt").write_text("below==1.5")
    without = locking(Index(port=1)).lock(folder)
    assert ([each.name for each in without.packages], without.uv_lock) == (["below"], "taken as it is")


@pytest.mark.parametrize(
    ("requirements", "project", "expected", "why"),
    [
        ("rare==1.0\nbelow==1.5", PLAIN, {"below": "1.5", "rare": "1.0"}, "'rare==1.0'"),
        ("rare==1.0", TWO, {"rare": "1.0"}, "'rare==1.0'"),
        ("below>1.5", PLAIN, {"below": "2.0"}, "'below>1.5'"),
        ("below!=1.5", PLAIN, {"below": "2.0"}, "'below!=1.5'"),
        ("below>=1.6,<3", PLAIN, {"below": "2.0"}, "'below>=1.6,<3'"),
        ("below==2.0,<3", PLAIN, {"below": "2.0"}, "'below==2.0,<3'"),
        ("below>=1.0", PLAIN, {"below": "1.5"}, "'below>=1.0'"),
        ("-c more.txt\nbelow", PLAIN, {"below": "2.0"}, "constraints"),
        ("below[more]==1.5", PLAIN, {"below": "1.5", "top": "3.0"}, "'below[more]==1.5'"),
        ("below==1.5", WINDOWS, {"below": "1.5"}, "'below==1.5'"),
        ("below==1.5; sys_platform == 'linux'", WINDOWS, {"below": "1.5"}, "linux"),
        ("below==1.4", PLAIN, {"below": "1.4"}, "'below==1.4'"),
        ("top==3.0", PLAIN, {"top": "3.0"}, "'top==3.0'"),
    ],
)
def test_a_requirement_is_met_whatever_the_uv_lock_has(  # noqa: PLR0917
    serve_index: Serve,
    make_folder: MakeFolder,
    locking: Callable[..., Locking],
    requirements: str,
    project: Project,
    expected: dict[str, str],
    why: str,
) -> None:
    """Where its export does not hold what the model asks for, only its versions are preferred: the image lacked those, or had others."""
    index = Index().add("below", "1.4").add("below", "2.0").add("rare", "1.0").add("rare", "2.0").add("top", "3.0")
    index = index.add("below", "1.5", requires=['top==3.0; extra == "more"'])
    folder = project.package(make_folder, requirements)
    (folder / "more.txt").write_text("below>1.5")
    makes = locking(serve_index(index))
    lock = makes.lock(folder)
    assert {each.name: each.version for each in lock.packages} == expected
    assert lock.uv_lock.startswith("only its versions were preferred: ")
    assert why in lock.uv_lock
    assert lock.uv_lock in (makes.folder / "build.log").read_text()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("version = 1\n", "version = 99\n"), "it is of another version of uv, whose form this one does not know"),
        (("sha256:", "sha256:no"), "uv cannot read it"),
    ],
)
def test_why_uv_does_not_take_a_uv_lock(
    serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking], change: tuple[str, str], why: str
) -> None:
    folder = PLAIN.package(make_folder, "below==1.5")
    text = (folder / "uv.lock").read_text()
    assert change[0] in text
    (folder / "uv.lock").write_text(text.replace(*change, 1))
    lock = locking(serve_index(Index().add("below", "1.5"))).lock(folder)
    assert lock.uv_lock == f"only its versions were preferred: {why}"


def test_a_package_for_another_system_is_as_it_is_in_the_uv_lock(make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    """MLflow writes what uv exports, with each package's marker, in the words of pip's own parser."""
    project = Project(PLAIN.main + ', { name = "rare", marker = "sys_platform == \'win32\'" }')
    folder = project.package(make_folder, 'below==1.5\nrare==1.0; sys_platform == "win32"')
    lock = locking(Index(port=1)).lock(folder)
    assert [each.name for each in lock.packages] == ["below", "rare"]
    assert lock.uv_lock == "taken as it is"


def test_a_package_for_one_minor_is_as_it_is_in_the_uv_lock(make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    """As uv writes it where a project is for several Pythons, each of which has another version of it."""
    project = Project(PLAIN.main + ', { name = "rare", marker = "python_full_version == \'3.11.*\'" }')
    folder = project.package(make_folder, 'below==1.5\nrare==1.0; python_full_version == "3.11.*"')
    lock = locking(Index(port=1)).lock(folder)
    assert "rare==1.0 ; python_full_version == '3.11.*'" in lock.text
    assert lock.uv_lock == "taken as it is"


def test_a_package_at_an_address_is_the_one_of_the_uv_lock(make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    address = "https://files.pythonhosted.org/packages/below-1.5-py3-none-any.whl"
    folder = locked_package(make_folder, f'url = "{address}"')
    (folder / "requirements.txt").write_text(f"below @ {address}")
    lock = locking(Index(port=1)).lock(folder, Policy(urls=True))
    assert [(each.name, each.address, each.hashes) for each in lock.packages] == [("below", address, ("ab" * 32,))]


def test_without_a_uv_lock_nothing_is_told_of_one(serve_index: Serve, make_folder: MakeFolder, locking: Callable[..., Locking]) -> None:
    lock = locking(serve_index(Index().add("top", "1.0"))).lock(make_folder({"requirements.txt": "top"}))
    assert lock.uv_lock == ""
    assert lock.text.startswith("top==1.0")
