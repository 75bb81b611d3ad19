"""What uv says when it fails, and what is made of it: the uv of this project for real, and older ones by their own words.

mlwf runs with every uv since 0.9. Until 0.11 uv draws its reasons and breaks them after 80 letters.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.environment.lock import _explained
from mlwf.image.environment.uv_program import reasons, run_uv
from mlwf.image.process import FullDiskError, ProgramError, Runner, _failure

from tests.image.conftest import Locking
from tests.image.index import Index

Serve = Callable[[Index], Index]
Lockings = Callable[..., Locking]
MakeFolder = Callable[..., Path]

# uv 0.9.0, 0.9.30 and 0.10.12 alike.
NO_WHEEL = """\
  \xd7 No solution found when resolving dependencies:
  ╰─▶ Because only mac==1.0 is available and mac==1.0 has no wheels with a
      matching platform tag (e.g., `manylinux_2_36_x86_64`), we can conclude
      that all versions of mac cannot be used.
      And because you require mac, we can conclude that your requirements
      are unsatisfiable.

      hint: Wheels are available for `mac` (v1.0) on the following platform:
      `macosx_11_0_arm64`
"""
# uv 0.9.0
NO_NETWORK = """\
  \xd7 Failed to download `a @ https://x.example/a-1.0-py3-none-any.whl`
  ╰─▶ Network connectivity is disabled, but the requested data wasn't found in
      the cache for: `https://x.example/a-1.0-py3-none-any.whl`
"""
# uv 0.11.33
REFUSED = """\
error: Failed to fetch: `http://127.0.0.1:9/simple/top/`
  Caused by: error sending request for url (http://127.0.0.1:9/simple/top/)
  Caused by: client error (Connect)
  Caused by: tcp connect error
  Caused by: Connection refused (os error 111)
"""
# uv 0.11.33, in a cache without room, whose name is as long as to break the line there.
FULL = """\
  \xd7 Failed to download `big==1.0`
  ├─▶ Failed to extract archive: big-1.0-py3-none-any.whl
  ├─▶ I/O operation failed during extraction
  ╰─▶ failed to flush file `/cache/wheels/3.11/.tmp6avsal7z/big/data`: No space
      left on device (os error 28)
"""
# uv 0.9.0
NOT_LET_IN = """\
  \xd7 No solution found when resolving dependencies:
  ╰─▶ Because top was not found in the package registry and you require
      top==1.0, we can conclude that your requirements are unsatisfiable.

      hint: An index URL (http://127.0.0.1:43707/simple) could not be queried
      due to a lack of valid authentication credentials (401 Unauthorized).
"""


def refused(said: str, *, offline: bool = False) -> MlwfError:
    error = _failure("The model's packages cannot be resolved", 1, said, "")
    assert isinstance(error, ProgramError)
    error.why = reasons(said) or error.why
    return _explained(error, offline=offline, only_wheels=True)


def test_older_ones_are_understood() -> None:
    no_wheel = refused(NO_WHEEL)
    assert "--allow-source-builds" in no_wheel.cure
    assert no_wheel.why.startswith("Because only mac==1.0 is available and mac==1.0 has no wheels with a matching platform tag")
    assert no_wheel.why.endswith("your requirements are unsatisfiable.")
    assert refused(NO_NETWORK, offline=True).what.startswith("The packages' index is not in the cache")
    assert refused(REFUSED).why == (
        "Failed to fetch: `http://127.0.0.1:9/simple/top/`: error sending request for url (http://127.0.0.1:9/simple/top/): "
        "client error (Connect): tcp connect error: Connection refused (os error 111)"
    )
    assert "could not be queried due to a lack of valid authentication credentials (401 Unauthorized)" in refused(NOT_LET_IN).why


def test_a_line_that_is_broken_within_no_space_left_says_it_still() -> None:
    full = _failure("The model's packages cannot be fetched", 1, FULL, "")
    assert isinstance(full, FullDiskError)
    assert full.why == "failed to flush file `/cache/wheels/3.11/.tmp6avsal7z/big/data`: No space left on device (os error 28)"


def test_nor_does_the_line_that_uv_draws_beside_it_hide_it() -> None:
    broken = "error: Failed to fetch\n  ├─▶ failed to flush file: No space\n  │   left on device (os error 28)\n  ╰─▶ it ended"
    assert isinstance(_failure("The model's packages cannot be fetched", 1, broken, ""), FullDiskError)


def test_a_package_whose_name_is_an_option_is_no_wheel_that_lacks(serve_index: Serve, make_folder: MakeFolder, locking: Lockings) -> None:
    with pytest.raises(MlwfError, match=r"no version of no-build==9.*UV_DEFAULT_INDEX"):
        locking(serve_index(Index().add("no-build", "1.0"))).lock(make_folder({"requirements.txt": "no-build==9"}))


def test_an_index_that_does_not_let_in_is_told_as_one(serve_index: Serve, make_folder: MakeFolder, locking: Lockings) -> None:
    index = serve_index(Index(password="hunter2-of-the-site").add("top", "1.0"))
    with pytest.raises(MlwfError, match=r"could not be queried .*401 Unauthorized"):
        locking(index).lock(make_folder({"requirements.txt": "top==1.0"}))
    with pytest.raises(MlwfError, match=r"could not be queried .*401 Unauthorized") as told:
        locking(index, index.url_with_password.replace("hunter2", "hunter3")).lock(make_folder({"requirements.txt": "top==1.0"}))
    assert "hunter3" not in str(told.value)


def test_what_contradicts_itself_does_so_offline_too(serve_index: Serve, make_folder: MakeFolder, locking: Lockings) -> None:
    """More packages in the cache would help nobody."""
    makes = locking(serve_index(Index().add("top", "1.0", requires=["below<2"]).add("below", "1.0").add("below", "2.0")))
    for number, wanted in enumerate(("top==1.0", "below==2.0")):
        makes.lock(make_folder({"requirements.txt": wanted}, name=str(number)))
    with pytest.raises(MlwfError, match=r"cannot be resolved: .*below<2.*UV_DEFAULT_INDEX"):
        makes.lock(make_folder({"requirements.txt": "top==1.0\nbelow==2.0"}, name="both"), offline=True)


def test_a_version_that_came_out_since_is_to_be_fetched_first(serve_index: Serve, make_folder: MakeFolder, locking: Lockings) -> None:
    makes = locking(serve_index(Index().add("top", "1.0")))
    makes.lock(make_folder({"requirements.txt": "top==1.0"}, name="old"))
    with pytest.raises(MlwfError, match=r"--offline forbids asking it: .*top==2\.0.*--fetch-only"):
        makes.lock(make_folder({"requirements.txt": "top==2.0"}, name="new"), offline=True)


def test_why_a_build_failed_is_told_to_its_end(serve_index: Serve, make_folder: MakeFolder, locking: Lockings) -> None:
    project = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: built\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": "def build_wheel(*_arguments, **_options):\n    import no_such_compiler\n",
    }
    with pytest.raises(MlwfError, match=r"Failed to build `built==1\.0`: .*No module named 'no_such_compiler'\. The build log"):
        locking(serve_index(Index().add_sdist("built", "1.0", project))).lock(
            make_folder({"requirements.txt": "built==1.0"}), only_wheels=False
        )


@pytest.mark.parametrize(("port", "why"), [(None, "Hash mismatch for `top==1.0`"), (9, "Connection refused")])
def test_why_a_package_is_not_fetched(serve_index: Serve, tmp_path: Path, port: int | None, why: str) -> None:
    """Since 0.12 the line that begins with `error:` says only of which package."""
    index = serve_index(Index().add("top", "1.0"))
    url = index.url if port is None else f"http://127.0.0.1:{port}/simple"
    listed = tmp_path / "listed"
    listed.write_text(f"top==1.0 --hash=sha256:{'0' * 64}\n")
    runner = Runner({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": url, "UV_HTTP_RETRIES": "0"})
    argv = ["pip", "install", "--quiet", "--require-hashes", "--cache-dir", tmp_path / "c", "--target", tmp_path / "t", "-r", listed]
    with pytest.raises(ProgramError, match=why):
        run_uv(runner, argv, "It fails", within=tmp_path)
