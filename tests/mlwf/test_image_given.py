"""What the container tools differ in: what they are given for a base, and how an image for them is packed."""

import base64
import hashlib
import io
import json
import os
import platform
import tarfile
from pathlib import Path
from typing import Literal

import pytest
from mlwf.errors import MlwfError, WrongUseError
from mlwf.image import sif
from mlwf.image.base.given import check_opens, given, login_for
from mlwf.image.base.size import ARCHITECTURES
from mlwf.image.base.source import parse_base, pin
from mlwf.image.process import Runner
from mlwf.image.tool import ContainerTool, find_mksquashfs, find_tool

from tests.mlwf.image_parts import fake_tool

APPTAINER, OLD, CE, PRO, SINGULARITY = (
    ContainerTool(Path("tool"), kind, version)
    for kind, version in (
        ("apptainer", "1.4.5-1.el9"), ("apptainer", "1.3.6"), ("singularity-ce", "4.1.1"), ("singularity-pro", "4.3.1"),
        ("singularity", "3.8.7"),
    )
)  # fmt: skip
# Options of a tool's `build` and `pull` as variables, with which it fails, puts the base elsewhere or prints the password.
WISHES = (
    "OCI",
    "FAKEROOT",
    "UPDATE",
    "SANDBOX",
    "PULLFOLDER",
    "PULLDIR",
    "PULL_NAME",
    "PULL_ARCH",
    "DOCKER_LOGIN",
    "DOCKER_HOST",
    "NVCCLI",
    "BINDPATH",
    "MESSAGELEVEL",
)
OURS = {"os": "linux", "architecture": ARCHITECTURES.get(platform.machine(), platform.machine())}


def shown(source: str, place: Path) -> tuple[str, bytes]:
    """The digest of the one image in what the tool is given, and the content of its manifest."""
    base = parse_base(source)
    place.mkdir()
    text = given(base, pin(base, {}, http=False, digest_of=str), place)
    layout = Path(text.removeprefix("oci:"))
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    content = (layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
    assert entry["size"] == len(content)
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert (layout / "oci-layout").is_file()
    return entry["digest"], content


def put(layout: Path, told: object) -> str:
    content = json.dumps(told).encode()
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return f"sha256:{digest}"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Two images: `plain`, and `many`, an index as docker buildx and skopeo --all write it."""
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    plain, mine = put(folder, {"layers": [], "of": "plain"}), put(folder, {"layers": [], "of": "mine"})
    other = {"digest": "sha256:" + "0" * 64, "platform": {"os": "unknown", "architecture": "unknown"}}
    many = put(folder, {"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, {"digest": mine, "platform": OURS}]})
    entries = [
        {"digest": each, "annotations": {"org.opencontainers.image.ref.name": name}} for each, name in ((plain, "plain"), (many, "many"))
    ]
    (folder / "index.json").write_text(json.dumps({"manifests": entries}))
    return folder


def test_a_layout_is_shown_as_one_image_for_this_machine(layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "layout.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(layout, arcname=".")
    for number, where in enumerate((f"oci:{layout}", f"oci-archive:{archive}")):
        for tag, of in (("plain", "plain"), ("many", "mine")):
            _digest, content = shown(f"{where}:{tag}", tmp_path / f"{number}-{tag}")
            assert json.loads(content)["of"] == of
        with pytest.raises(MlwfError, match="does not hold one image"):
            shown(where, tmp_path / f"{number}-none")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_was_cut_short_is_said(layout: Path, tmp_path: Path, mode: Literal["w", "w:gz"]) -> None:
    """Its index comes first, as skopeo writes it, and tells nothing of the rest: it was a fault of the tool."""
    archive = tmp_path / "layout.tar"
    (layout / "blobs/sha256" / ("f" * 64)).write_bytes(os.urandom(100_000))
    with tarfile.open(archive, mode) as tar:
        for name in ("index.json", "blobs"):
            tar.add(layout / name, arcname=name)
    archive.write_bytes(archive.read_bytes()[:-60_000])
    with pytest.raises(MlwfError, match=r"layout\.tar is not whole: .*Copy it again"):
        shown(f"oci-archive:{archive}:plain", tmp_path / "place")


@pytest.mark.parametrize("mode", ["w:bz2", "w:xz"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("index.json", "blobs"), "layout.tar is not whole: .*Copy it again"),
        (("blobs", "index.json"), "layout.tar does not hold one image"),
    ],
)
def test_an_archive_that_was_damaged_is_said(
    layout: Path, tmp_path: Path, mode: Literal["w:bz2", "w:xz"], names: tuple[str, str], said: str
) -> None:
    """Each way of packing has an error of its own, and bzip2's looks like one of the disk's."""
    archive = tmp_path / "layout.tar"
    (layout / "blobs/sha256" / ("f" * 64)).write_bytes(b"".join(b"%d" % number for number in range(900_000)))
    with tarfile.open(archive, mode) as tar:
        for name in names:
            tar.add(layout / name, arcname=name)
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(MlwfError, match=said):
        shown(f"oci-archive:{archive}:plain", tmp_path / "place")


def test_a_layout_whose_manifest_is_another_is_refused(layout: Path, tmp_path: Path) -> None:
    """By its digest the base is kept: a stranger's archive must not put something else there."""
    for file in (layout / "blobs/sha256").iterdir():
        file.write_bytes(file.read_bytes().replace(b"mine", b"evil"))
    with pytest.raises(MlwfError, match="does not hold one image"):
        shown(f"oci:{layout}:many", tmp_path / "place")


def write_tar(archive: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize(
    "manifest",
    [b'[{"RepoTags": ["name:1"]}, {"RepoTags": ["other:1"]}]', b'[{"RepoTags": ["name:2"]}]', b'[{"RepoTags": null}]', b"[]", b"{", b"[1]"],
)
def test_an_archive_that_is_asked_for_an_image_holds_it_alone(tmp_path: Path, manifest: bytes) -> None:
    write_tar(tmp_path / "a.tar", {"manifest.json": manifest})
    with pytest.raises(MlwfError, match="does not hold one image name:1"):
        pin(parse_base(f"docker-archive:{tmp_path}/a.tar:name:1"), {}, http=False, digest_of=str)


def test_an_archive_is_given_without_name_and_colons(tmp_path: Path) -> None:
    archive = tmp_path / "a:b.tar"
    write_tar(archive, {"manifest.json": b'[{"RepoTags": ["docker.io/library/name:1"]}]'})
    base = parse_base(f"docker-archive:{archive}:name:1")
    pinned = pin(base, {}, http=False, digest_of=lambda file: f"sha256:{file.name}")
    assert (base.tag, pinned.digest, pinned.exact) == ("name:1", "sha256:a:b.tar", f"docker-archive:{archive}")
    (tmp_path / "place").mkdir()
    assert given(base, pinned, tmp_path / "place") == f"docker-archive:{tmp_path}/place/archive.tar"
    assert (tmp_path / "place/archive.tar").read_bytes() == archive.read_bytes()


def test_an_image_that_the_tool_cannot_open_is_told_in_words(tmp_path: Path) -> None:
    superblock = b"hsqs".ljust(20, b"\0")
    for name, number in (("gzip", b"\1\0"), ("zstd", b"\6\0")):
        content = superblock + number + b"\0" * 100
        (tmp_path / f"{name}.squashfs").write_bytes(content)
        with (tmp_path / f"{name}.sif").open("w+b") as file:
            os.pwrite(file.fileno(), content, sif.partition_offset([]))
            sif.write_front(file.fileno(), [], size=len(content), architecture="amd64", identity=b"x")
    for file in tmp_path.glob("*.s*"):
        check_opens(APPTAINER, file)
        if "zstd" in file.name:
            with pytest.raises(MlwfError, match=r"zstd, which singularity-ce 4\.1\.1 does not read.*--compression gzip"):
                check_opens(CE, file)
        else:
            check_opens(CE, file)
    with (tmp_path / "none.sif").open("w+b") as file:
        sif.write_front(file.fileno(), [], size=0, architecture="amd64", identity=b"x")
        os.pwrite(file.fileno(), b"\5\x40\0\0", sif.DESCRIPTORS_AT)  # an object of another kind, as images of the OCI mode have them
    with pytest.raises(MlwfError, match="not a Singularity image"):
        check_opens(APPTAINER, tmp_path / "none.sif")


@pytest.mark.parametrize(("said", "prefix"), [("apptainer version 1.4.5", "APPTAINER"), ("singularity-ce version 4.1.1", "SINGULARITY")])
def test_whichever_tool_fetches_gets_the_login_and_keeps_nothing(tmp_path: Path, said: str, prefix: str) -> None:
    program = tmp_path / "tool"
    program.write_text(f'#!/bin/sh\ncase $1 in --version) echo "{said}";; *) echo "$@"; exec env;; esac\n')
    program.chmod(0o755)
    (tmp_path / ".docker").mkdir()
    auth = base64.b64encode(b"alice:right").decode()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {"registry.example:5000": {"auth": auth}}}))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLWF_CONTAINER_TOOL": str(program), "no_proxy": "registry.example"}
    kept = ("CACHEDIR", "DISABLE_CACHE", "LIBRARY", "CONFIGDIR", "DEBUG")
    environ |= {f"{name}_{rest}": "/theirs" for name in ("APPTAINER", "SINGULARITY") for rest in (*kept, *WISHES)}
    tool, place = find_tool(environ), tmp_path / "place"
    for source in ("docker://registry.example:5000/base:1", "oras://registry.example:5000/base:1"):
        login = login_for(parse_base(source), environ)
        with (tmp_path / "log").open("w+b", buffering=0) as log:
            if source.startswith("docker"):
                tool.build_sandbox(Runner(environ, log), source, place, shown=source, tmpdir=tmp_path, login=login)
            else:
                tool.pull(Runner(environ, log), source, place, cache=tmp_path / "once", login=login)
            log.seek(0)
            _command, options, *variables = log.read().decode().splitlines()
        caches = {each for each in variables if "CACHE" in each}
        assert "--disable-cache" in options.split() or caches == {f"{prefix}_CACHEDIR={tmp_path}/once"}
        assert "right" not in options
        assert {"no_proxy=registry.example", f"{prefix}_LIBRARY=/theirs", f"{prefix}_CONFIGDIR=/theirs"} < set(variables)
        assert not [each for each in variables if each.partition("=")[0].partition("_")[2] in WISHES], "another option of the tool's"
        variables = [each for each in variables if "_DOCKER_" in each or "OCI" in each]
        native = ["SINGULARITY_NO_OCI=1"] if prefix == "SINGULARITY" else []
        assert sorted(variables) == sorted([f"{prefix}_DOCKER_USERNAME=alice", f"{prefix}_DOCKER_PASSWORD=right", *native])
    assert login_for(parse_base("docker://other.example/base:1"), environ) is None
    assert login_for(parse_base("library://base"), environ) is None


@pytest.mark.parametrize(
    ("tool", "wanted", "site", "packed"),
    [
        (APPTAINER, None, "", "zstd"),
        (OLD, None, "", "gzip"),
        (CE, None, "", "gzip"),
        (PRO, None, "", "gzip"),
        (SINGULARITY, None, "", "gzip"),
        (APPTAINER, None, "gzip", "gzip"),
        (APPTAINER, "auto", "gzip", "zstd"),
        (APPTAINER, "gzip", "zstd", "gzip"),
        (CE, "gzip", "zstd", "gzip"),
    ],
)
def test_how_an_image_is_packed(tmp_path: Path, tool: ContainerTool, wanted: str | None, site: str, packed: str) -> None:
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tgzip (default)\n\tzstd")
    environ = {"PATH": str(tmp_path), "MLWF_COMPRESSION": site}
    assert find_mksquashfs(environ, tool, wanted).compression == packed


@pytest.mark.parametrize(
    ("said", "named", "packed"),
    [
        ("singularity-ce version 4.1.1", "", "gzip"),
        ("singularity-ce version 4.1.1", "apptainer", "zstd"),
        ("apptainer version 1.4.5", "", "zstd"),
        ("use apptainer now", "", "zstd"),
    ],
)
def test_an_image_opens_with_each_tool_that_is_here(said: str, named: str, packed: str, tmp_path: Path) -> None:
    """The system's Apptainer made it, and to the Singularity of a module, by whose name it was run, it was corrupted."""
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    fake_tool(tmp_path, "singularity", said)
    environ = {"PATH": str(tmp_path), "MLWF_CONTAINER_TOOL": named}
    assert find_mksquashfs(environ, find_tool(environ)).compression == packed
    assert find_mksquashfs(environ, find_tool(environ), "zstd").compression == "zstd"


# What squashfs-tools 4.7.5 (Debian sid) say to -help, which no more tells the compressors, and to -help-section compression.
NEWER = """#!/bin/sh
case "$*" in
-version) echo 'mksquashfs version 4.7.5 (2026/03/01)';;
-help) cat <<END
SYNTAX: mksquashfs source1 source2 ...  FILESYSTEM [OPTIONS] [-e list of exclude
dirs/files]

Run
  "mksquashfs -help-option <regex>" to get help on all options matching <regex>

Or run
  "mksquashfs -help-section <section-name>" to get help on these sections
\tSECTION NAME\t\tSECTION
\tcompression\t\tFilesystem compression options:
END
;;
'-help-section compression') cat <<END
Filesystem compression options:
-comp <comp>\t\tselect <comp> compression.  Run -help-comp <comp> to get
\t\t\tcompressor options for <comp>, or <all> for all the
\t\t\tcompressors.
\t\t\tCompressors available:
\t\t\t\tgzip (default)
\t\t\t\tzstd
END
;;
esac
"""


def test_a_newer_mksquashfs_tells_elsewhere_that_it_packs_with_zstd(tmp_path: Path) -> None:
    (tmp_path / "mksquashfs").write_text(NEWER)
    (tmp_path / "mksquashfs").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    found = find_mksquashfs(environ, APPTAINER)
    assert (found.version, found.compression) == ("4.7.5", "zstd")
    assert find_mksquashfs(environ, APPTAINER, "zstd").compression == "zstd"


def test_how_an_image_cannot_be_packed(tmp_path: Path) -> None:
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.4\n\tgzip (default)")
    environ = {"PATH": str(tmp_path)}
    assert find_mksquashfs(environ, APPTAINER).compression == "gzip"
    with pytest.raises(MlwfError, match="mksquashfs does not pack with zstd"):
        find_mksquashfs(environ, APPTAINER, "zstd")
    with pytest.raises(MlwfError, match=r"singularity-ce 4\.1\.1 cannot open images .* zstd"):
        find_mksquashfs({**environ, "MLWF_COMPRESSION": "zstd"}, CE)
    with pytest.raises(WrongUseError, match="MLWF_COMPRESSION cannot be 'xz'"):
        find_mksquashfs({**environ, "MLWF_COMPRESSION": "xz"}, CE)


def test_a_mksquashfs_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RHEL 8 has 4.3; a module, or the container tool itself, may bring a newer one."""
    monkeypatch.setattr("mlwf.image.tool.SYSTEM", ())
    first, own = tmp_path / "bin", tmp_path / "libexec/apptainer/bin"
    for folder in (first, own):
        folder.mkdir(parents=True)
    fake_tool(first, "mksquashfs", "mksquashfs version 4.3 (2014/05/12)\n\tgzip (default)")
    tool, environ = ContainerTool(first / "apptainer", "apptainer", "1.4.5"), {"PATH": f"{first}:/nowhere"}
    with pytest.raises(MlwfError, match=rf"too old: 4\.3 \({first}/mksquashfs\)\. .*4\.4 or later"):
        find_mksquashfs(environ, tool)
    fake_tool(own, "mksquashfs", "mksquashfs version 4.10-git.1 (2027/01/01)\n\tgzip (default)")
    assert find_mksquashfs(environ, tool).version == "4.10-git.1"
    with pytest.raises(MlwfError, match=r"There is no mksquashfs"):
        find_mksquashfs({"PATH": "/nowhere"}, APPTAINER)
