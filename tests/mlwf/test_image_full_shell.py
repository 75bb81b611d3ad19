"""mlwf_create_image in a shell that is full of other things: a site's modules, conda, settings of uv and of the container tool."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.mlwf.creating import create, sha256
from tests.mlwf.models import Models, answer_of
from tests.support.apptainer import Ground

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
SECRET = "hunter2-of-the-shell"  # looked for in all that is made
NOBODY = "http://127.0.0.1:9/simple"
# Of the container tools, in each container and at each fetch.
WISHES = {
    "HOME": "{home}:/root", "WRITABLE_TMPFS": "1", "CONTAIN": "0", "NO_HOME": "0", "NO_MOUNT": "proc", "FAKEROOT": "1", "NV": "1",
    "MOUNT": "type=bind,source={home},destination=/of-the-user", "CONTAINLIBS": "{home}/lib.so", "ENV_FILE": "{home}/env", "UPDATE": "1",
    "PULLFOLDER": "{home}", "SANDBOX": "0", "JSON": "1", "NOTEST": "1", "SECTION": "none", "MESSAGELEVEL": "5", "DOCKER_LOGIN": "1",
    "BIND": "{home}:/of-the-user", "BINDPATH": "{home}:/of-the-user", "ENCRYPTION_PASSPHRASE": SECRET, "SILENT": "1", "OCI": "1",
    "DEBUG": "1", "DOCKER_USERNAME": "me", "DOCKER_PASSWORD": SECRET,
}  # fmt: skip
INSIDE = {
    "PATH": "{home}",
    "PREPEND_PATH": "{home}",
    "PYTHONPATH": "{home}",
    "PYTHONHOME": "/nowhere",
    "SECRET": SECRET,
    "BASH_ENV": "{home}/env",
}
SHELL = {
    "UV_OFFLINE": "1", "UV_PYTHON": "3.9", "UV_PYTHON_PREFERENCE": "only-managed", "UV_NO_BINARY": ":all:", "UV_CACHE_DIR": "/nowhere",
    "UV_LINK_MODE": "symlink", "UV_COMPILE_BYTECODE": "1", "UV_CONSTRAINT": "/nowhere", "UV_OVERRIDE": "/nowhere", "UV_SYSTEM_PYTHON": "1",
    "UV_CONFIG_FILE": "{home}/uv.toml", "UV_PROJECT": "{home}", "UV_REQUIRE_HASHES": "1", "UV_PUBLISH_TOKEN": SECRET,
    "PIP_INDEX_URL": NOBODY, "PIP_CONFIG_FILE": "{home}/pip.conf", "PIP_NO_BINARY": ":all:", "XDG_CONFIG_HOME": "{home}",
    "VIRTUAL_ENV": "/nowhere", "CONDA_PREFIX": "/nowhere", "CONDA_DEFAULT_ENV": "base", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2",
    "PYTHONSTARTUP": "{home}/env", "PYTHONUSERBASE": "{home}", "PYTHONNOUSERSITE": "", "PYTHONPYCACHEPREFIX": "{home}/pyc",
    "SOURCE_DATE_EPOCH": "1", "LD_LIBRARY_PATH": "{home}:", "LD_PRELOAD": "/nowhere/xalt.so", "MALLOC_PERTURB_": "170",
    "TMPDIR": "/nowhere", "GREP_OPTIONS": "--color=always", "BASH_ENV": "{home}/env", "CDPATH": "{home}", "LANG": "ja_JP.eucJP",
    "LC_ALL": "", "TZ": "Asia/Tokyo", "CFLAGS": "-march=native", "AWS_SECRET_ACCESS_KEY": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET,
}  # fmt: skip


def full(home: Path) -> Mapping[str, str]:
    """The variables, and in the home what they name."""
    for name in ("uv/uv.toml", "uv.toml", "pip/pip.conf", "pip.conf", "pyproject.toml", ".python-version", "env", "sitecustomize.py"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text({".toml": f'[[index]]\nurl = "{NOBODY}"\ndefault = true\n', ".py": "raise SystemExit(3)\n"}.get(
            Path(name).suffix, "3.9\n" if "version" in name else f"export SECRET={SECRET}; exit 3\n"
        ))  # fmt: skip
    asked = {f"{tool}_{name}": value for tool in ("APPTAINER", "SINGULARITY") for name, value in WISHES.items()}
    inside = {f"{tool}ENV_{name}": value for tool in ("APPTAINER", "SINGULARITY") for name, value in INSIDE.items()}
    return {name: value.format(home=home) for name, value in {**SHELL, **asked, **inside}.items()}


def test_the_same_bytes_and_no_secret(ground: Ground, models: Models) -> None:
    tiny = models.tiny()
    plain = answer_of(create(ground, tiny, "--no-test", "--json"))
    home = ground.home / "full"
    home.mkdir()
    variables = full(home)
    ground.give(home)
    before = set(home.rglob("*"))
    asked = ground.create("--model-pkg-url", tiny, "--base-container-url", f"docker-archive:{ground.base}", "--no-test", "--json")
    shell = ["/bin/sh", "-c", 'umask 000; cd "$0"; exec "$@"', home, *asked]
    done = ground.run(shell, seconds=500, **{**variables, "MLWF_CACHE": f"{home}/cache"})
    assert done.returncode == 0, done.stderr
    made = answer_of(done.stdout)
    assert not made["cached"]
    folder, image = Path(str(made["folder"])), Path(str(made["image"]))
    assert sha256(image) == sha256(Path(str(plain["image"])))
    assert set(home.iterdir()) - before == {home / "cache", folder}, "nothing else in the folder where the user is"
    others_may = [path for path in (home / "cache").rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert {path.suffix or path.name for path in others_may} <= {".lock"}, "uv's own, which are empty"
    assert not [path for path in home.rglob("*") if path not in before and path.is_file() and SECRET.encode() in path.read_bytes()]
    unpacked = ground.run([ground.tool, "exec", image, "grep", "-rl", SECRET, "/mlwf", "/.singularity.d"])
    assert (unpacked.returncode, unpacked.stdout) == (1, "")


def test_the_proof_is_alone(ground: Ground, models: Models) -> None:
    home = ground.home / "full-proof"
    home.mkdir()
    variables = full(home)
    ground.give(home)
    made = answer_of(create(ground, models.at_home(), "--json", **variables))
    assert json.loads(made["proof"]["text"]) == {"predictions": ["live"]}  # type: ignore[index]
