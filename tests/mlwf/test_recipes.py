"""The recipes beside an image, as text: what they name, and how. That they build is tried in test_create_image and test_image_docker."""

import dataclasses
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from mlwf.image.base.source import Pinned, parse_base, pin
from mlwf.image.environment.pythons import Python
from mlwf.image.model.requirements import without_passwords
from mlwf.image.recipe import ENV_SH, Recipe

DIGEST = "sha256:" + "ab" * 32
PYTHON = Python("3.11.7", "/usr/bin/python3", None, "base")


def test_recipes_name_the_content(tmp_path: Path) -> None:
    base = parse_base("docker://python:3.11.7-slim")
    recipe = Recipe(base, pin(parse_base(f"docker://python@{DIGEST}"), {}, http=False, digest_of=str), PYTHON, only_wheels=True)
    assert f"Bootstrap: docker\nFrom: docker.io/library/python@{DIGEST}\n" in recipe.singularity()
    assert f"FROM docker.io/library/python@{DIGEST}\n" in recipe.dockerfile()
    for text in (recipe.singularity(), recipe.dockerfile()):
        assert "uv pip sync --no-config --require-hashes --only-binary :all:" in text
        assert "uv venv --no-config --relocatable --python /usr/bin/python3 /mlwf/env" in text
        assert "the base's own Python 3.11.7.\n" in text
        assert "UV_TORCH_BACKEND" not in text
    with_torch = dataclasses.replace(recipe, variables={"UV_TORCH_BACKEND": "cu128"})
    assert "export UV_PYTHON_INSTALL_DIR=/mlwf/python UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy UV_TORCH_BACKEND=cu128\n" in (
        with_torch.singularity()
    )
    assert "UV_LINK_MODE=copy UV_TORCH_BACKEND=cu128\n" in with_torch.dockerfile()
    archive = tmp_path / "base.tar"
    archive.write_bytes(b"x")
    local = parse_base(f"docker-archive:{archive}")
    of_file = Recipe(local, pin(local, {}, http=False, digest_of=lambda _file: DIGEST), PYTHON, only_wheels=False)
    assert f"Bootstrap: docker-archive\nFrom: {archive}\n" in of_file.singularity()
    assert str(tmp_path) not in of_file.singularity(portable=True)
    assert "--only-binary" not in of_file.singularity()


@pytest.mark.parametrize("http", [False, True])
def test_the_recipe_speaks_to_the_registry_as_the_build_did(tmp_path: Path, http: bool) -> None:
    archive = tmp_path / "base.tar"
    archive.write_bytes(b"x")
    for text, remote in ((f"docker://reg.example/python@{DIGEST}", True), (f"docker-archive:{archive}", False)):
        base = parse_base(text)
        recipe = Recipe(base, pin(base, {}, http=http, digest_of=lambda _file: DIGEST), PYTHON, only_wheels=True, http=http)
        option = "--no-https " if http and remote else ""
        assert f"\n# Then:   singularity build {option}container.simg Singularity\n" in recipe.singularity()
        assert "--no-https" not in recipe.singularity(portable=True), "the same image however it was reached"


@pytest.mark.parametrize(
    ("text", "source", "moves", "line"),
    [
        ("docker-daemon:base:1", f"docker-daemon:{DIGEST}", False, f"Bootstrap: docker-daemon\nFrom: {DIGEST}\n"),
        ("oras://reg.example/base:1", "/tmp/pulled.sif", True, "Bootstrap: oras\nFrom: reg.example/base:1\n"),
        ("library://e/c/base:1", "/tmp/pulled.sif", True, "Bootstrap: library\nFrom: e/c/base:1\n"),
        (f"oras://reg.example/base@{DIGEST}", "/tmp/pulled.sif", False, f"Bootstrap: oras\nFrom: reg.example/base@{DIGEST}\n"),
    ],
)
def test_the_recipe_names_a_tag_only_where_it_says_so(text: str, source: str, moves: bool, line: str) -> None:
    recipe = Recipe(parse_base(text), Pinned(source, DIGEST, text), PYTHON, only_wheels=True)
    said = recipe.singularity()
    assert line in said
    assert f"\n# The base image's content: {DIGEST}\n" in said
    assert ("which may have moved since" in said) is moves
    assert ("# The base image's name was docker-daemon:base:1.\n" in said) is (text == "docker-daemon:base:1")
    assert "moved" not in recipe.singularity(portable=True)


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_the_recipe_names_the_one_image_of_several(tmp_path: Path, kind: str) -> None:
    """By its digest: of Apptainer 1.4 and SingularityCE 4.1 none takes a tag, nor a digest in an archive."""
    other = DIGEST.replace("ab", "cd")
    entries = [
        {"mediaType": "m", "size": 1, "digest": digest, "annotations": {"org.opencontainers.image.ref.name": name}}
        for digest, name in ((other, "one"), (DIGEST, "two"))
    ]
    for manifests, names_it in ((entries[1:], False), (entries, True)):
        place = tmp_path / f"a folder {names_it}"
        place.mkdir()
        (place / "index.json").write_text(json.dumps({"manifests": manifests}))
        if kind == "oci-archive":
            with tarfile.open(place / "image.tar", "w") as archive:
                archive.add(place / "index.json", "index.json")
            place /= "image.tar"
        base = parse_base(f"{kind}:{place}:two")
        recipe = Recipe(base, pin(base, {}, http=False, digest_of=str), PYTHON, only_wheels=True)
        text = recipe.singularity()
        assert f"# The base image's content: {DIGEST}\n" in text
        if kind == "oci-archive" and names_it:
            assert f"\n#         mkdir base-image && tar -xf '{place}' -C base-image\n" in text
            assert f"Bootstrap: oci\nFrom: base-image@{DIGEST}\n" in text
        else:
            assert f"Bootstrap: {kind}\nFrom: {place}{f'@{DIGEST}' if names_it else ''}\n" in text
        assert f"Bootstrap: {kind}\nFrom: {DIGEST}\n" in recipe.singularity(portable=True)


@pytest.mark.parametrize("origin", ["uv", "site"])
def test_recipes_say_where_the_python_came_from(tmp_path: Path, origin: str) -> None:
    mirror = without_passwords("https://me:p@ss@mirror.example/python's\n%setup")
    python = Python("3.11.7", "/mlwf/python/bin/python3.11", tmp_path, origin)
    pinned = pin(parse_base(f"docker://python@{DIGEST}"), {}, http=False, digest_of=str)
    plain = Recipe(parse_base("docker://python:3.11.7-slim"), pinned, python, only_wheels=True)
    named = dataclasses.replace(plain, mirror=mirror)
    for text in (plain.singularity(), plain.dockerfile()):
        assert "# Python 3.11.7 as uv fetches it.\n" in text
        assert ("# Another build of it than the image's, which is the site's own: a folder 3.11.7 in MLWF_PYTHONS.\n" in text) == (
            origin == "site"
        )
        assert " uv venv --no-config --relocatable --managed-python --python 3.11.7 /mlwf/env" in text
        assert "MIRROR" not in text
    for text in (named.singularity(), named.dockerfile()):
        assert (
            "# Python 3.11.7 as uv fetches it, from the mirror that was named for the image (a password in its address is left out).\n"
            in text
        )
        (variable,) = re.findall(r"^(?:RUN|   ) (UV_PYTHON_INSTALL_MIRROR=.*) uv venv ", text, re.MULTILINE)
        said = subprocess.run(["sh", "-c", f"{variable} printenv UV_PYTHON_INSTALL_MIRROR"], check=True, capture_output=True, text=True)
        assert said.stdout == "https://mirror.example/python's%0A%setup\n"
    assert named.singularity(portable=True) == plain.singularity(portable=True), "the image is the same from wherever it was fetched"


def test_what_the_base_sets_for_its_own_python_is_out_before_the_first_program_runs() -> None:
    base = parse_base(f"docker://python@{DIGEST}")
    recipe = Recipe(base, pin(base, {}, http=False, digest_of=str), PYTHON, only_wheels=True)
    nothing = "PYTHONPATH= PYTHONHOME= PYTHONEXECUTABLE= PYTHONPLATLIBDIR=\n"
    before, _run, _after = recipe.singularity().partition("uv venv")
    assert f"\n    export {nothing}" in before.partition("%post\n")[2]
    before, _run, _after = recipe.dockerfile().partition("\nRUN ")
    assert "\n# It serves as root. " in recipe.dockerfile().partition("uv venv")[2]
    for line in ("USER 0\n", "ENTRYPOINT []\n", f"ENV {nothing}"):
        assert f"\n{line}" in before.partition("\nFROM ")[2]
    (loop,) = re.findall(r"^    (for line .*; done) >/\.singularity\.d/env/92-mlwf\.sh$", recipe.singularity(), re.MULTILINE)
    said = subprocess.run(["sh", "-c", loop], check=True, capture_output=True, text=True)
    assert said.stdout == "".join(ENV_SH.splitlines(keepends=True)[1:]), "as in the image itself"
