"""The parts of mlwf_create_image that need no container tool: addresses, programs, recipes, verdicts."""

import errno
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from mlwf.cli import create_image
from mlwf.errors import MlwfError, WrongUseError
from mlwf.image import sif
from mlwf.image.base.converted import canonical
from mlwf.image.base.docker_reference import DockerReference
from mlwf.image.base.source import parse_base, pin
from mlwf.image.create import PROVENANCE_OBJECT, SOFTWARE_OBJECT, _write_beside, hand_out, link_or_copy
from mlwf.image.environment.lock import Lock
from mlwf.image.pack import open_to_readers
from mlwf.image.plan import Wanted
from mlwf.image.process import Runner
from mlwf.image.proof import Verdict, judge, same
from mlwf.image.software_list import software_list
from mlwf.image.tool import Bind, find_mksquashfs, find_tool, parse_version

from tests.mlwf.image_parts import fake_tool, model, run_command

DIGEST = "sha256:" + "ab" * 32
LOCK = Lock("Six==1.17.0 \\\n    --hash=sha256:" + "1" * 64 + "\nnumpy==2.1.0 \\\n    --hash=sha256:" + "2" * 64 + "\n", "3.11.7")


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("docker://python", "docker://docker.io/library/python"),
        ("docker://python:3.11.7-slim", "docker://docker.io/library/python"),
        ("docker://pytorch/pytorch:2.8", "docker://docker.io/pytorch/pytorch"),
        ("docker://nvcr.io/nvidia/pytorch:25.01-py3", "docker://nvcr.io/nvidia/pytorch"),
        ("docker://localhost:5000/a/b:1", "docker://localhost:5000/a/b"),
        (f"docker://quay.io/a@{DIGEST}", "docker://quay.io/a"),
    ],
)
def test_addresses_of_registries(text: str, pinned: str) -> None:
    assert DockerReference.parse(text).pinned(DIGEST) == f"{pinned}@{DIGEST}"


@pytest.mark.parametrize(
    "text", ["", "-h", "docker://", "docker://Big/Name", "docker://a b", "docker://a;b", "http://x/y", "nofile.sif", "shub://a/b", "oci:",
             "a\nb", "docker-archive:/no/such.tar", "docker-daemon:", "library:x",
             "docker://a/../b", "docker://../b", "docker://foo//bar", "docker://foo/.bar", "docker://foo:tâg", "docker://foo___bar"],
)  # fmt: skip
def test_what_is_no_base_is_wrong_use(text: str) -> None:
    with pytest.raises(WrongUseError):
        parse_base(text)


@pytest.mark.parametrize(
    "text", ["docker://me:hunter2@reg.example/x:1", "oras://me:hunter2@reg.example/x:1", "library://hunter2@lib.example/e/c/n:1",
             "docker://me:hun/hunter2@reg.example/x", f"docker://me:hunter2@reg.example/x@{DIGEST}", "https://me:hunter2@reg.example/x"],
)  # fmt: skip
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(WrongUseError, match=r"holds a user name or password.*docker login") as caught:
        parse_base(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", [f"docker://reg.example/x@{DIGEST}", f"docker://x:1@{DIGEST}", f"oras://reg.example/x@{DIGEST}"])
def test_a_digest_is_no_password(text: str) -> None:
    assert parse_base(text).text == text


def test_bases_that_lie_here(tmp_path: Path) -> None:
    (tmp_path / "研究\u3000データ").mkdir()
    archive = tmp_path / "研究\u3000データ" / "a:b.tar"
    archive.write_bytes(b"content")
    for text in (f"docker-archive:{archive}", str(archive)):
        base = parse_base(text)
        assert (base.path, base.tag) == (archive, "")
        assert pin(base, {}, http=False, digest_of=lambda file: f"sha256:{file.name}").digest == "sha256:a:b.tar"


def test_where_a_link_leads_to_is_no_line_of_a_recipe(tmp_path: Path) -> None:
    other = tmp_path / "base\n%setup\n    touch evil"
    other.write_bytes(b"content")
    (tmp_path / "base.sif").symlink_to(other)
    with pytest.raises(WrongUseError, match=r"base\\n%setup"):
        parse_base(str(tmp_path / "base.sif"))


def test_an_oci_layout_names_one_image(tmp_path: Path) -> None:
    entry = {"mediaType": "m", "size": 1, "digest": DIGEST, "annotations": {"org.opencontainers.image.ref.name": "one"}}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    for text in (f"oci:{tmp_path}", f"oci:{tmp_path}:one"):
        assert pin(parse_base(text), {}, http=False, digest_of=str).digest == DIGEST
    with pytest.raises(MlwfError, match="two"):
        pin(parse_base(f"oci:{tmp_path}:two"), {}, http=False, digest_of=str)


def test_a_docker_daemon_that_is_not_there(tmp_path: Path) -> None:
    for address in (f"unix://{tmp_path}/docker.sock", "tcp://host:2375"):
        with pytest.raises(MlwfError, match="docker save"):
            pin(parse_base("docker-daemon:base:1"), {"DOCKER_HOST": address}, http=False, digest_of=str)


@pytest.mark.parametrize(
    ("said", "kind", "version"),
    [
        ("apptainer version 1.4.5\n", "apptainer", "1.4.5"),
        ("apptainer version 1.4.5-1.el9", "apptainer", "1.4.5-1.el9"),
        ("singularity-ce version 4.1.0", "singularity-ce", "4.1.0"),
        ("singularity-pro version 3.11-8.el8", "singularity-pro", "3.11-8.el8"),
        ("singularity version 3.8.7", "singularity", "3.8.7"),
    ],
)
def test_versions_of_the_tools(said: str, kind: str, version: str) -> None:
    assert parse_version(said) == (kind, version)


def test_which_tool_is_taken(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(MlwfError, match="Apptainer or Singularity"):
        find_tool(environ)
    fake_tool(tmp_path, "singularity", "singularity-ce version 4.1.0")
    assert find_tool(environ).kind == "singularity-ce"
    assert find_tool(environ).inside({"A": "1"}) == {"SINGULARITYENV_A": "1"}
    fake_tool(tmp_path, "apptainer", "apptainer version 1.3.0")
    assert find_tool(environ).inside({"A": "1"}) == {"APPTAINERENV_A": "1"}
    assert find_tool({**environ, "MLWF_CONTAINER_TOOL": "singularity"}).kind == "singularity-ce"
    fake_tool(tmp_path, "apptainer", "something else")
    with pytest.raises(MlwfError, match="something else"):
        find_tool(environ)
    (tmp_path / "apptainer").write_bytes(b"\x7fELF\2\1\1" + b"\0" * 60)
    with pytest.raises(MlwfError, match=r"does not run: Exec format error\. Load a module made for this node"):
        find_tool(environ)
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.4\n\tgzip (default)\n\txz")
    squasher = find_mksquashfs(environ, find_tool({**environ, "MLWF_CONTAINER_TOOL": "singularity"}))
    assert (squasher.version, squasher.compressor) == ("4.4", ("-comp", "gzip", "-Xcompression-level", "1"))


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_what_a_site_wishes_for_every_container_reaches_no_strangers_program(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\ncase $1 in --version) echo '{name} version 1.4.5';; *) echo \"$@\"; exec env;; esac\n")
    program.chmod(0o755)
    others = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": "/home/u", "APPTAINER_TMPDIR": "/local", "SINGULARITY_CACHEDIR": "/cache"}
    wishes = (
        "BIND",
        "BINDPATH",
        "MOUNT",
        "HOME",
        "OVERLAY",
        "WRITABLE",
        "ENV_FILE",
        "NV",
        "CONTAINLIBS",
        "DOCKER_PASSWORD",
        "TMPDIRS",
        "OCI",
    )
    asked = {f"{prefix}_{wish}": "/home" for prefix in ("APPTAINER", "SINGULARITY") for wish in wishes}
    proxies = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "all_proxy", "ftp_proxy", "no_proxy"), "http://proxy:3128")
    environ = {**others, **asked, **proxies, "APPTAINERENV_TOKEN": "hunter2", "SINGULARITYENV_TOKEN": "hunter2"}
    tool = find_tool(environ)
    binds = [Bind(tmp_path, "/there")]
    said = tool.run(Runner(environ), Path("/base.sif"), ["/bin/true"], "It fails", binds=binds, variables={"A": "1"})
    options, *variables = said.splitlines()
    contained = "--containall --no-home --cleanenv --pwd / --net --network none"
    assert options == f"--silent exec {contained} --bind {tmp_path}:/there:ro /base.sif /bin/true"
    given = dict(line.split("=", 1) for line in variables)
    native = {} if name == "apptainer" else {"SINGULARITY_NO_OCI": "1"}
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {each: given[each] for each in given.keys() - shells_own} == {**others, **native, f"{name.upper()}ENV_A": "1"}


def test_the_software_list(tmp_path: Path) -> None:
    info = tmp_path / "six-1.17.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: six\nVersion: 1.17.0\nLicense-Expression: MIT\n\ntext")
    os.truncate(info / "METADATA", 1 << 40)
    (tmp_path / "numpy-2.1.0.dist-info").mkdir()
    (tmp_path / "numpy-2.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.4\nName: numpy\nVersion: 2.1.0\n")
    listed = software_list(LOCK, tmp_path, base="base", digest=DIGEST)
    assert listed == software_list(LOCK, tmp_path, base="base", digest=DIGEST)
    components = {each["name"]: each for each in listed["components"]}  # type: ignore[attr-defined]
    assert components["Six"]["purl"] == "pkg:pypi/six@1.17.0"
    assert components["Six"]["licenses"] == [{"expression": "MIT"}]
    assert "licenses" not in components["numpy"]
    address = "https://x.example/six-1.17.0-py3-none-any.whl"
    addressed = Lock(f"six @ {address} ; python_version > '3' \\\n    --hash=sha256:" + "1" * 64 + "\n", "3.11.7")
    assert [(each.name, each.address, each.hashes) for each in addressed.packages] == [("six", address, ("1" * 64,))]
    (*_others, six) = software_list(addressed, tmp_path, base="base", digest=DIGEST)["components"]  # type: ignore[misc]
    assert (six["name"], six["version"]) == ("six", "1.17.0")
    assert six["purl"] == "pkg:pypi/six@1.17.0?download_url=https%3A%2F%2Fx.example%2Fsix-1.17.0-py3-none-any.whl"
    assert components["base"]["version"] == DIGEST
    for each in (listed, software_list(addressed, tmp_path, base="base", digest=DIGEST)):
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(each)) is None, "the standard's own schema"


def test_the_software_list_has_what_is_installed(tmp_path: Path) -> None:
    """A lock also has what is for other systems, and several versions of a package, each for some of them."""
    for name, version in (("below", "1.5"), ("zope.interface", "8.0-1")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    locked = ["below==1.4 ; python_full_version < '3.11'", "below==1.5 ; python_full_version >= '3.11'", "zope-interface==8.0.post1"]
    locked += ["pywin32==3.0 ; sys_platform == 'win32'", "other @ https://x.example/other-1-py3-none-any.whl ; sys_platform == 'win32'"]
    lock = Lock("".join(f"{each} \\\n    --hash=sha256:{'1' * 64}\n" for each in locked), "3.11.7")
    listed = software_list(lock, tmp_path, base="base", digest=DIGEST)["components"]
    assert [(each["name"], each["version"]) for each in listed[2:]] == [("below", "1.5"), ("zope-interface", "8.0.post1")]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Traceback\nRuntimeError: Found no NVIDIA driver on your system.", "needs-gpu"),
        ("AssertionError: Torch not compiled with CUDA enabled", "needs-gpu"),
        ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "needs-gpu"),
        ("RuntimeError: 0 active drivers ([]). There should only be one.", "needs-gpu"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'nvidia-smi'", "needs-gpu"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/dev/nvidia0'", "needs-gpu"),
        ("ModuleNotFoundError: No module named 'pycuda'", None),
        ("OSError: [Errno 28] No space left on device", None),
        ("WARNING: cuda is not there\nValueError: bad input", None),
        ("InvalidArgumentError: Cannot assign a device: explicitly assigned to /device:GPU:0 but available devices are [ ]", "needs-gpu"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/mlwf-model/artifacts/gpu.bin'", None),
        ("PermissionError: [Errno 13] Permission denied: '/mlwf-model/artifacts/cuda.bin'", None),
        ("OSError: libcudart.so.12: cannot open shared object file: No such file or directory", None),
        # Of PyTorch 2.5.1 with packages of two CUDA versions.
        (("ImportError: /mlwf/env/lib/python3.11/site-packages/torch/lib/../../nvidia/cusparse/lib/libcusparse.so.12: undefined symbol: "
         "__nvJitLinkComplete_12_4, version libnvJitLink.so.12"), None),
        # Of transformers, for a model that is not in the image.
        ("OSError: nvidia/some-model does not appear to have a file named config.json.", None),
        # TensorFlow's, with which it goes on.
        (("E cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)\n"
         "ValueError: bad input"), None),
    ],
)  # fmt: skip
def test_failures_for_want_of_a_gpu(tmp_path: Path, text: str, state: str | None) -> None:
    result = {"state": "failed", "text": text}
    if state:
        assert judge(result, model(tmp_path), has_gpu=False).state == state
    else:
        with pytest.raises(MlwfError, match=re.escape(text.splitlines()[-1])):
            judge(result, model(tmp_path), has_gpu=False)
    with pytest.raises(MlwfError):
        judge(result, model(tmp_path), has_gpu=True)


def test_the_recorded_answer_is_compared(tmp_path: Path) -> None:
    assert judge({"state": "loaded"}, model(tmp_path), has_gpu=False).state == "loaded"
    answered = {"state": "answered", "text": '{"predictions": [1.0000000001, "a", null]}'}
    assert judge(answered, model(tmp_path), has_gpu=False).compared is False
    (tmp_path / "expected_output.json").write_text('{"predictions": [1, "a", null]}')
    assert judge(answered, model(tmp_path), has_gpu=False).compared is True
    (tmp_path / "expected_output.json").write_text('{"predictions": [1.1, "a", null]}')
    with pytest.raises(MlwfError, match="differs from the one recorded"):
        judge(answered, model(tmp_path), has_gpu=False)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [(1, 1.0000000001, True), (1, 1.01, False), (True, 1, False), ([1], [1, 2], False), ({"a": [0]}, {"a": [0.0]}, True), ("a", "a", True),
     (float("nan"), float("nan"), True), ({"a": 1}, {"b": 1}, False)],
)  # fmt: skip
def test_answers_that_are_the_same(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal


def test_half_a_character_of_a_models_ends_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON and YAML write any (`model_id: "\\ud83d"`), and no file can have it: a build that was done ended there."""
    monkeypatch.setattr(sif, "read_objects", lambda _image: {PROVENANCE_OBJECT: b"{}", SOFTWARE_OBJECT: b"{}"})
    recipe: Any = SimpleNamespace(singularity=lambda: "from: /caf\udce9\n", dockerfile=lambda: "")
    plan: Any = SimpleNamespace(key="key", recipe=recipe, lock=SimpleNamespace(text=""))
    package: Any = SimpleNamespace(name="\ud83d é", sha256="", left_out=("\udce9=1",))
    log = io.BytesIO()
    Runner({}, log).note("/caf\udce9")
    Runner({}, log).note("\ud83d é")
    assert log.getvalue() == b"/caf\xe9\n\\ud83d \xc3\xa9\n"
    _write_beside(tmp_path, plan, package, Verdict("answered", text="\ud83d"))
    provenance = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert (provenance["model"], provenance["conda-left-out"], provenance["proof"]["text"]) == ("\ud83d é", ["\udce9=1"], "\ud83d")
    assert "é" in (tmp_path / "provenance.json").read_text("utf-8")
    assert (tmp_path / "Singularity").read_bytes() == b"from: /caf\xe9\n"
    assert json.loads(canonical({"label": "\ud83d é"})) == {"label": "\ud83d é"}


@pytest.mark.parametrize("copy", [False, True])
def test_the_image_is_handed_out(tmp_path: Path, copy: bool) -> None:
    kept, target = tmp_path / "kept", tmp_path / "container.simg"
    kept.write_bytes(b"image" * 1000)
    hand_out(kept, target, copy=copy)
    assert target.read_bytes() == kept.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o750
    if copy:
        assert target.stat().st_ino != kept.stat().st_ino


def test_a_python_is_put_into_the_image_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python/bin").mkdir(parents=True)
    program = tmp_path / "python/bin/python3"
    program.write_text("program")
    program.chmod(0o755)
    shutil.copytree(tmp_path / "python", tmp_path / "linked", copy_function=link_or_copy)
    assert (tmp_path / "linked/bin/python3").stat().st_ino == program.stat().st_ino

    def link(_source: object, _target: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    shutil.copytree(tmp_path / "python", tmp_path / "copied", copy_function=link_or_copy)
    assert (tmp_path / "copied/bin/python3").read_text() == "program"
    assert (tmp_path / "copied/bin/python3").stat().st_mode & 0o777 == 0o755


def test_what_belongs_to_another_account_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hard link, which some kernels allow, nobody but the owner could set the mode."""
    kept = tmp_path / "kept"
    kept.write_text("content")
    monkeypatch.setattr(os, "geteuid", lambda: kept.stat().st_uid + 1)
    link_or_copy(str(kept), str(tmp_path / "copied"))
    hand_out(kept, tmp_path / "image")
    assert [(tmp_path / name).read_text() for name in ("copied", "image")] == ["content"] * 2
    assert kept.stat().st_nlink == 1


def test_wrong_use_and_a_machine_without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--model-pkg-url", "m.tar.gz", "--base-container-url", "base.sif")
    assert run_command(monkeypatch, tmp_path, *asked[:2])[0] == 2
    assert run_command(monkeypatch, tmp_path, *asked, "--offline", "--fetch-only")[0] == 2
    status, out, err = run_command(monkeypatch, tmp_path, *asked)
    assert (status, out) == (1, "")
    assert "There is no Apptainer or Singularity on this machine. Load its module" in err
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    assert "このマシンで Apptainer または Singularity が見つかりません" in run_command(monkeypatch, tmp_path, *asked)[2]
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


def test_a_package_that_is_not_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    before = sorted(tmp_path.iterdir())
    status, out, err = run_command(monkeypatch, tmp_path, "--model-pkg-url", "/no/model.tar.gz", "--base-container-url", "base.sif")
    assert (status, out) == (2, "")
    assert "/no/model.tar.gz" in err
    assert [each for each in sorted(tmp_path.iterdir()) if each.name != "cache"] == before


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o644), (0o000, 0o644), (0o077, 0o600)])
def test_nobody_else_may_write_what_is_in_the_cache(umask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site's cache that was filled with the umask 002 was used by nobody, without a word: it might hold anything."""
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    (tmp_path / "base.tar").write_bytes(b"base")
    before = os.umask(umask)
    try:
        run_command(monkeypatch, tmp_path, "--model-pkg-url", str(tmp_path), "--base-container-url", f"docker-archive:{tmp_path}/base.tar")
    finally:
        os.umask(before)
    (known,) = (tmp_path / "cache/digests").iterdir()
    assert known.stat().st_mode & 0o777 == mode


def test_a_temporary_folder_is_named_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told to be no folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[Wanted] = []

    def create(wanted: Wanted, *_others: object) -> None:
        asked.append(wanted)
        raise MlwfError("enough")

    monkeypatch.setattr(create_image, "create", create)
    run_command(monkeypatch, tmp_path, "--model-pkg-url", "m.tar.gz", "--base-container-url", "base.sif", "--tmpdir", "here")
    assert [each.tmpdir for each in asked] == [tmp_path / "here"]


def test_whoever_runs_the_image_reads_all_of_it(tmp_path: Path) -> None:
    program, data, link = tmp_path / "layer" / "program", tmp_path / "layer" / "deep" / "data", tmp_path / "layer" / "link"
    data.parent.mkdir(parents=True, mode=0o700)
    program.touch(mode=0o700)
    data.touch(mode=0o600)
    link.symlink_to("/nonexistent/elsewhere")
    data.parent.parent.chmod(0o700)
    size = open_to_readers(tmp_path / "layer")
    assert size == sum(path.stat().st_size for path in (program, data))
    modes = [path.stat().st_mode & 0o777 for path in (data.parent.parent, data.parent, program, data)]
    assert modes == [0o755, 0o755, 0o755, 0o644]
    assert link.is_symlink()
