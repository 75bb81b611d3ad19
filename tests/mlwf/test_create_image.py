"""mlwf_create_image with real Apptainer, as an ordinary user: the image, its proof, and its bad days."""

import io
import json
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.image.index import Index, Serving
from tests.mlwf.creating import AS_A_USER, NO_NETWORK, QUICKLY, create, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import CERTIFICATES, Ground, as_docker_archive, base_python, processes_with, registry
from tests.support.box import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


def log_of(ground: Ground, told: str) -> str:
    """The build log that a failure names."""
    return (ground.home / re.findall(r"The build log is (\S+)\.$", told.strip())[0]).read_text()


def test_from_the_package_to_an_image_that_has_answered(ground: Ground, models: Models) -> None:
    made = answer_of(create(ground, models.regression(), "--json"))
    folder, image = Path(str(made["folder"])), Path(str(made["image"]))

    assert made["proof"] == {"state": "answered", "compared": False, "text": made["proof"]["text"]}  # type: ignore[index]
    assert json.loads(made["proof"]["text"])["predictions"] == pytest.approx([1.0, 2.0])  # type: ignore[index]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE(image.stat().st_mode) == 0o750
    assert {each.name for each in folder.iterdir()} == {
        "container.simg", "Dockerfile", "Singularity", "model", "requirements.lock", "software.cdx.json", "provenance.json", "build.log",
    }  # fmt: skip
    assert (folder / "model" / "MLmodel").is_file()

    inside = ground.run([ground.tool, "exec", image, "sh", "-c", "command -v python; python -V; mlflow --version; echo $OF_THE_BASE"])
    assert inside.stdout.splitlines()[:2] == ["/mlwf/env/bin/python", f"Python {base_python()}"]
    assert "mlflow, version 3.17.2" in inside.stdout
    assert inside.stdout.splitlines()[-1] == "kept"
    assert "mlflow models serve" in ground.run([ground.tool, "run", image]).stdout
    with_gpu = f'echo "python -V" | {ground.tool} shell --nv "$0" && {ground.tool} exec --nv "$0" python -V'
    assert ground.run(["sh", "-c", with_gpu, image]).stdout.splitlines() == [f"Python {base_python()}"] * 2
    labels = json.loads(ground.run([ground.tool, "inspect", "--json", image]).stdout)["data"]["attributes"]["labels"]
    assert labels["mlwf.python"] == base_python()
    settings = ground.run([ground.tool, "exec", image, "cat", "/mlwf/env/pyvenv.cfg"]).stdout
    assert f"uv = {labels['mlwf.uv']}\n" in settings
    assert "uv pip sync" in ground.run([ground.tool, "inspect", "--deffile", image]).stdout
    assert "FS (Squashfs/*System/" in ground.run([ground.tool, "sif", "list", image]).stdout
    software = json.loads((folder / "software.cdx.json").read_text())
    assert {"mlflow", "scikit-learn"} <= {component["name"] for component in software["components"]}

    again = answer_of(create(ground, models.regression(), "--json"))
    assert again["cached"]
    assert again["proof"] == made["proof"]
    assert sha256(Path(str(again["image"]))) == sha256(image)

    gpu = answer_of(create(ground, models.needs_gpu(), "--json", "--offline"))
    assert gpu["cached"], "the same packages are the same image"
    assert gpu["proof"]["state"] == "needs-gpu"  # type: ignore[index]

    # The proof needs no proxy, and waits for none.
    home = answer_of(create(ground, models.at_home(), "--json", "--offline", **NO_NETWORK))
    assert json.loads(home["proof"]["text"]) == {"predictions": ["live"]}  # type: ignore[index]
    dying = ground.home / "dying"
    shutil.copytree(models.at_home(), dying)
    example = dying / "serving_input_example.json"
    example.write_text(example.read_text().replace("live", "die"))
    told = create(ground, ground.give(dying), "--offline", status=1)
    assert "the server broke off: RemoteDisconnected" in told
    assert "these are my last words" in log_of(ground, told)

    wrong = models.regression().parent / "recorded"
    shutil.copytree(models.regression(), wrong, dirs_exist_ok=True)
    (wrong / "expected_output.json").write_text('{"predictions": [1.0, 2.5]}')
    ground.give(wrong)
    told = create(ground, wrong, "--offline", status=1)
    assert "answer differs from the one recorded" in told
    assert '"predictions"' in log_of(ground, told), "what the server answered"
    (wrong / "expected_output.json").write_text('{"predictions": [1.0, 2.0]}')
    assert answer_of(create(ground, wrong, "--offline", "--json"))["proof"]["compared"] is True  # type: ignore[index]


def test_the_same_bytes_from_another_cache_in_another_folder_with_another_umask_on_another_day(ground: Ground, models: Models) -> None:
    tiny, elsewhere = models.tiny(), ground.home / "elsewhere"
    elsewhere.mkdir()
    ground.give(elsewhere)
    moved = elsewhere / "moved.tar"
    shutil.copyfile(ground.base, moved)
    moved.chmod(0o644)
    one = answer_of(create(ground, tiny, "--no-test", "--json"))
    options = ["--model-pkg-url", tiny, "--base-container-url", f"docker-archive:{moved}", "--no-test", "--json", "--output-dir", elsewhere]
    # As jobs of Open OnDemand have it, and for the programs that ask the C library for the time.
    closed = ["faketime", "-f", "+2d", "/bin/sh", "-c", 'umask 077; exec "$@"', "sh", *ground.create(*options)]
    done = ground.run(closed, seconds=500, MLWF_CACHE=str(elsewhere / "cache"), SLURM_CPUS_PER_TASK="1")
    assert done.returncode == 0, done.stderr
    other = answer_of(done.stdout)
    assert not other["cached"]
    assert sha256(Path(str(one["image"]))) == sha256(Path(str(other["image"])))


def test_bases_of_a_registry_and_a_layout(ground: Ground, models: Models) -> None:
    tiny = models.tiny()
    with registry(ground) as address:
        served = answer_of(create(ground, tiny, "--no-test", "--json", "--no-https", base=f"docker://{address}/base:1"))
        recipe = (Path(str(served["folder"])) / "Singularity").read_text()
        assert f"From: {address}/base@sha256:" in recipe
        missing = create(ground, tiny, "--no-test", "--no-https", base=f"docker://{address}/base:2", status=1)
        assert "the registry answers 404" in missing
        fresh = {"MLWF_CACHE": str(ground.home / "cache-of-registry")}
        create(ground, tiny, "--fetch-only", "--no-https", base=f"docker://{address}/base:1", **fresh)
    job = answer_of(create(ground, tiny, "--no-test", "--json", "--offline", base=f"docker://{address}/base:1", **fresh))
    assert (job["cached"], job["key"]) == (False, served["key"]), "now nobody serves it"
    offline = answer_of(create(ground, tiny, "--no-test", "--json", "--offline", base=f"docker://{address}/base:1"))
    assert offline["cached"], "a digest that is remembered needs no registry"
    told = create(ground, tiny, "--no-test", "--offline", base=f"docker://{address}/other:1", status=1)
    assert "--fetch-only" in told

    layout = ground.home / "layout"
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{ground.base}", f"oci:{layout}:one"], check=True)
    ground.give(layout)
    laid = answer_of(create(ground, tiny, "--no-test", "--json", base=f"oci:{layout}:one"))
    assert ground.run([ground.tool, "exec", str(laid["image"]), "python", "-c", "import six"]).returncode == 0
    assert "a /mlwf already" in create(ground, tiny, "--no-test", base=str(laid["image"]), status=1)


# A Python of the base's that is asked for its version, and when it compiles writes wherever it can before it does.
EVIL = """#!/bin/sh
if [ "$1" = -c ]; then echo "%s /usr/bin/python3"; exit; fi
while read -r _id _parent _device _root place _more; do
    case $place in /|/proc*|/sys*|/dev*) continue;; esac
    echo evil > "$place/evil"
    for file in $(find "$place" -xdev -type f -user "$(id -u)"); do
        case $file in /mlwf-compiled/*) ;; *) chmod u+w "$file"; echo evil >> "$file";; esac
    done
done 2>/dev/null < /proc/self/mountinfo
/usr/bin/python3.11 "$@"
for key in /mlwf-compiled/*; do ln -s / "$key.link"; echo "../../../../../../evil/${key##*/}"; done
"""


def test_a_base_that_writes_wherever_it_can_reaches_nothing_of_the_user(ground: Ground, models: Models) -> None:
    tiny, evil = models.tiny(), ground.home / "evil-base"
    create(ground, tiny, "--no-test")
    _with_program(ground.base, evil, "usr/bin/python3", EVIL % base_python())
    ground.give(evil)
    cache = ground.home / "cache"

    def kept() -> dict[Path, str]:
        files = (path for path in ground.home.rglob("*") if path.is_file() and not path.is_symlink())
        return {path: sha256(path) for path in files if f".{ground.tool}" not in path.parts}  # the tool's own notes

    before = kept()
    # As sites' modules have it, which bind the homes into every container.
    wishes = {"APPTAINER_BIND": str(ground.home), "SINGULARITY_BINDPATH": f"{ground.home}:/mnt"}
    wishes |= {"APPTAINERENV_BASH_ENV": "/mnt/evil", "SINGULARITYENV_BASH_ENV": "/mnt/evil"}
    made = answer_of(create(ground, tiny, "--no-test", "--json", base=f"docker-archive:{evil}", **wishes))
    after = kept()
    assert {path: after.get(path) for path in before} == before
    added = {path for path in after.keys() - before.keys() if not path.is_relative_to(str(made["folder"]))}
    assert {path.relative_to(cache).parts[0] for path in added} <= {"bases", "images", "locks", "compiled", "digests", "wheels"}
    assert not [path for path in added if "evil" in path.name or path.suffix == ".pyc"]
    compiled = "/mlwf/env/lib/python3.11/site-packages/__pycache__/six.cpython-311.pyc"
    assert ground.run([ground.tool, "exec", str(made["image"]), "ls", compiled]).stdout == f"{compiled}\n", "it did run"


def _with_program(base: Path, changed: Path, name: str, text: str, *env: str) -> None:
    """A docker-archive like the base, with another program at `name`, and more variables."""
    layer = changed.with_suffix(".layer")
    with tarfile.open(base) as archive:
        member = next(each for each in archive if each.name.endswith("/layer.tar"))
        content = archive.extractfile(member)
        assert content
        with layer.open("wb") as file:
            shutil.copyfileobj(content, file)
    with tarfile.open(layer, "a") as tar:
        entry = tarfile.TarInfo(f"./{name}")
        entry.size, entry.mode = len(text.encode()), 0o755
        tar.addfile(entry, io.BytesIO(text.encode()))
    as_docker_archive(layer, changed, *env)
    layer.unlink()


def test_the_recipe_builds_an_equivalent_image_by_hand(ground: Ground, models: Models) -> None:
    """Of one of two images in a layout, which sets a PYTHONPATH as images do, and once more as their recipes' %post may."""
    archive, layout = ground.home / "sets.tar", ground.home / "two"
    _with_program(ground.base, archive, ".singularity.d/env/91-environment.sh", "export PYTHONPATH=/modules\n", "PYTHONPATH=/modules")
    for source, name in ((ground.base, "plain"), (archive, "sets")):
        copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
        subprocess.run([*copy, f"docker-archive:{source}", f"oci:{layout}:{name}"], check=True)
    ground.give(layout)
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json", base=f"oci:{layout}:sets"))
    folder = Path(str(made["folder"]))
    script = 'cp "$("$1" -c "import uv; print(uv.find_uv_bin())")" uv; shift; exec "$@" --bind "$SSL_CERT_FILE" by-hand.sif Singularity'
    build = [ground.python, ground.tool, "build", *QUICKLY[ground.tool], *AS_A_USER[ground.tool]]
    inside = {f"{ground.tool.upper()}ENV_SSL_CERT_FILE": CERTIFICATES}
    built = ground.run(["/bin/sh", "-ec", f"cd '{folder}'; {script}", "sh", *build], seconds=400, SSL_CERT_FILE=CERTIFICATES, **inside)
    assert built.returncode == 0, built.stderr
    ask = "import six, sys; print(six.__version__, sys.version.split()[0], sys.prefix, '/modules' in sys.path)"
    answers = [
        ground.run([ground.tool, "exec", folder / name, "python", "-c", ask]).stdout for name in ("by-hand.sif", "container.simg")
    ]  # fmt: skip
    assert answers[0] == answers[1] == f"1.17.0 {base_python()} /mlwf/env False\n"


def test_an_interrupt_leaves_nothing(ground: Ground, models: Models) -> None:
    output, cache, temporary = ground.home / "interrupted", ground.home / "fresh", ground.home / "temporary"
    for folder in (output, temporary):
        folder.mkdir()
        ground.give(folder)
    argv = ground.create(
        "--model-pkg-url", models.tiny(), "--base-container-url", f"docker-archive:{ground.base}", "--no-test", "--output-dir", output
    )  # fmt: skip
    for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)):
        process = ground.start(argv, MLWF_CACHE=str(cache), TMPDIR=str(temporary))
        until(lambda: list(temporary.glob("*/base/usr")), what="a base that is being unpacked")
        process.send_signal(number)
        _out, told = process.communicate(timeout=60)
        assert process.returncode == status
        assert "nothing was kept" in told
        assert list(output.iterdir()) == []
        assert list(temporary.iterdir()) == []
        assert list(cache.glob("work/*")) == []
        assert list(cache.glob("bases/*")) == []
        assert processes_with(str(cache)) == []
    made = answer_of(create(ground, models.tiny(), "--no-test", "--json", "--output-dir", output, MLWF_CACHE=str(cache)))
    assert not made["cached"]


PACKER = """\
#!/bin/sh
case "$1" in -version|-help) exec /usr/bin/mksquashfs "$@" ;; esac
touch "{folder}/packs"
{then}
"""


def other_packer(ground: Ground, then: str) -> tuple[Path, str]:
    """A mksquashfs that notes in its folder that it packs, and does `then`; the folder, and the PATH that finds it."""
    folder = ground.home / f"packer-{len(then)}"
    folder.mkdir()
    (folder / "mksquashfs").write_text(PACKER.format(folder=folder, then=then))
    (folder / "mksquashfs").chmod(0o755)
    ground.give(folder)
    return folder, f"{folder}:{ground.environment()['PATH']}"


def test_an_interrupt_while_the_base_is_packed_aside(ground: Ground, models: Models) -> None:
    packer, path = other_packer(ground, "exec tail -f /dev/null")
    folders = {name: ground.home / f"aside-{name}" for name in ("output", "temporary")}
    for folder in folders.values():
        folder.mkdir()
        ground.give(folder)
    cache = ground.home / "aside-cache"
    argv = ground.create(
        "--model-pkg-url", models.tiny(), "--base-container-url", f"docker-archive:{ground.base}", "--no-test", "--output-dir",
        folders["output"],
    )  # fmt: skip
    process = ground.start(argv, MLWF_CACHE=str(cache), TMPDIR=str(folders["temporary"]), PATH=path)
    until((packer / "packs").exists, what="a base that is packed")
    until(lambda: list(cache.glob("wheels/*/*.fetched")), what="packages that were fetched meanwhile")
    process.send_signal(signal.SIGTERM)
    _out, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "nothing was kept" in told
    assert [list(folder.iterdir()) for folder in folders.values()] == [[], []]
    assert [*cache.glob("work/*"), *cache.glob("bases/*"), *cache.glob("leases/*")] == []
    assert processes_with(str(folders["temporary"])) == []


def test_a_base_that_cannot_be_packed_is_what_is_told(ground: Ground, models: Models) -> None:
    _packer, path = other_packer(ground, "echo 'FATAL ERROR: no room' >&2; exit 1")
    cache = ground.home / "unpacked-cache"
    told = create(ground, models.tiny(), "--no-test", status=1, MLWF_CACHE=str(cache), PATH=path)
    assert "The image cannot be packed" in told
    assert "no room" in told
    assert [*cache.glob("work/*"), *cache.glob("bases/*"), *cache.glob("leases/*")] == []


def test_a_python_that_nobody_has(ground: Ground, models: Models) -> None:
    told = create(ground, models.tiny(python="3.11.99"), "--offline", "--no-test", status=1)
    assert "Python 3.11.99" in told
    assert "--fetch-only" in told
    made = answer_of(
        create(ground, models.tiny(python="3.11.99"), "--no-test", "--json", "--allow-python-minor", UV_PYTHON_DOWNLOADS="never")
    )
    assert made["python"] == base_python()
    provenance = json.loads((Path(str(made["folder"])) / "provenance.json").read_text())
    assert (provenance["python"], provenance["python-wanted"]) == (base_python(), "3.11.99")
    labels = json.loads(ground.run([ground.tool, "inspect", "--json", str(made["image"])]).stdout)["data"]["attributes"]["labels"]
    assert (labels["mlwf.python"], labels["mlwf.python-wanted"]) == (base_python(), "3.11.99")


def test_packages_of_conda_are_told_wherever_an_image_is_read_about(ground: Ground, models: Models) -> None:
    model = ground.home / "with-conda"
    shutil.copytree(models.tiny(), model)
    (model / "conda.yaml").write_text(f"dependencies:\n- python={base_python()}\n- pip\n- openjdk=11\n- pip:\n  - six==1.17.0\n")
    given = ["--model-pkg-url", ground.give(model), "--base-container-url", f"docker-archive:{ground.base}", "--no-test"]
    told = ground.run(ground.create(*given), seconds=500)
    assert told.returncode == 0, told.stderr
    assert "Conda packages are not in the image: 'openjdk=11'" in " ".join(told.stderr.split())
    folder = ground.home / told.stdout.strip()
    assert "Conda packages are not in the image: 'openjdk=11'" in (folder / "build.log").read_text()
    assert json.loads((folder / "provenance.json").read_text())["conda-left-out"] == ["openjdk=11"]

    again = ground.run(ground.create(*given, "--json"), seconds=500)
    (warning,) = [json.loads(line) for line in again.stderr.splitlines() if '"warns"' in line]
    assert "openjdk=11" in warning["text"]
    without = answer_of(create(ground, models.tiny(), "--no-test", "--json"))
    assert without["cached"]
    assert json.loads((Path(str(without["folder"])) / "provenance.json").read_text())["conda-left-out"] == []


def test_what_became_of_a_uv_lock_stands_in_the_image(ground: Ground, models: Models) -> None:
    plain = Path(str(answer_of(create(ground, models.tiny(), "--no-test", "--json"))["folder"]))
    packages = tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text())["package"]
    ((wheel,),) = [each["wheels"] for each in packages if (each["name"], each["version"]) == ("six", "1.17.0")]
    package = '[[package]]\nname = "{}"\nversion = "{}"\nsource = {{ {} }}\n'
    locked = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n' + package.format(
        "six", "1.17.0", 'registry = "https://pypi.org/simple"'
    )
    locked += f'wheels = [{{ url = "{wheel["url"]}", hash = "{wheel["hash"]}" }}]\n' + package.format("project", "1", 'virtual = "."')
    model = ground.home / "with-uv-lock"
    shutil.copytree(models.tiny(), model)
    (model / "uv.lock").write_text(locked + 'dependencies = [{ name = "six" }]\n')
    (model / "pyproject.toml").write_text(
        '[project]\nname = "project"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["six"]\n'
    )

    def told(requirement: str) -> str:
        """What all of them say, of an image from the cache, too."""
        (model / "requirements.txt").write_text(requirement)
        made = [answer_of(create(ground, ground.give(model), "--no-test", "--json")) for _time in range(2)]
        assert [each["cached"] for each in made] == [False, True]
        folder = Path(str(made[1]["folder"]))
        label = json.loads((folder / "provenance.json").read_text())["uv-lock"]
        inspected = json.loads(ground.run([ground.tool, "inspect", "--json", folder / "container.simg"]).stdout)
        assert inspected["data"]["attributes"]["labels"]["mlwf.uv-lock"] == label
        first, *others = (folder / "requirements.lock").read_text().splitlines()
        assert first == f"# The model's uv.lock: {label}"
        assert any(line.startswith("six==1.17.0 ") for line in others)
        assert all(label in (Path(str(each["folder"])) / "build.log").read_text() for each in made)
        return str(label)

    assert json.loads((plain / "provenance.json").read_text())["uv-lock"] == "none"
    assert told("six==1.17.0") == "taken as it is"
    assert told("six>=1.16") == "only its versions were preferred: its export does not surely give 'six>=1.16'"


def test_packages_of_a_uv_lock_come_from_its_own_index(ground: Ground, models: Models) -> None:
    """That index has another version of the rest, too: what uv is told for the lock holds for an image that is made from the cache, too."""
    other = Index().add("rare", "1.0").add("six", "9.0")
    packages = tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text())["package"]
    ((wheel,),) = [each["wheels"] for each in packages if (each["name"], each["version"]) == ("six", "1.17.0")]
    serving = Serving(other)
    try:
        package = '[[package]]\nname = "{}"\nversion = "{}"\nsource = {{ registry = "{}" }}\nwheels = [{{ url = "{}", hash = "{}" }}]\n'
        own = (f"{other.url}/rare-1.0-py3-none-any.whl", f"sha256:{other.sha256('rare-1.0-py3-none-any.whl')}")
        locked = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n' + package.format("rare", "1.0", other.url, *own)
        locked += package.format("six", "1.17.0", "https://pypi.org/simple", wheel["url"], wheel["hash"])
        locked += '[[package]]\nname = "project"\nversion = "1"\nsource = { virtual = "." }\n'
        model = ground.home / "own-index"
        shutil.copytree(models.tiny(), model)
        (model / "requirements.txt").write_text("rare==1.0\nsix==1.17.0")
        (model / "uv.lock").write_text(locked + 'dependencies = [{ name = "rare" }, { name = "six" }]\n')
        (model / "pyproject.toml").write_text(
            '[project]\nname = "project"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["rare", "six"]\n'
        )
        ground.give(model)
        assert "--allow-indexes" in create(ground, model, "--no-test", status=1)
        create(ground, model, "--no-test", "--allow-indexes", "--fetch-only")
        made = answer_of(create(ground, model, "--no-test", "--allow-indexes", "--offline", "--json"))
    finally:
        serving.stop()
    folder = Path(str(made["folder"]))
    for recipe in ("Singularity", "Dockerfile"):
        assert "UV_INDEX_STRATEGY=unsafe-first-match" in (folder / recipe).read_text()
    assert (
        ground.run([ground.tool, "exec", str(made["image"]), "python", "-c", "import rare, six; print(six.__version__)"]).stdout
        == "1.17.0\n"
    )
