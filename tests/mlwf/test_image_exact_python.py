"""The exact Python that a model recorded, where the base has another patch of it: a real one, through a mirror, in a built image."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.web import Web
from tests.mlwf.models import Models, answer_of
from tests.support import movable
from tests.support.apptainer import Ground, base_python

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
# What the image itself says, and the model's packages with it.
ASK = """
import json, ssl, sqlite3, sys, sysconfig
import mlflow, numpy, pandas, sklearn
print(json.dumps({
    "version": sys.version.split()[0], "prefix": sys.prefix, "base": sys.base_prefix, "library": sysconfig.get_path("stdlib"),
    "headers": sysconfig.get_config_var("INCLUDEPY"), "packages": mlflow.__file__,
}))
"""


@pytest.fixture
def mirror(ground: Ground) -> Iterator[tuple[Web, dict[str, str]]]:
    """A site's mirror with one Python, and the variable that names uv the list of it."""
    if base_python() == movable.VERSION:
        pytest.skip(f"the base has the very Python of the tests ({movable.VERSION}), and this is about another one: use one of pyenv or uv")
    if not movable.can_move():
        pytest.skip(f"the Python of the tests ({movable.VERSION}) is the system's, spread over /usr: run them with one of pyenv or uv")
    folder = ground.home / "mirror"
    folder.mkdir()
    python = movable.movable_python(folder)
    serving = Web({f"/{movable.RELEASE}": python.archive}).start()
    yield serving, {"UV_PYTHON_DOWNLOADS_JSON_URL": str(python.listed), "UV_HTTP_RETRIES": "0"}
    serving.stop()
    shutil.rmtree(folder)


def asking_for(version: str, model: Path, ground: Ground) -> Path:
    """The same model, logged with that Python."""
    folder = ground.home / f"with-{version}"
    shutil.copytree(model, folder)
    for file in (folder / "python_env.yaml", folder / "MLmodel"):
        file.write_text(file.read_text().replace(base_python(), version))
    return ground.give(folder)


def test_the_exact_python_of_a_mirror_is_the_images(ground: Ground, models: Models, mirror: tuple[Web, dict[str, str]]) -> None:
    web, variables = mirror
    model = asking_for(movable.VERSION, models.regression(), ground)
    given = ["--model-pkg-url", model, "--base-container-url", f"docker-archive:{ground.base}", "--python-mirror", web.url, "--json"]

    def created(*options: str, **more: str) -> dict[str, object]:
        done = ground.run(ground.create(*given, *options), seconds=500, **variables, **more)
        assert done.returncode == 0, done.stderr
        return answer_of(done.stdout)

    made = created()
    assert [path for path, _range in web.asked] == [f"/{movable.RELEASE}"]
    assert made["python"] == movable.VERSION
    assert made["proof"]["state"] == "answered"  # type: ignore[index]
    image = str(made["image"])
    said = ground.run([ground.tool, "exec", image, "python", "-V"])
    assert said.stdout == f"Python {movable.VERSION}\n", said.stderr
    asked = ground.run([ground.tool, "exec", image, "python", "-c", ASK])
    minor = movable.MINOR
    assert json.loads(asked.stdout) == {
        "version": movable.VERSION, "prefix": "/mlwf/env", "base": "/mlwf/python", "library": f"/mlwf/python/lib/python{minor}",
        "headers": f"/mlwf/python/include/python{minor}", "packages": f"/mlwf/env/lib/python{minor}/site-packages/mlflow/__init__.py",
    }, asked.stderr  # fmt: skip
    assert ground.run([ground.tool, "exec", image, "/usr/bin/python3", "-V"]).stdout == f"Python {base_python()}\n", "the base's own stays"
    provenance = json.loads((Path(str(made["folder"])) / "provenance.json").read_text())
    assert (provenance["python"], provenance["python-wanted"], provenance["python-origin"]) == (movable.VERSION, movable.VERSION, "uv")

    for name in ("Singularity", "Dockerfile"):
        assert f" UV_PYTHON_INSTALL_MIRROR={web.url} uv venv " in (Path(str(made["folder"])) / name).read_text()
    assert web.url not in ground.run([ground.tool, "inspect", "--deffile", image]).stdout

    again = created("--no-test", MLWF_CACHE=str(ground.home / "another-cache"), SLURM_CPUS_PER_TASK="1")
    assert not again["cached"]
    assert len(web.asked) == 2, "it was fetched once more"
    digests = [hashlib.sha256(Path(str(each["image"])).read_bytes()).hexdigest() for each in (made, again)]
    assert digests[0] == digests[1]


def test_the_exact_python_of_a_site_is_the_images_in_a_job_without_network(
    ground: Ground, models: Models, mirror: tuple[Web, dict[str, str]]
) -> None:
    (archive,) = mirror[0].files.values()
    pythons = ground.home / "pythons"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(pythons, filter="data")
    (pythons / "python").rename(pythons / movable.VERSION)
    ground.give(pythons)
    given: list[str | Path] = [
        "--model-pkg-url",
        models.tiny(python=movable.VERSION),
        "--base-container-url",
        f"docker-archive:{ground.base}",
    ]
    job = {"MLWF_CACHE": str(ground.home / "cache-of-site"), "UV_PYTHON_DOWNLOADS": "never"}
    fetched = ground.run(ground.create(*given, "--fetch-only"), seconds=500, MLWF_PYTHONS=str(pythons), **job)
    assert fetched.returncode == 0, fetched.stderr
    done = ground.run(ground.create(*given, "--offline", "--no-test", "--json"), seconds=500, **job)
    assert done.returncode == 0, done.stderr
    image = str(answer_of(done.stdout)["image"])
    assert "which is the site's own" in Path(image).with_name("Dockerfile").read_text()
    labels = json.loads(ground.run([ground.tool, "inspect", "--json", image]).stdout)["data"]["attributes"]["labels"]
    assert (labels["mlwf.python"], labels["mlwf.python-origin"]) == (movable.VERSION, "site")
    ask = "import six, sys; print(sys.version.split()[0], sys.base_prefix, six.__file__)"
    modules = ground.home / "modules"  # as a site's environment modules name theirs
    modules.mkdir()
    (modules / "six.py").write_text("")
    ground.give(modules)
    seen = ["--bind", modules, "--pwd", "/"]
    own = dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR"), str(modules))
    said = ground.run([ground.tool, "exec", *seen, image, "python", "-c", ask], **own)
    place = f"/mlwf/env/lib/python{movable.MINOR}/site-packages/six.py"
    assert said.stdout == f"{movable.VERSION} /mlwf/python {place}\n", said.stderr
