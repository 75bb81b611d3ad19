"""Archives of an enemy: nothing outside the new folder is touched, and nothing but folders and plain files is made."""

import contextlib
import errno
import gzip
import io
import os
import resource
import stat
import struct
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlwf.errors import MlwfError
from mlwf.image.model.unpack import BadPackageError, Limits, copy_folder, unpack
from mlwf.transfer.paths import UnsafePathError, check_path

from tests.image.conftest import package_files, packed
from tests.support.account import service_account

TYPES = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"V"]


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644, size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.size = kind, link, mode, size
    return made


def tar(*entries: tarfile.TarInfo) -> bytes:
    return packed({}, *entries)


def surroundings(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below, as it is on disk, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_mode, state.st_size, state.st_mtime_ns)
    return found


def refused(data: bytes, folder: Path, **limits: int) -> str:
    """The sentence; and the folder's surroundings are as they were."""
    folder.mkdir(exist_ok=True)
    before = surroundings(folder)
    with pytest.raises(BadPackageError) as caught:
        unpack(io.BytesIO(data), folder / "new", limits=Limits(**limits) if limits else Limits())
    after = {name: state for name, state in surroundings(folder).items() if not name.startswith("new")}
    assert after == before
    return str(caught.value)


def test_a_good_package_comes_out_as_it_went_in(tmp_path: Path) -> None:
    files = package_files()
    for number, data in enumerate([packed(files), gzip.decompress(packed(files)), packed(files, prefix="./")]):
        into = tmp_path / str(number)
        unpack(io.BytesIO(data), into)
        assert {str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()} == files
        assert {stat.S_IMODE(path.stat().st_mode) for path in into.rglob("*") if path.is_file()} == {0o640}
        assert {stat.S_IMODE(path.stat().st_mode) for path in [into, *into.rglob("*")] if path.is_dir()} == {0o750}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (entry("../escaped"), "'.' or '..'"),
        (entry("a/../../escaped"), "'.' or '..'"),
        (entry("/etc/cron.d/x"), "absolute"),
        (entry("a//b"), "an empty part"),
        (entry("link", tarfile.SYMTYPE, link="/etc/passwd"), "a link, a device"),
        (entry("hard", tarfile.LNKTYPE, link="../../etc/passwd"), "a link, a device"),
        (entry("tty", tarfile.CHRTYPE), "a link, a device"),
        (entry("disk", tarfile.BLKTYPE), "a link, a device"),
        (entry("pipe", tarfile.FIFOTYPE), "a link, a device"),
        (entry("sparse", tarfile.GNUTYPE_SPARSE), "a link, a device"),
        (entry("su", mode=0o4755), "setuid"),
        (entry("sg", mode=0o2755), "setuid"),
        (entry("a\nb"), "control characters"),
        (entry("a\x1b[2Jb"), "control characters"),
        (entry("x" * 256), "too long"),
        (entry("/".join(["d" * 200] * 16)), "too long"),
        (entry("/".join(["d"] * 90)), "nested too deeply"),
        (entry("\udcff"), "control characters"),
    ],
    ids=lambda value: ascii(value.name[:20]) if isinstance(value, tarfile.TarInfo) else "",
)
def test_what_is_refused(tmp_path: Path, bad: tarfile.TarInfo, words: str) -> None:
    assert words in refused(tar(entry("good"), bad), tmp_path / "there")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("d/a", "d/a")], ids=ascii)
def test_no_name_twice(tmp_path: Path, names: tuple[str, str]) -> None:
    assert "twice" in refused(tar(*map(entry, names)), tmp_path / "there")


def test_a_name_is_told_in_its_letters_and_steers_no_terminal(tmp_path: Path) -> None:
    told = refused(tar(entry("日本\u202e"), entry("日本\u202e")), tmp_path / "there")
    assert "'日本\\u202e' twice" in told
    with pytest.raises(UnsafePathError, match=r"unsafe name, '赤\\n\\x1b\\udcff'"):
        check_path("赤\n\x1b\udcff")


@pytest.mark.parametrize("names", [("a", "A"), ("é", "e\u0301"), ("D/x", "d/y"), ("D/x", "d/x")], ids=ascii)
def test_names_that_differ_come_out_as_they_went_in_where_the_file_system_tells_them_apart(
    tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an export and MLflow do; another file system, whose kind is not to be had here, finds one of them there already."""
    files = {name: name.encode() for name in names}
    unpack(io.BytesIO(packed(files)), tmp_path / "new")
    assert {str(path.relative_to(tmp_path / "new")): path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()} == files

    def without_case(path: Path) -> Path:
        return tmp_path / unicodedata.normalize("NFC", str(path.relative_to(tmp_path))).casefold()

    for where, name in ((Path, "mkdir"), (Path, "chmod"), (os, "open")):
        real = getattr(where, name)
        monkeypatch.setattr(where, name, lambda path, *args, real=real, **more: real(without_case(path), *args, **more))
    with pytest.raises(BadPackageError, match="the same on this file system"):
        unpack(io.BytesIO(packed(files)), tmp_path / "without case")


def test_bombs(tmp_path: Path) -> None:
    zeros = tar(entry("big", size=40 << 20))
    assert "like a zip bomb" in refused(zeros, tmp_path / "ratio", bomb_from=1 << 20, ratio=100)
    assert "larger than" in refused(zeros, tmp_path / "size", size=30 << 20)
    assert "more than 5 files" in refused(tar(*(entry(str(number)) for number in range(6))), tmp_path / "count", entries=5)
    with pytest.raises(MlwfError, match="not enough space"):
        unpack(io.BytesIO(gzip.compress(entry("huge", size=1 << 39).tobuf(tarfile.GNU_FORMAT))), tmp_path / "space")


def test_an_entry_that_says_too_much_of_itself(tmp_path: Path) -> None:
    """Long names and pax records are kept in memory by whoever reads them."""
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
        assert "too much" in refused(tar(entry("x", kind, size=8 << 20), entry("y")), tmp_path / kind.decode())
    chain = b"".join(entry("x", tarfile.GNUTYPE_LONGNAME, size=1).tobuf(tarfile.GNU_FORMAT) + b"\0" * 512 for _ in range(2000))
    assert "cannot be unpacked" in refused(gzip.compress(chain), tmp_path / "chain")


def test_pax_records_that_contradict_the_header(tmp_path: Path) -> None:
    lying = entry("innocent")
    lying.pax_headers = {"path": "../escaped"}
    assert "'.' or '..'" in refused(tar(lying), tmp_path / "path")
    sparse = entry("sparse", size=512)
    sparse.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": "1099511627776", "GNU.sparse.name": "sparse"}
    assert "a link, a device" in refused(tar(sparse), tmp_path / "sparse")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("plain", [True, False])
def test_a_cut_archive(tmp_path: Path, part: float, plain: bool) -> None:
    data = packed({**package_files(), "noise": os.urandom(60_000)})
    data = gzip.decompress(data).rstrip(b"\0") if plain else data
    assert "damaged" in refused(data[: int(len(data) * part)], tmp_path / "there")


def test_a_flipped_bit_and_a_wrong_header_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(packed({"a": os.urandom(5000)}))
    data[-6] ^= 1  # the checksum of gzip
    assert "damaged" in refused(bytes(data), tmp_path / "crc")
    plain = bytearray(gzip.decompress(packed({"a": b"x", "b": b"y"})))
    plain[1024 + 148] ^= 1  # the checksum of the second header
    assert "damaged" in refused(gzip.compress(plain), tmp_path / "header")
    assert "damaged" in refused(b"PK\x03\x04 a zip", tmp_path / "zip")
    assert "damaged" in refused(b"", tmp_path / "empty")
    assert "damaged" in refused(packed({"a": b"x"}) + b"tail of something else", tmp_path / "tail")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(
        st.builds(
            entry,
            st.one_of(
                st.text(alphabet="ab./\\\0\n\u0301é-", min_size=1, max_size=12),
                st.sampled_from(["../x", "/x", "a/../../x", "a", "a/b", "d/"]),
            ),
            st.sampled_from(TYPES),
            link=st.sampled_from(["", "..", "/etc", "a", "../out"]),
            mode=st.integers(0, 0o7777),
            size=st.integers(0, 2000),
        ),
        max_size=6,
    )
)
def test_whatever_comes_nothing_outside_is_touched(tmp_path_factory: pytest.TempPathFactory, entries: list[tarfile.TarInfo]) -> None:
    folder = tmp_path_factory.mktemp("there")
    (folder / "out").write_text("mine")
    before = surroundings(folder)
    new = folder / "new"
    with contextlib.suppress(MlwfError):
        unpack(io.BytesIO(tar(*entries)), new)
    for path in new.rglob("*"):
        state = path.lstat()
        assert stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)
        assert stat.S_IMODE(state.st_mode) in {0o640, 0o750, 0o600}
        assert path.resolve().is_relative_to(new)
    after = {name: state for name, state in surroundings(folder).items() if name.split("/")[0] != "new"}
    assert after == before


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), where=st.integers(0, 4000), plain=st.booleans())
def test_bytes_of_any_kind_are_a_package_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, where: int, plain: bool
) -> None:
    whole = gzip.decompress(packed(package_files()))
    spoiled = whole[:where] + data + whole[where + len(data) :]
    new = tmp_path_factory.mktemp("there") / "new"
    with contextlib.suppress(MlwfError):
        unpack(io.BytesIO(spoiled if plain else gzip.compress(spoiled, 1)), new)
    assert not [path for path in new.rglob("*") if path.is_symlink()]


def test_a_folder_is_copied_by_the_same_rules(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    (folder / "code/run.sh").write_text("#!/bin/sh\n")
    (folder / "code/run.sh").chmod(0o4777)
    seen: list[int] = []
    copy_folder(folder, tmp_path / "copy", on_bytes=seen.append)
    assert (tmp_path / "copy/code/predict.py").read_bytes() == package_files()["code/predict.py"]
    assert stat.S_IMODE((tmp_path / "copy/code/run.sh").stat().st_mode) == 0o640
    assert sum(seen) == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (folder / "secret").symlink_to("/etc/passwd")
    with pytest.raises(BadPackageError, match="a link"):
        copy_folder(folder, tmp_path / "linked")
    (folder / "secret").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadPackageError, match="a link, a device"):
        copy_folder(folder, tmp_path / "piped")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("name", ["code/data", "code/data/kept"])
def test_what_may_not_be_read_of_a_folder_is_named_and_not_left_out(name: str) -> None:
    """A colleague's package with a folder of 0700 was copied without that folder, and the image was built."""
    with tempfile.TemporaryDirectory() as there:
        Path(there).chmod(0o777)
        package = Path(there, "package")
        (package / "code/data").mkdir(parents=True)
        for file in ("MLmodel", "code/data/kept"):
            (package / file).write_text("x")
        (package / name).chmod(0)
        with service_account(), pytest.raises(MlwfError) as caught:
            copy_folder(package, Path(there, "copy"))
    assert str(caught.value).startswith(f"{name} of the model package cannot be read: Permission denied. ")


def test_a_folder_that_a_file_server_does_not_give_is_not_left_out(
    tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def stale(path: str, *how: int, **more: int) -> int:
        if path == "code":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return real(path, *how, **more)

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(MlwfError, match=r"^code of the model package cannot be read: Stale file handle"):
        copy_folder(make_folder(), tmp_path / "copy")


class Endless(io.BytesIO):
    """Zeros follow without an end; nobody is to read many of them, nor all at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= 1 << 20
        return super().read(size).ljust(size, b"\0")


def test_a_negative_size_is_not_read_to_the_end(tmp_path: Path) -> None:
    header = bytearray(entry("MLmodel", size=1).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    by_pax = tarfile.TarInfo("MLmodel")
    by_pax.pax_headers = {"size": "-1"}
    for number, start in enumerate((bytes(header), by_pax.tobuf(tarfile.PAX_FORMAT))):
        with pytest.raises(BadPackageError, match="negative size"):
            unpack(Endless(start), tmp_path / str(number))


def test_a_write_that_takes_only_a_part_is_no_success(tmp_path: Path) -> None:
    data = packed({"MLmodel": bytes(5000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            unpack(io.BytesIO(data), tmp_path / "short")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_sizes_in_the_headers_base_256_form(tmp_path: Path) -> None:
    """A negative or enormous size is no reason to read backwards."""
    header = bytearray(entry("x", size=1).tobuf(tarfile.GNU_FORMAT))
    for number in (b"\xff" * 12, b"\x80" + b"\0" * 3 + struct.pack(">q", 1 << 62)):
        header[124:136] = number
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        with pytest.raises(MlwfError):
            unpack(io.BytesIO(bytes(header) + b"\0" * 2048), tmp_path / number[:1].hex())
