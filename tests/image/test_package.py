"""What a package says of the environment that it wants, and what of its wishes it gets."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlwf.errors import MlwfError, WrongUseError
from mlwf.image.model import requirements
from mlwf.image.model.package import fetch_package, read_package, tree_digest
from mlwf.image.model.requirements import Policy, RefusedRequirementError, Requirements, check_requirements, read_requirements

from tests.image.conftest import CONDA, MLMODEL, package_files, packed

MakeFolder = Callable[..., Path]
# Before MLflow 2, `env` was the name of a file.
OLD = MLMODEL.replace("env:\n      conda: conda.yaml\n      virtualenv: python_env.yaml", "env: conda.yaml")
ALL = Policy(indexes=True, urls=True)


def test_what_mlflow_writes(make_folder: MakeFolder, tmp_path: Path) -> None:
    package = fetch_package(str(make_folder()), tmp_path / "model", environ={})
    assert (package.python, package.python_origin) == ("3.11.7", "python_env.yaml")
    # The last line has no newline, and is whole.
    assert package.requirements == ("mlflow==3.17.2", "numpy==2.4.0")
    assert package.input_example
    assert package.input_example.file == tmp_path / "model" / "serving_input_example.json"
    assert (package.name, package.uv_lock) == ("m-0123456789abcdef", None)


def test_a_models_folder_is_not_copied_into_itself(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    (folder / ".partial").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(WrongUseError, match=r"model's own folder .*--output-dir"):
        fetch_package(".", Path(".partial/model"), environ={})
    assert list((folder / ".partial").iterdir()) == []
    exported = folder.parent / "exported"
    (exported / ".partial").mkdir(parents=True)
    (folder / ".partial").rmdir()
    folder.rename(exported / "artifacts")
    monkeypatch.chdir(exported)
    assert fetch_package(".", Path(".partial/model"), environ={}).sha256 == tree_digest(exported / "artifacts")


def test_the_digest_is_of_names_and_contents_alone(make_folder: MakeFolder, tmp_path: Path) -> None:
    one = fetch_package(str(make_folder()), tmp_path / "one", environ={})
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(packed(package_files()))
    two = fetch_package(str(archive), tmp_path / "two", environ={})
    assert one.sha256 == two.sha256 == tree_digest(tmp_path / "one")
    (tmp_path / "two" / "model.skops").write_text("other")
    assert tree_digest(tmp_path / "two") != one.sha256


@pytest.mark.parametrize(
    ("changes", "python", "origin"),
    [
        ({"python_env.yaml": None}, "3.11.7", "conda.yaml"),
        ({"python_env.yaml": None, "conda.yaml": CONDA.replace("python=3.11.7", "python==3.10.4")}, "3.10.4", "conda.yaml"),
        ({"python_env.yaml": None, "conda.yaml": None}, "3.11.7", "MLmodel"),
        ({"python_env.yaml": "python: 3.11\n", "conda.yaml": None}, "3.11.7", "MLmodel"),
        ({"python_env.yaml": "python: '3'\n", "conda.yaml": CONDA.replace("3.11.7", "3.11")}, "3.11.7", "MLmodel"),
        ({"python_env.yaml": "python: 3.11\n", "conda.yaml": CONDA.replace("3.11.7", "3.11.4")}, "3.11.4", "conda.yaml"),
        ({"python_env.yaml": None, "MLmodel": OLD}, "3.11.7", "conda.yaml"),
    ],
)
def test_the_python_is_taken_from_the_first_that_says_it(
    make_folder: MakeFolder, changes: dict[str, str | None], python: str, origin: str
) -> None:
    package = read_package(make_folder(changes))
    assert (package.python, package.python_origin) == (python, origin)


@pytest.mark.parametrize(
    ("python_env", "conda", "said"),
    [
        ("3.12", "3.12", "python_env.yaml: '3.12', conda.yaml: '3.12', MLmodel: '3.11.7'"),
        ("3.1", None, "python_env.yaml: '3.1', MLmodel: '3.11.7'"),
        ("3.11", "3.12.1", "python_env.yaml: '3.11', conda.yaml: '3.12.1'"),
        (None, "3.12", "conda.yaml: '3.12', MLmodel: '3.11.7'"),
    ],
)
def test_a_later_file_only_refines_the_python_of_an_earlier_one(
    make_folder: MakeFolder, python_env: str | None, conda: str | None, said: str
) -> None:
    """MLflow writes `python=3.12` of a conda_env into both files; MLmodel has the Python that logged, which is another one."""
    changes = {
        "python_env.yaml": python_env and f"python: '{python_env}'\n",
        "conda.yaml": conda and CONDA.replace("3.11.7", conda),
    }
    with pytest.raises(MlwfError) as caught:
        read_package(make_folder(changes))
    assert f"exact Python version: {said}" in str(caught.value)
    assert "python=3.11.7" in caught.value.cure


def test_an_old_package_with_conda_alone(make_folder: MakeFolder) -> None:
    folder = make_folder({"python_env.yaml": None, "requirements.txt": None})
    assert read_package(folder).requirements == ("mlflow==3.17.2", "numpy==2.4.0")
    folder = make_folder({"python_env.yaml": None, "requirements.txt": None, "conda.yaml": CONDA + "- cudatoolkit=11.8\n"}, name="cuda")
    (folder / "conda.yaml").write_text(CONDA.replace("- pip:", "- cudatoolkit=11.8\n- pip:"))
    with pytest.raises(MlwfError, match=r"requires conda packages: 'cudatoolkit=11.8'"):
        read_package(folder)


@pytest.mark.parametrize(
    ("listed", "packages", "constraints"),
    [
        (["-r requirements.txt", "scipy==1.17.0  # for the loader"], ("mlflow==3.17.2", "numpy==2.4.0", "scipy==1.17.0"), ()),
        (["-r deps/model.txt"], ("below==1.5", "top==1.0"), ()),
        (["-c deps/bounds.txt", "-r requirements.txt"], ("mlflow==3.17.2", "numpy==2.4.0"), ("below<3",)),
        (["numpy==2.4.1"], ("numpy==2.4.1",), ()),
        ([], ("mlflow==3.17.2", "numpy==2.4.0"), ()),
    ],
)
def test_what_python_env_lists_is_what_mlflow_installs(
    make_folder: MakeFolder, listed: list[str], packages: tuple[str, ...], constraints: tuple[str, ...]
) -> None:
    """It makes a requirements file of the list, in the model's folder. Beside a requirements.txt, nothing of it was read."""
    files = {"deps/model.txt": "-r more.txt\ntop==1.0", "deps/more.txt": "below==1.5", "deps/bounds.txt": "below<3"}
    python_env = json.dumps({"python": "3.11.7", "dependencies": listed})
    assert read_package(make_folder({**files, "python_env.yaml": python_env})).wanted == Requirements(packages, constraints)


def test_a_file_that_conda_yaml_includes(make_folder: MakeFolder) -> None:
    conda = json.dumps({"dependencies": ["python=3.11.7", {"pip": ["-r deps/model.txt"]}]})
    folder = make_folder({"python_env.yaml": None, "requirements.txt": None, "conda.yaml": conda, "deps/model.txt": "top==1.0"})
    assert read_package(folder).requirements == ("top==1.0",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r ../outside.txt", "leads out of the package"),
        ("-r deps/none.txt", "not in the package"),
        ("-r deps/index.txt", "--allow-indexes"),
        ("--extra-index-url https://evil.example/simple", "--allow-indexes"),
        ("git+https://github.com/x/y", "a path or an address"),
        ("-e .", "source folder"),
    ],
)
def test_what_python_env_lists_is_held_to_the_policy(make_folder: MakeFolder, line: str, words: str) -> None:
    python_env = json.dumps({"python": "3.11.7", "dependencies": ["-r requirements.txt", line]})
    folder = make_folder(
        {"python_env.yaml": python_env, "deps/index.txt": "--index-url https://evil.example/simple", "../outside.txt": "a"}
    )
    with pytest.raises(RefusedRequirementError) as caught:
        read_package(folder)
    assert words in str(caught.value)


def test_what_only_conda_has_is_named_beside_requirements(make_folder: MakeFolder) -> None:
    """MLflow writes the pip part of a conda_env into requirements.txt, and leaves the rest out of its environments. A base may have it."""
    assert read_package(make_folder({"conda.yaml": CONDA.replace("- pip:", "- setuptools>60\n- wheel\n- pip:")})).warning == ""
    others = '- openjdk=11\n- conda-forge::cudatoolkit=11.8\n- "x\\e[2J"\n- pip:'
    package = read_package(make_folder({"conda.yaml": CONDA.replace("- pip:", others)}))
    assert package.requirements == ("mlflow==3.17.2", "numpy==2.4.0")
    assert package.left_out == ("openjdk=11", "conda-forge::cudatoolkit=11.8", "x\x1b[2J")
    assert "'openjdk=11', 'conda-forge::cudatoolkit=11.8', 'x\\x1b[2J'. If" in package.warning


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MLmodel": "flavors: {sklearn: {}}"}, "no python_function flavor"),
        ({"MLmodel": "- a list"}, "it is not a mapping"),
        ({"MLmodel": "a: [unclosed"}, "it is not YAML"),
        ({"MLmodel": "a: !!python/object/apply:os.system ['touch /tmp/x']"}, "it is not YAML"),
        (
            {
                "MLmodel": "a: &-a [x]\n"
                + "".join(f"b{n}: &b{n} [*{'-a' if not n else f'b{n - 1}'} , *{'-a' if not n else f'b{n - 1}'} ]\n" for n in range(30))
            },
            "refers to itself too often",
        ),
        ({"MLmodel": "a: &a [*a]\n"}, "refers to itself too often"),
        ({"python_env.yaml": "[" * 3000}, "it is not YAML"),
        (
            {"python_env.yaml": None, "conda.yaml": None, "MLmodel": MLMODEL.replace("3.11.7", "3.11")},
            "exact Python version: MLmodel: '3.11'",
        ),
        (
            {"python_env.yaml": "python: '3.11.7; rm -rf /'\n", "conda.yaml": None, "MLmodel": MLMODEL.replace("3.11.7", "x")},
            "exact Python",
        ),
        ({"requirements.txt": None, "conda.yaml": None, "python_env.yaml": "python: 3.11.7\n"}, "does not record its requirements"),
        ({"requirements.txt": "numpy==1\xff"}, ""),
        ({"python_env.yaml": f"python: 0x{'f' * 5000}\n"}, "it is not YAML"),
        ({"python_env.yaml": f"python: {'1:' * 400_000}1\n"}, "it is not YAML"),
        ({"python_env.yaml": "python: !!bool x\n"}, "it is not YAML"),
        ({"python_env.yaml": f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 100_000}]\n"}, "refers to itself too often"),
        ({"conda.yaml": f"dependencies:\n- python={'1' * 1_000_000} x\n"}, "longer than 2000"),
        (
            {"requirements.txt": None, "python_env.yaml": None, "conda.yaml": f'dependencies:\n- "python{" " * 1_000_000}x\\ny"\n'},
            "longer than 2000",
        ),
    ],
)
def test_what_cannot_be_read_is_said(make_folder: MakeFolder, changes: dict[str, str | None], words: str) -> None:
    folder = make_folder(changes)
    if not words:
        (folder / "requirements.txt").write_bytes(b"numpy==1\xff")
        words = "it is not UTF-8 text"
    with pytest.raises(MlwfError) as caught:
        read_package(folder)
    assert words in str(caught.value)


def test_an_example_outside_the_package_is_none(make_folder: MakeFolder) -> None:
    outside = MLMODEL.replace("serving_input_path: serving_input_example.json", "serving_input_path: ../../../etc/passwd")
    assert read_package(make_folder({"MLmodel": outside})).input_example is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--index-url https://evil.example/simple", "--allow-indexes"),
        ("-i https://evil.example/simple", "--allow-indexes"),
        ("--extra-index-url=https://evil.example/simple", "--allow-indexes"),
        ("--find-links https://evil.example/", "--allow-indexes"),
        ("-f wheels/", "not a web address"),
        ("--no-index", "a model may not set this option"),
        ("--trusted-host evil.example", "a model may not set this option"),
        ("--no-binary :all:", "a model may not set this option"),
        ("--config-settings=x", "a model may not set this option"),
        ("-e .", "source folder"),
        ("--editable git+https://x.example/y", "source folder"),
        ("git+https://github.com/x/y", "a path or an address"),
        ("thing @ git+https://github.com/x/y", "pinned by its hash"),
        ("thing @ http://x.example/thing-1-py3-none-any.whl", "pinned by its hash"),
        ("thing @ file:///etc/passwd", "pinned by its hash"),
        ("thing @ https://x.example/thing-1-py3-none-any.whl", "--allow-urls"),
        ("https://x.example/thing-1-py3-none-any.whl", "a path or an address"),
        ("./code/thing-1-py3-none-any.whl", "a path or an address"),
        ("/etc/passwd", "a path or an address"),
        ("code/thing", "a path or an address"),
        ("thing-1-py3-none-any.whl", "a path or an address"),
        ("thing-1.tar.gz[extra]", "a path or an address"),
        ("thing-1.ZIP ; python_version > '3'", "a path or an address"),
        ("numpy\u00a0==1", "not understood"),
        ("-r ../../etc/passwd", "leads out of the package"),
        ("-r /etc/passwd", "leads out of the package"),
        ("-c https://evil.example/c.txt", "leads out of the package"),
        ("-r nothing.txt", "not in the package"),
        ("numpy==1 --global-option=x", "not understood"),
        ("numpy==1\x1b[2J", "not understood"),
        ("$(touch x)", "not understood"),
        ("numpy==1; python_version > '3' $(x)", "not understood"),
        ("--index-url https://x.example/${AWS_SECRET_ACCESS_KEY}/simple", "variables of your environment"),
        ("a @ https://x.example/${AWS_SECRET_ACCESS_KEY}/a-1-py3-none-any.whl", "variables of your environment"),
        ("numpy" + " " * 3000 + "!", "longer than 2000"),
        ("numpy ==1" + " " * 1900 + "!", "not understood"),
        ("--" + "x" * 3000, "longer than 2000"),
    ],
)
def test_what_a_model_does_not_get(make_folder: MakeFolder, line: str, words: str) -> None:
    folder = make_folder({"requirements.txt": f"mlflow==3.17.2\n{line}"})
    with pytest.raises(MlwfError) as caught:
        read_package(folder)
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
@pytest.mark.parametrize(
    "line",
    [
        "numpy==1 ; python_version > '3'{}-e artifacts",
        "numpy=={}1",
        "numpy [a,{}-e]",
        "a @ https://x.example/a-1-py3-none-any.whl ;{}-e artifacts",
        "--pre{}-r artifacts",
        "--extra-index-url{}https://x.example/simple",
        "-r{}more.txt",
    ],
)
def test_a_line_of_yaml_is_one_line(make_folder: MakeFolder, line: str, end: str) -> None:
    """For uv a CR ends a line: what stood behind it was read as an option, and `-e` runs code of the package on this machine."""
    quoted = json.dumps(line.format(end))
    for number, (name, text) in enumerate(
        {
            "python_env.yaml": f"python: 3.11.7\ndependencies:\n- {quoted}\n",
            "conda.yaml": f"dependencies:\n- python=3.11.7\n- pip:\n  - {quoted}\n",
        }.items()
    ):
        changes = {"requirements.txt": None, "python_env.yaml": None, "conda.yaml": None} | {name: text}
        with pytest.raises(RefusedRequirementError) as caught:
            read_package(make_folder(changes, name=str(number)), ALL)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://u:hunter2secret@x.example/simple",
        "--extra-index-url https://u:p@hunter2secret@x.example/simple",
        "a @ https://u:hunter2secret@x.example/a-1-py3-none-any.whl",
    ],
)
def test_a_password_is_never_taken_and_never_shown(make_folder: MakeFolder, line: str) -> None:
    with pytest.raises(MlwfError) as caught:
        read_package(make_folder({"requirements.txt": line}), ALL)
    assert "holds a user name or a password" in str(caught.value)
    assert "hunter2secret" not in repr(caught.value) + str(caught.value)


def test_what_is_allowed_by_name(make_folder: MakeFolder) -> None:
    text = "--extra-index-url https://x.example/simple\na @ https://x.example/a-1-py3-none-any.whl\n--pre\nb==1  # why\n"
    found = read_package(make_folder({"requirements.txt": text}), ALL).wanted
    assert found == Requirements(
        packages=("a @ https://x.example/a-1-py3-none-any.whl", "b==1"), indexes=("--extra-index-url https://x.example/simple",)
    )


def test_every_release_of_a_minor_is_a_marker_that_uv_writes(make_folder: MakeFolder) -> None:
    """A model of a uv project for several Pythons was refused for it."""
    lines = ("numpy==1.26.4 ; python_full_version == '3.11.*'", 'scipy==1.15; python_version != "3.10.*" and platform_release >= "5.4+rt"')
    assert read_package(make_folder({"requirements.txt": "\n".join(lines)})).requirements == lines
    addressed = "a @ https://x.example/a-1-py3-none-any.whl ; python_full_version == '3.11.*'"
    assert read_package(make_folder({"requirements.txt": addressed}), ALL).requirements == (addressed,)


def test_includes_inside_the_package(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "requirements.txt": "-r more/extra.txt\n-c constraints.txt\r\nMLflow[genai] >=3, <4 ; python_version >= '3.9'\n",
            "more/extra.txt": "\ufeffscipy==1.17.0 \\\n    --hash=sha256:00\n-c ../constraints.txt",
            "constraints.txt": "numpy<3",
        }
    )
    found = read_package(folder).wanted
    assert found == Requirements(("scipy==1.17.0", "MLflow[genai] >=3, <4 ; python_version >= '3.9'"), ("numpy<3",))
    (folder / "constraints.txt").write_text("-r requirements.txt")
    with pytest.raises(MlwfError, match="in a circle"):
        read_package(folder)


def test_files_that_include_each_other_again_and_again(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files of thirty lines were read 27,931 times."""
    names = ["requirements.txt", "a.txt", "b.txt", "c.txt"]
    chain = {name: f"-r {below}\n-c {below}\n" * 30 + f"{name[0]}==1\n" for name, below in itertools.pairwise(names)}
    folder = make_folder({**chain, "c.txt": "c==1\n" * 30})
    read: list[Path] = []
    text = requirements._text
    monkeypatch.setattr(requirements, "_text", lambda file: read.append(file) or text(file))
    assert read_package(folder).wanted == Requirements(("c==1", "b==1", "a==1", "r==1"), ("c==1", "b==1", "a==1"))
    assert len(read) == 7
    (folder / "requirements.txt").write_text("-r c.txt\n" * 1001)
    with pytest.raises(MlwfError, match="include files more than 1000 times"):
        read_package(folder)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=200), st.text(alphabet="-rcief @:/.=\\\n#;a\t+'\"<>!,[]*", max_size=60)))
def test_no_line_becomes_an_option_that_was_not_allowed(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(text, "utf-8", errors="replace")
    for read in (lambda: read_requirements(tmp_path, "requirements.txt"), lambda: check_requirements(tmp_path, [text])):
        try:
            found = read()
        except MlwfError:
            continue
        for line in found.lines:
            assert line[0].isalnum()
            assert line[0].isascii()
            assert line.isprintable()
            assert not {"/", "\\", "@"} & set(line)
