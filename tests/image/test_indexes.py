"""Where a lock's packages come from besides the machine's own index: what a uv.lock names, and PyTorch's."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from mlwf.errors import MlwfError
from mlwf.image.cache import Cache, remove_tree
from mlwf.image.environment.install import Environments
from mlwf.image.environment.lock import Lock, _packages
from mlwf.image.environment.pythons import Python
from mlwf.image.environment.pytorch import recorded_backend, told_backend
from mlwf.image.environment.uv_lock import read_uv_lock
from mlwf.image.model.package import read_package
from mlwf.image.model.requirements import Policy, Requirements
from mlwf.image.plan import Wanted, _lock
from mlwf.image.process import Runner

from tests.image.conftest import Locking
from tests.image.index import Index

Serve = Callable[[Index], Index]
MakeFolder = Callable[..., Path]
MakeLocking = Callable[..., Locking]
Package = tuple[str, str, str, str]

PYPI = "https://pypi.org/simple"
PYTORCH = "https://download.pytorch.org/whl"
PROJECT = '[project]\nname = "project"\nversion = "0.1.0"\nrequires-python = ">=3.11"\ndependencies = ["{}"]\n'


def model(make_folder: MakeFolder, requirements: str, *packages: Package, name: str = "package") -> Path:
    """A model with a uv.lock of packages: name, version, index, and the hash of the wheel. A project needs them all."""
    text = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
    entry = '[[package]]\nname = "{0}"\nversion = "{1}"\nsource = {{ registry = "{2}" }}\n'
    wheel = 'wheels = [{{ url = "https://x.example/{0}-{1}-py3-none-any.whl", hash = "sha256:{3}" }}]\n'
    needs = [f'{{ name = "{each[0]}", version = "{each[1]}", source = {{ registry = "{each[2]}" }} }}' for each in packages]
    text += "".join((entry + wheel).format(*each) for each in packages)
    text += f'[[package]]\nname = "project"\nversion = "0.1.0"\nsource = {{ virtual = "." }}\ndependencies = [{", ".join(needs)}]\n'
    project = PROJECT.format('", "'.join(dict.fromkeys(each[0] for each in packages)))
    return make_folder({"uv.lock": text, "pyproject.toml": project, "requirements.txt": requirements}, name=name)


def fetch(lock: Lock, url: str, folder: Path, more: str = "", log: IO[bytes] | None = None) -> None:
    """As an image's environment is fetched on a machine whose index is at `url`, and whose UV_INDEX names `more`."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "UV_DEFAULT_INDEX": url, "UV_INDEX": more, **lock.variables}
    kit: Any = SimpleNamespace(runner=Runner(environ, log), cache=Cache.open({"MLWF_CACHE": str(folder / "cache")}))
    base: Any = SimpleNamespace(facts=SimpleNamespace(glibc="2.36", architecture="amd64"))
    Environments(kit, base, Python("3.11.7", "/python", None, "base")).fetch(lock, folder / "layer")


def test_an_index_of_a_uv_lock_is_asked_where_it_is_allowed(
    serve_index: Serve, make_folder: MakeFolder, locking: MakeLocking, tmp_path: Path
) -> None:
    """--allow-indexes was told as the cure, and then nobody told uv of that index. It may have other versions of the rest."""
    site = serve_index(Index().add("below", "1.5"))
    other = serve_index(Index().add("rare", "1.0").add("below", "9.0"))
    rare, below = other.sha256("rare-1.0-py3-none-any.whl"), site.sha256("below-1.5-py3-none-any.whl")
    folder = model(make_folder, "rare==1.0\nbelow", ("rare", "1.0", other.url, rare), ("below", "1.5", PYPI, below))
    with pytest.raises(MlwfError, match=r"'rare \(registry = http://127.*--allow-indexes"):
        locking(site).lock(folder)
    lock = locking(site).lock(folder, Policy(indexes=True))
    assert lock.uv_lock == "taken as it is"
    assert lock.text.splitlines()[1:3] == ["# Installed with UV_INDEX_STRATEGY=unsafe-first-match", f"--extra-index-url {other.url}"]
    assert [(each.name, each.version, each.hashes) for each in lock.packages] == [("below", "1.5", (below,)), ("rare", "1.0", (rare,))]
    fetch(lock, site.url, tmp_path)
    assert {"/files/rare-1.0-py3-none-any.whl"} == {each for each in other.asked if each.startswith("/files/")}


def test_an_index_of_a_uv_lock_of_which_only_versions_are_taken(serve_index: Serve, make_folder: MakeFolder, locking: MakeLocking) -> None:
    site, other = serve_index(Index().add("below", "1.5")), serve_index(Index().add("rare", "1.0").add("rare", "2.0"))
    packages: list[Package] = [("rare", "1.0", other.url, "ab" * 32), ("below", "1.5", PYPI, "cd" * 32)]
    lock = locking(site).lock(model(make_folder, "rare>=1\nbelow", *packages), Policy(indexes=True))
    assert lock.uv_lock.startswith("only its versions")
    assert [(each.name, each.version) for each in lock.packages] == [("below", "1.5"), ("rare", "1.0")]
    assert lock.text.splitlines()[1] == f"--extra-index-url {other.url}"
    # Of a lock in which the model is not, nothing but versions is taken.
    site.add("rare", "3.0").add("more", "1.0")
    lock = locking(site).lock(model(make_folder, "rare\nmore", *packages, name="another"), Policy(indexes=True))
    assert [(each.name, each.version) for each in lock.packages] == [("more", "1.0"), ("rare", "3.0")]
    assert other.url not in lock.text


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("wheels", "not a web address"),
        ("https://u:hunter2secret@x.example/simple", "user name or a password"),
        ("https://x.example/${AWS_SECRET_ACCESS_KEY}/simple", "variables of your environment"),
        ("https://x.example/simple\\n-e artifacts", "not a web address"),
        ("https://x.example/sim ple", "not a web address"),
    ],
)
def test_what_is_no_index_of_a_uv_lock_is_never_asked(make_folder: MakeFolder, locking: MakeLocking, address: str, words: str) -> None:
    for packages in ([("rare", "1.0", address)], [("rare", "1.0", address), ("rare", "2.0", PYPI)]):
        folder = model(make_folder, "rare", *[(*each, "ab" * 32) for each in packages], name=str(len(packages)))
        with pytest.raises(MlwfError) as caught:
            locking(Index(port=1)).lock(folder, Policy(indexes=True))
        assert words in str(caught.value)
        assert "hunter2secret" not in str(caught.value)


def test_each_index_of_a_package_is_held_to_the_policy(make_folder: MakeFolder, locking: MakeLocking) -> None:
    folder = model(make_folder, "rare", ("rare", "1.0", "https://evil.example/simple", "ab" * 32), ("rare", "2.0", PYPI, "ab" * 32))
    with pytest.raises(MlwfError, match=r"evil\.example.*--allow-indexes"):
        locking(Index(port=1)).lock(folder)


def test_a_uv_lock_of_a_sites_own_index(serve_index: Serve, make_folder: MakeFolder, locking: MakeLocking) -> None:
    """It is asked anyway, with the user's own password: that is no index of the model's choice."""
    site = serve_index(Index(password="hunter2-of-the-site").add("rare", "1.0"))
    makes = locking(site, site.url_with_password)
    other = "https://x.example/simple"
    for number, (first, more) in enumerate(((site.url_with_password, ""), (f"a={site.url}/", ""), (other, f"{other} a={site.url}"))):
        makes.environ = {**makes.environ, "UV_DEFAULT_INDEX": first, "UV_INDEX": more}
        lock = makes.lock(model(make_folder, "rare==1.0", ("rare", "1.0", site.url, "ab" * 32), name=str(number)))
        assert (lock.uv_lock, lock.text.splitlines()[2][:11]) == ("taken as it is", "rare==1.0 \\")


def test_a_uv_lock_of_a_sites_two_indexes(serve_index: Serve, make_folder: MakeFolder, locking: MakeLocking, tmp_path: Path) -> None:
    """Both are asked for what it has from the second one: uv by itself stays at the first that knows the name, with other hashes."""
    usual = serve_index(Index().add("below", "1.5"))
    first = serve_index(Index().add("rare", "1.0").add("below", "9.0"))
    rare, below = first.sha256("rare-1.0-py3-none-any.whl"), usual.sha256("below-1.5-py3-none-any.whl")
    makes = locking(usual)
    makes.environ = {**makes.environ, "UV_INDEX": f"site={first.url}"}
    lock = makes.lock(model(make_folder, "rare==1.0\nbelow", ("rare", "1.0", first.url, rare), ("below", "1.5", PYPI, below)))
    assert (lock.uv_lock, "extra-index" in lock.text) == ("taken as it is", False)
    fetch(lock, usual.url, tmp_path, more=f"site={first.url}")
    assert "/files/below-1.5-py3-none-any.whl" in usual.asked
    assert lock.variables == {"UV_INDEX_STRATEGY": "unsafe-first-match"}
    makes.environ = {**makes.environ, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert makes.lock(tmp_path / "package").variables == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_a_password_is_not_in_what_uv_says_while_it_fetches(
    serve_index: Serve, locking: MakeLocking, make_folder: MakeFolder, tmp_path: Path
) -> None:
    """uv's own words on its progress go into the image's log, which is handed on with the image."""
    site = serve_index(Index(password="hunter2-of-the-site").add("rare", "1.0").add("bad", "1.0"))
    lock = locking(site, site.url_with_password).lock(make_folder({"requirements.txt": "rare==1.0\nbad==1.0"}))
    with (tmp_path / "build.log").open("wb") as log:
        fetch(lock, site.url_with_password, tmp_path, log=log)
        site.add("bad", "1.0", more={"bad/replaced.py": "since"})
        remove_tree(tmp_path / "cache")
        with pytest.raises(MlwfError, match=r"bad==1\.0") as caught:
            fetch(lock, site.url_with_password, tmp_path, log=log)
    said = (tmp_path / "build.log").read_text()
    assert "+ rare==1.0" in said
    assert site.password not in said + str(caught.value)


def test_pages_of_links_in_a_uv_lock(make_folder: MakeFolder, locking: MakeLocking) -> None:
    folder = model(make_folder, "rare==1.0", ("rare", "1.0", "https://x.example/links.html", "ab" * 32))
    lock = locking(Index(port=1)).lock(folder, Policy(indexes=True))
    assert lock.text.splitlines()[2] == "--find-links https://x.example/links.html"


def test_builds_of_pytorch_as_recorded() -> None:
    assert recorded_backend(Requirements(("torch==2.8.0+cu128", "torchvision[x] ==0.23.0+cu128", "numpy==2.4.0"))) == "cu128"
    assert recorded_backend(Requirements(("torch==2.8.0", "other==1+cu128", "torch-scatter==2.1+cu128"))) == ""
    with pytest.raises(MlwfError, match="cpu, cu128"):
        recorded_backend(Requirements(("torch==2.8.0+cu128", "torchvision==0.23.0+cpu")))


def test_builds_of_pytorch_as_a_uv_lock_has_them(make_folder: MakeFolder, locking: MakeLocking) -> None:
    """MLflow writes down the version without its build; what it copies beside it tells it."""
    torch, mpmath = ("torch", "2.8.0+cu128", f"{PYTORCH}/cu128", "ab" * 32), ("mpmath", "1.3.0", PYPI, "cd" * 32)
    makes = locking(Index(port=1))
    makes.environ = {**makes.environ, "UV_TORCH_BACKEND": "cpu"}
    lock = makes.lock(model(make_folder, "torch==2.8.0\nmpmath", torch, mpmath))
    assert [(each.name, each.version) for each in lock.packages] == [("mpmath", "1.3.0"), ("torch", "2.8.0+cu128")]
    assert (lock.uv_lock, lock.variables) == ("taken as it is", {"UV_TORCH_BACKEND": "cu128", "UV_INDEX_STRATEGY": "unsafe-first-match"})
    assert "extra-index" not in lock.text
    # What uv does not ask that index for by that word.
    others = model(make_folder, "torch==2.8.0\nmpmath", torch, ("mpmath", "1.3.0", f"{PYTORCH}/cu128", "cd" * 32), name="others")
    with pytest.raises(MlwfError, match=r"'mpmath \(registry = https://download\.pytorch\.org/whl/cu128\).*--allow-indexes"):
        makes.lock(others)
    assert f"--extra-index-url {PYTORCH}/cu128\n" in makes.lock(others, Policy(indexes=True)).text
    # Which of two it is to be an extra of the project says, which the model does not name.
    two = model(make_folder, "torch==2.8.0", torch, ("torch", "2.8.0+cpu", f"{PYTORCH}/cpu", "ab" * 32), name="two")
    with pytest.raises(MlwfError, match=r"download\.pytorch\.org/whl/cu128\).*--allow-indexes"):
        makes.lock(two)


@pytest.mark.parametrize(
    ("choice", "other", "asked", "packages"),
    [
        ("cpu", "torch", "whl/cpu/torch", [("torch", "2.8.0", PYPI)]),
        ("auto", "torch", "whl/[a-z0-9.]+/torch", [("torch", "2.8.0", PYPI)]),
        ("cpu", "triton", "whl/cu128/t", [("torch", "2.8.0+cu128", f"{PYTORCH}/cu128"), ("triton", "3.4.0", PYPI)]),
        (None, "xformers", "whl/cu128/(torch|xformers)", [("torch", "2.8.0+cu128", f"{PYTORCH}/cu128"), ("xformers", "0.1", PYPI)]),
    ],
)
def test_a_uv_lock_that_has_some_of_pytorch_from_another_index(  # noqa: PLR0917
    make_folder: MakeFolder, locking: MakeLocking, choice: str | None, other: str, asked: str, packages: list[tuple[str, str, str]]
) -> None:
    """Told of a build, uv asks PyTorch's index for the whole family: a lock with the hashes of another index could not be installed."""
    makes = locking(Index(port=1))
    makes.environ = {**makes.environ, "UV_DEFAULT_INDEX": PYPI, "HTTPS_PROXY": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0"}
    if choice:
        makes.environ = {**makes.environ, "UV_TORCH_BACKEND": choice}
    named = "\n".join(f"{each[0]}=={each[1].partition('+')[0]}" for each in packages)
    folder = model(make_folder, named, *[(*each, "ab" * 32) for each in packages])
    with pytest.raises(MlwfError, match=rf"download\.pytorch\.org/{asked}"):
        makes.lock(folder)
    assert f"only its versions were preferred: it has {other} from another index than PyTorch's" in (makes.folder / "build.log").read_text()
    # Who has no build told asks the indexes, where all of it is.
    makes.environ = {**makes.environ, "UV_TORCH_BACKEND": ""}
    if all(each[2] == PYPI for each in packages):
        assert makes.lock(folder).uv_lock == "taken as it is"


def test_what_a_uv_lock_has_of_pytorch_for_a_mac_is_not_asked_for(make_folder: MakeFolder) -> None:
    folder = model(make_folder, "torch==2.8.0", ("torch", "2.8.0", PYPI, "ab" * 32), ("torch", "2.8.0+cpu", f"{PYTORCH}/cpu", "cd" * 32))
    own = read_uv_lock(folder / "uv.lock")
    linux = "torch==2.8.0+cpu ; sys_platform == 'linux'\n"
    mac = "torch==2.8.0 ; python_full_version >= '3.11' and sys_platform == 'darwin'\n"
    assert own.backend == "cpu"
    assert own.astray(_packages(linux + mac), "cpu") == ""
    for marker in ("sys_platform != 'win32'", "sys_platform == 'darwin' or python_full_version < '3.12'", "python_full_version >= '3.11'"):
        assert own.astray(_packages(f"{linux}torch==2.8.0 ; {marker}\n"), "cpu").startswith("it has torch from another")


@pytest.mark.parametrize(
    ("choice", "requirements", "locked", "asked"),
    [
        ("cpu", "torch==2.8.0+cu128", "", "whl/cu128"),
        ("cpu", "torch==2.8.0", "", "whl/cpu"),
        ("cu128", "torch>=2", "2.8.0+cpu", "whl/cpu"),
        ("cu128", "torch>=2\nmore", "2.8.0+cpu", "whl/cu128"),
    ],
)
def test_what_the_model_says_goes_before_a_sites_choice(  # noqa: PLR0917
    make_folder: MakeFolder, locking: MakeLocking, choice: str, requirements: str, locked: str, asked: str
) -> None:
    """A site's UV_TORCH_BACKEND=cpu gave a model of a GPU's build the other one's index, which has no such version."""
    makes = locking(Index(port=1))
    makes.environ = {
        **makes.environ, "UV_TORCH_BACKEND": choice, "UV_DEFAULT_INDEX": PYPI, "HTTPS_PROXY": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0"
    }  # fmt: skip
    # As uv locks for a Mac and for Linux.
    packages: list[Package] = [("torch", "2.8.0", PYPI, "ab" * 32), ("torch", locked, f"{PYTORCH}/cpu", "ab" * 32)]
    folder = model(make_folder, requirements, *packages) if locked else make_folder({"requirements.txt": requirements})
    with pytest.raises(MlwfError) as caught:
        makes.lock(folder)
    assert f"download.pytorch.org/{asked}/torch/" in str(caught.value)


def test_a_sites_mirror_of_pytorch(serve_index: Serve, make_folder: MakeFolder, locking: MakeLocking, tmp_path: Path) -> None:
    """Where the choice is there and empty. uv itself does not take it so."""
    index = serve_index(Index().add("torch", "2.8.0+cu128"))
    makes = locking(index)
    makes.environ = {**makes.environ, "UV_TORCH_BACKEND": ""}
    lock = makes.lock(make_folder({"requirements.txt": "torch==2.8.0+cu128"}))
    assert [(each.version, lock.variables) for each in lock.packages] == [("2.8.0+cu128", {})]
    fetch(lock, index.url, tmp_path)
    assert any("whl" in each for each in index.asked)


def test_a_kept_lock_of_a_mirror_of_pytorch_is_not_one_of_pytorchs_index(
    serve_index: Serve, make_folder: MakeFolder, tmp_path: Path, cache: Cache
) -> None:
    """Where the choice is not set, the model's own build is asked for at PyTorch's index, which has other files."""
    index = serve_index(Index().add("torch", "2.8.0+cu128"))
    package = read_package(make_folder({"requirements.txt": "torch==2.8.0+cu128"}))
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url, "HTTPS_PROXY": "http://127.0.0.1:9"}
    environ["UV_HTTP_RETRIES"] = "0"

    def made(**more: str) -> Lock:
        kit: Any = SimpleNamespace(runner=Runner({**environ, **more}), cache=cache)
        base: Any = SimpleNamespace(facts=SimpleNamespace(glibc="2.36", architecture="amd64"))
        return _lock(kit, base, Python("3.11.7", "/python", None, "base"), package, folder=tmp_path, wanted=Wanted("", "", tmp_path))

    lock = made(UV_TORCH_BACKEND="")
    assert lock.packages[0].hashes == (index.sha256("torch-2.8.0+cu128-py3-none-any.whl"),)
    asked = len(index.asked)
    assert (made(UV_TORCH_BACKEND=""), len(index.asked)) == (lock, asked), "it is kept"
    with pytest.raises(MlwfError, match=r"download\.pytorch\.org/whl/cu128"):
        made()


@pytest.mark.parametrize(
    ("choice", "packages", "told"),
    [
        ("cu128", [("torch", "2.8.0+cu128"), ("numpy", "2.4.0")], "cu128"),
        ("cpu", [("Torch", "2.3.0")], "cpu"),
        ("cu128", [("numpy", "2.4.0")], ""),
        ("auto", [("torch", "2.8.0+cpu"), ("triton", "3.4.0")], "cpu"),
        ("auto", [("torch", "2.8.0")], ""),
        ("", [("torch", "2.8.0+cu128")], ""),
    ],
)
def test_what_a_lock_says_of_its_builds(choice: str, packages: list[tuple[str, str]], told: str) -> None:
    """Whoever builds the image by hand needs the word, also where the model did not say it; and none that means this machine's GPU."""
    assert told_backend({"UV_TORCH_BACKEND": choice}, packages) == told
