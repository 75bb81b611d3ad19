"""What mlwf_create_image finds out before it fetches anything."""

import contextlib
import hashlib
import json
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from mlwf.errors import MlwfError
from mlwf.image.base.converted import BaseFacts, ComingBase
from mlwf.image.base.docker_reference import DockerReference
from mlwf.image.base.pulled import Pulled, pull
from mlwf.image.base.registry import MAX_MANIFEST, registry_digest
from mlwf.image.base.size import ARCHITECTURES, base_size, layers_size, layout_manifest
from mlwf.image.base.source import Pinned, parse_base
from mlwf.image.cache import Cache
from mlwf.image.create import _check_room
from mlwf.image.environment.compiled import Compiler
from mlwf.image.environment.lock import Lock
from mlwf.image.environment.pythons import Python
from mlwf.image.plan import Found, Wanted, _base, _base_key, _image_key, _pin, _pinned, look_up
from mlwf.image.process import ProgramError, Runner
from mlwf.image.recipe import Recipe
from mlwf.image.remembered import known_digest, of_address, remember
from mlwf.transfer.workspace import Workspace

from tests.image.conftest import package_files, packed
from tests.mlwf.image_parts import fake_tool, run_command


class Registry(BaseHTTPRequestHandler):
    """Serves manifests by tag and by digest. `tells`: it says the digest; `breaks`: it says more bytes than it sends."""

    manifests: ClassVar[dict[str, bytes]] = {}
    tells, breaks = True, False

    def do_GET(self) -> None:
        manifest = self.manifests.get(self.path.rpartition("/")[2])
        self.send_response(404 if manifest is None else 200)
        if self.tells:
            self.send_header("Docker-Content-Digest", digest_of(manifest or b""))
        self.send_header("Content-Length", str(len(manifest or b"") + self.breaks))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(manifest or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_args: object) -> None:
        pass


def serve(tagged: bytes, *others: bytes) -> None:
    Registry.manifests = {"3": tagged} | {digest_of(each): each for each in (tagged, *others)}


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Registry.tells, Registry.breaks = True, False
    serve(manifest_of())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, base: str, *options: str) -> tuple[int, str]:
    """Status and stderr, with a package that nobody serves."""
    asked = ("--model-pkg-url", "https://127.0.0.1:9/model.tar.gz", "--no-https", "--base-container-url", base)
    status, _out, err = run_command(monkeypatch, folder, *asked, *options)
    return status, err


def test_what_is_wrong_with_the_base_is_told_before_the_package_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert told(monkeypatch, tmp_path, "nonsense:base")[0] == 2
    assert told(monkeypatch, tmp_path, "docker-archive:no.tar")[0] == 2
    assert "404" in told(monkeypatch, tmp_path, f"docker://{address}/python:2")[1]
    (tmp_path / "model.tar.gz").touch()
    here = ("--model-pkg-url", str(tmp_path / "model.tar.gz"), "--offline")
    assert "The base image library://python is not in the cache" in told(monkeypatch, tmp_path, "library://python", *here)[1]
    good = f"docker://{address}/python:3"
    with monkeypatch.context() as patched:
        patched.setattr("mlwf.image.plan.LEAST_SPACE", 1 << 60)
        assert "There is no room for" in told(patched, tmp_path, good)[1]
        for pulled in ("library://a/b/c:1", f"oras://{address}/python:3"):
            assert "There is no room for" in told(patched, tmp_path, pulled)[1]
    for base in (good, "library://a/b/c:1"):
        assert "127.0.0.1:9" in told(monkeypatch, tmp_path, base)[1], "only then the package is asked for"


def test_an_address_that_a_job_without_network_reads_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    base = f"docker://{address}/python:3"
    (tmp_path / "model.tar.gz").write_bytes(packed(package_files()))
    told(monkeypatch, tmp_path, base)
    (remembered,) = (tmp_path / "cache/addresses").iterdir()
    os.utime(remembered, (1, 1))
    here = ("--model-pkg-url", str(tmp_path / "model.tar.gz"), "--offline")
    assert f"The base image {base} is not in the cache" in told(monkeypatch, tmp_path, base, *here)[1]
    assert remembered.stat().st_mtime > 1, "prune goes by it"


def test_a_base_that_another_node_replaced_a_moment_ago_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on NFS says for a minute what the file was: the other base would have gone by the first one's digest."""
    kit: Any = SimpleNamespace(cache=Cache.open({"MLWF_CACHE": str(tmp_path / "cache")}))
    base = tmp_path / "base.tar"
    base.write_bytes(b"one base")
    usual, before = Path.stat, base.stat()
    assert known_digest(kit, base) == digest_of(b"one base")
    base.write_bytes(b"or other")
    monkeypatch.setattr(Path, "stat", lambda path, **how: before if path == base else usual(path, **how))
    assert known_digest(kit, base) == digest_of(b"or other")


@pytest.mark.parametrize("left", [b"", bytes(71)])
def test_what_a_lost_node_left_of_a_note_is_none(tmp_path: Path, left: bytes) -> None:
    """Two files of which nothing was known were one base then, and --offline said that none has an address."""
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    kit: Any = SimpleNamespace(
        cache=Cache.open({"MLWF_CACHE": str(tmp_path / "cache")}), tool=SimpleNamespace(kind="apptainer", version="1.4"),
        squash=SimpleNamespace(squasher=squasher),
    )  # fmt: skip
    base, source = tmp_path / "base.tar", parse_base("oras://a/b:1")
    base.write_bytes(b"one base")
    known_digest(kit, base)
    remember(of_address(kit, source), f"{digest_of(b'a SIF')} {source.text}")
    asked = Wanted("model", source.text, tmp_path, offline=True)
    assert _pin(kit, source, asked) == Pinned(source.text, digest_of(b"a SIF"), source.text)
    for kept in (tmp_path / "cache").glob("*s/*"):
        kept.write_bytes(left)
    assert known_digest(kit, base) == known_digest(kit, base) == digest_of(b"one base")
    with pytest.raises(MlwfError, match="is not in the cache"):
        _pin(kit, source, asked)


def test_a_base_that_only_the_container_tool_can_fetch_is_found_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--offline sent the user to --fetch-only, and that had kept a base which --offline never looked for."""
    monkeypatch.setattr("mlwf.image.plan.LEAST_SPACE", 1)
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    tool = SimpleNamespace(
        kind="apptainer",
        version="1.4",
        opens_zstd=True,
        pull=lambda _runner, _text, file, *, cache, **_how: [each.write_bytes(b"a SIF") for each in (file, cache / "entry")],
    )
    kit: Any = SimpleNamespace(
        cache=Cache.open({"MLWF_CACHE": str(tmp_path / "cache")}), tool=tool, squash=SimpleNamespace(squasher=squasher),
        runner=Runner({}), steps=SimpleNamespace(step=lambda _name: contextlib.nullcontext()),
    )  # fmt: skip
    text = "oras://127.0.0.1:9/base:1"
    online = Wanted("model", text, tmp_path)
    with pytest.raises(MlwfError, match=r"none for apptainer 1\.4 and mksquashfs 4\.6 \(zstd\)\. .*--fetch-only.*same versions"):
        look_up(kit, replace(online, offline=True))
    with _pinned(kit, look_up(kit, online), tmp_path, online) as fetched:
        assert fetched.digest == digest_of(b"a SIF")
    found = look_up(kit, replace(online, offline=True))
    assert found.pinned
    assert (found.pinned.digest, found.pinned.exact) == (fetched.digest, fetched.exact)
    # Where a base of it is kept, it is mostly the same still, and needs no room.
    made = tmp_path / "base.sif"
    made.write_bytes(b"made of it")
    kit.cache.put("bases", _base_key(kit, found.source, found.pinned), made)
    monkeypatch.setattr("mlwf.image.plan.LEAST_SPACE", 1 << 60)
    assert look_up(kit, online).size == 0
    assert _base_key(kit, found.source, found.pinned) == _base_key(kit, found.source, fetched)


def test_a_base_that_is_pruned_right_after_it_was_asked_for_is_not_built_unchecked(tmp_path: Path) -> None:
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    kit: Any = SimpleNamespace(
        cache=Cache.open({"MLWF_CACHE": str(tmp_path / "cache")}), tool=SimpleNamespace(kind="apptainer", version="1.4"),
        squash=SimpleNamespace(squasher=squasher), steps=SimpleNamespace(waits=pytest.fail),
    )  # fmt: skip
    text = "library://a/b/c:1"
    found, same = Found(parse_base(text), None), Pinned(text, digest_of(b"a SIF"), text)
    with contextlib.ExitStack() as held:
        aside: Any = SimpleNamespace(held=held)
        meter: Any = None
        with pytest.raises(MlwfError, match=r"library://a/b/c:1 was just removed from the cache\. Run it again"):
            _base(kit, found, same, Wanted("model", text, tmp_path), aside, meter)


@pytest.mark.parametrize(
    ("base", "said", "cure"),
    [
        ("library", "error response from server: unexpected HTTP status 403", "remote login"),
        ("library", 'Get "https://x/v1": dial tcp: lookup x on 10.0.0.1:53: no such host', "or use --offline"),
        ("library", "open /here/403.sif: permission denied", "Try again"),
        ("library", "image does not exist in the library: a/b/401:403 (amd64)", "remote list"),
        (
            "oras",
            "failed to get checksum: GET http://x/v2/a/manifests/2: MANIFEST_UNKNOWN: manifest unknown",
            "Check the name and the tag.",
        ),
        ("oras", "unexpected status code 401 Unauthorized", "docker login"),
        ("oras", "requested access to the resource is denied", "docker login"),
    ],
)
def test_what_helps_where_the_container_tool_cannot_fetch_a_base(tmp_path: Path, base: str, said: str, cure: str) -> None:
    def refused(*_what: object, **_how: object) -> None:
        raise ProgramError("It cannot be fetched", 255, f"FATAL: {said}")

    with pytest.raises(ProgramError) as told:
        pull(_pulling(refused), parse_base(f"{base}://a/b:1"), tmp_path, None, http=False)
    assert cure in told.value.cure


def test_a_tool_that_looks_into_what_its_cache_has_fetches_the_base_again(tmp_path: Path) -> None:
    """None that we could try does; before the second try every later build with that base would have ended there."""
    known, caches = Pulled(digest_of(b"a SIF"), "oras/sha256.1"), []

    def fetch(_runner: object, _text: str, file: Path, *, cache: Path, **_how: object) -> None:
        caches.append([each.name for each in cache.rglob("*") if each.is_file()])
        if caches[-1]:
            raise ProgramError("It cannot be fetched", 255, "FATAL: cached file is corrupted")
        file.write_bytes(b"a SIF")

    pulled = pull(_pulling(fetch), parse_base("oras://a/b:1"), tmp_path, known, http=False)
    assert (pulled.digest, pulled.file) == (known.digest, tmp_path / "pulled.sif")
    assert caches == [["sha256.1"], []]


def _pulling(fetch: Callable[..., None]) -> Any:
    tool = SimpleNamespace(kind="apptainer", version="1.4", opens_zstd=True, path=Path("apptainer"), pull=fetch)
    return SimpleNamespace(tool=tool, runner=Runner({}))


def test_nothing_that_was_made_for_other_processors_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One home, two kinds of nodes: the digest of a tag for both is one, and the lock of packages in plain Python, too."""
    squasher = SimpleNamespace(version="4.6", compression="zstd", compressor=())
    kit: Any = SimpleNamespace(
        cache=Cache(tmp_path), tool=SimpleNamespace(kind="apptainer", version="1.4"), squash=SimpleNamespace(squasher=squasher)
    )
    source, pinned = parse_base("docker://python:3"), Pinned("docker://python", digest_of(b""), "docker://python")
    python, lock = Python("3.11.7", "/python", None, "base"), Lock("", "3.11.7")
    recipe = Recipe(source, pinned, python, only_wheels=True)
    names = set()
    for machine, architecture in ARCHITECTURES.items():
        monkeypatch.setattr(platform, "machine", lambda name=machine: name)
        facts = BaseFacts("docker://python", digest_of(b""), architecture, "2.36", {})
        compiler = Compiler(kit, ComingBase(facts, pytest.fail), python)
        image_key = _image_key(kit, facts, "3.11.7", python, lock, recipe)
        names |= {_base_key(kit, source, pinned), of_address(kit, source), image_key, compiler.kept}
    assert len(names) == 4 * len(ARCHITECTURES)


def manifest_of(*sizes: int) -> bytes:
    return json.dumps({"layers": [{"size": size} for size in sizes]}).encode()


def test_a_registry_that_tells_no_digest(address: str) -> None:
    reference = DockerReference.parse(f"docker://{address}/python:3")
    Registry.tells = False
    assert registry_digest(reference, {}, http=True) == digest_of(manifest_of())
    with pytest.raises(MlwfError, match="404"):
        registry_digest(DockerReference.parse(f"docker://{address}/python:2"), {}, http=True)
    for content, breaks in ((manifest_of(), True), (b"", False), (b" " * (MAX_MANIFEST + 1), False)):
        serve(content)
        Registry.breaks = breaks
        with pytest.raises(MlwfError, match=r"no whole manifest.*digest"):
            registry_digest(reference, {}, http=True)


def index_of(manifest: str, architecture: str) -> bytes:
    entries = [("sha256:" + "0" * 64, "other"), (manifest, architecture)]
    return json.dumps(
        {"manifests": [{"digest": digest, "platform": {"os": "linux", "architecture": name}} for digest, name in entries]}
    ).encode()


def test_the_room_for_a_base_is_told_by_its_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    here = ARCHITECTURES[platform.machine()]
    huge = manifest_of(1 << 50, 1 << 20)
    serve(index_of(digest_of(huge), here), huge)
    needed = 4 * ((1 << 50) + (1 << 20)) >> 20
    assert f"There is no room for {needed} MB" in told(monkeypatch, tmp_path, f"docker://{address}/python:3")[1]

    blobs = tmp_path / "layout/blobs/sha256"
    blobs.mkdir(parents=True)
    (blobs / digest_of(huge).partition(":")[2]).write_bytes(huge)
    (blobs.parents[1] / "index.json").write_text(json.dumps({"manifests": [{"digest": digest_of(huge)}]}))
    assert f"There is no room for {needed} MB" in told(monkeypatch, tmp_path, f"oci:{tmp_path / 'layout'}")[1]
    assert layers_size(lambda digest: layout_manifest(blobs.parents[1], digest), digest_of(b"not there")) == 0
    for file in (blobs / digest_of(huge).partition(":")[2], blobs.parents[1] / "index.json"):
        os.truncate(file, 1 << 40)  # read into memory as a whole, it would be the machine's end
    assert layers_size(lambda digest: layout_manifest(blobs.parents[1], digest), digest_of(huge)) == 0
    assert "does not hold one image" in told(monkeypatch, tmp_path, f"oci:{tmp_path / 'layout'}")[1]


def test_there_is_room_for_a_sif_before_it_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What a registry tells of it. Before, the disk was full when all else had been fetched."""
    serve(manifest_of(1 << 50))
    (needed,) = re.findall(r"not enough space in .*/cache: (\d+) MB", told(monkeypatch, tmp_path, f"oras://{address}/base:3")[1])
    assert int(needed) >= 2 << 30
    monkeypatch.setattr("mlwf.image.plan.check_space", lambda *_asked: None)
    assert f"There is no room for {3 << 30} MB" in told(monkeypatch, tmp_path, f"oras://{address}/base:3")[1]
    assert "127.0.0.1:9" in told(monkeypatch, tmp_path, f"oras://{address}/base:2")[1], "it is the package that fails"
    assert "127.0.0.1:9" in told(monkeypatch, tmp_path, f"oras://{address}/Base:2")[1], "as the container tool reads it, if it does"


def test_a_size_that_a_registry_refuses_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    serve(index_of("sha256:" + "1" * 64, ARCHITECTURES[platform.machine()]))
    assert "127.0.0.1:9" in told(monkeypatch, tmp_path, f"docker://{address}/python:3")[1], "it is the package that fails"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("oras://harbor/base:1", []),
        ("oras://base:1", []),
        ("oras://harbor:5000/base:1", ["harbor:5000"]),
        ("oras://localhost/base:1", ["localhost"]),
        ("oras://docker.io/site/base:1", ["docker.io"]),
    ],
)
def test_a_size_is_asked_of_the_address_own_host(monkeypatch: pytest.MonkeyPatch, text: str, asked: list[str]) -> None:
    """Docker would read a host without dot or port as part of a name at Docker Hub, which then was asked, with the user's login."""
    hosts: list[str] = []

    def manifest(reference: DockerReference, _digest: str, **_more: object) -> bytes:
        hosts.append(reference.host)
        return manifest_of(7)

    monkeypatch.setattr("mlwf.image.base.registry.registry_manifest", manifest)
    kit: Any = SimpleNamespace(runner=Runner({}))
    size = base_size(kit, parse_base(text), http=False)
    assert (hosts, size > 0) == (asked, bool(asked))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"layers": 3}', b'{"layers": [{"size": "many"}]}', b'{"manifests": [{"digest": "sha256:../.."}]}', b"\xff"]
)
def test_a_manifest_that_does_not_tell_is_no_failure(content: bytes) -> None:
    assert layers_size(lambda _digest: content, "sha256:" + "1" * 64) == 0


def test_an_index_leads_to_no_other_file(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(digest: str) -> bytes:
        asked.append(digest)
        return index_of("sha256:../../secret", ARCHITECTURES[platform.machine()])

    assert layers_size(answer, "sha256:" + "1" * 64) == 0
    assert len(asked) == 1


def test_cache_and_output_have_room_for_the_image(tmp_path: Path) -> None:
    kit = SimpleNamespace(cache=SimpleNamespace(root=tmp_path))
    with Workspace(tmp_path, prefix="x") as output:
        _check_room(kit, output, 1, copy=True)  # type: ignore[arg-type]
        with pytest.raises(MlwfError, match=r"not enough space in .*MLWF_CACHE"):
            _check_room(kit, output, 1 << 60, copy=False)  # type: ignore[arg-type]


def test_the_base_step_tells_how_many_bytes_there_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    (tmp_path / "apptainer").write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "apptainer version 1.4.5"; exit; fi\necho "FATAL: no build" >&2\nexit 1\n'
    )
    serve(manifest_of(1000, 24))
    for name, content in package_files({"code/predict.py": None}).items():
        (tmp_path / "package").mkdir(exist_ok=True)
        (tmp_path / "package" / name).write_bytes(content)
    asked = ("--model-pkg-url", str(tmp_path / "package"), "--no-https", "--base-container-url", f"docker://{address}/python:3", "--json")
    status, _out, err = run_command(monkeypatch, tmp_path, *asked)
    assert status == 1
    assert "no build" in err
    (log,) = tmp_path.glob("MLWFCreateImage_*.log")
    assert f"The build log is {log}." in json.loads(err.splitlines()[-1])["cure"], "the hidden folder with it is gone"
    assert "FATAL: no build" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".MLWFCreateImage_*"))
    begun = [json.loads(line) for line in err.splitlines() if '"begins"' in line]
    assert [each["total"] for each in begun if each["step"] == "base"] == [None, 4096]
