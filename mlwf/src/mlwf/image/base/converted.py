"""The base image as a SIF in the cache: converted once for each content, the same bytes on every machine with the same tools."""

import json
import os
import platform
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image import sif
from mlwf.image.kit import Kit
from mlwf.image.process import Runner
from mlwf.image.squash import Squash
from mlwf.image.tool import Login

BASE_OBJECT = "mlwf-base.json"
INSPECT_OBJECT = "inspect-metadata.json"
# A path that no base may have: everything that we add is below it.
OURS = "mlwf"
MAX_META = 1 << 20
LABEL_DATE = "org.label-schema.build-date"
LABEL_FROM = "org.label-schema.usage.singularity.deffile.from"
ENVIRONMENT_HOOK = """\
#!/bin/sh
# The model's environment, where the image has one.
if [ -f /mlwf/env.sh ]; then . /mlwf/env.sh; fi
"""
RUNSCRIPT = """\
#!/bin/sh
# Runs the command that it is given, in the model's environment; without one it says what there is.
if [ $# -eq 0 ] && [ -f /mlwf/README ]; then exec cat /mlwf/README; fi
if [ $# -eq 0 ]; then exec /bin/sh; fi
exec "$@"
"""
# Beside its python3 a base may have others: Rocky 9 has 3.9 by that name, and 3.11 as python3.11. (No python3.11-config.)
PROBE = """\
uname -m
getconf GNU_LIBC_VERSION 2>/dev/null || echo none
for python in python3 /usr/local/bin/python3 /usr/bin/python3 /opt/conda/bin/python3 \
        /usr/local/bin/python3.[0-9] /usr/local/bin/python3.[0-9][0-9] /usr/bin/python3.[0-9] /usr/bin/python3.[0-9][0-9]; do
    command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import sys, venv; print("%d.%d.%d" % sys.version_info[:3], sys._base_executable or sys.executable)' 2>/dev/null || true
done
"""
# What a base says of its Python becomes part of paths here: nothing else is believed.
PYTHON = re.compile(r"(3\.[0-9]{1,2}\.[0-9]{1,2}) (/[A-Za-z0-9._+/-]{1,255})")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64"}


@dataclass(frozen=True)
class BaseFacts:
    """What must be known of a base to build on it. `glibc`: "2.36", empty where it has none; `pythons`: version → path in it."""

    source: str
    digest: str
    architecture: str
    glibc: str
    pythons: dict[str, str]


@dataclass(frozen=True)
class Base:
    """A converted base: the SIF, where its squashfs is, what `inspect` says of it, and the facts."""

    file: Path
    partition: sif.Partition
    inspected: dict[str, object]
    facts: BaseFacts


@dataclass(frozen=True)
class ComingBase:
    """A base of which the facts are known; its file may still be in the making. `made` waits for it, and raises what went wrong.

    `size`: about how many bytes it has, or will have; 0 where nobody knows yet.
    """

    facts: BaseFacts
    made: Callable[[], Base]
    size: int = 0


def load_base(file: Path) -> Base:
    """Reads a base that `convert` made. Raises MlwfError for another file."""
    objects = sif.read_objects(file)
    try:
        facts = BaseFacts(**json.loads(objects[BASE_OBJECT]))
        inspected = json.loads(objects[INSPECT_OBJECT])
    except (KeyError, ValueError, TypeError) as error:
        raise MlwfError(
            _("{file} is not a base image that this tool made").format(file=file), cure=_("Run 'mlwf cache prune --all' and try again.")
        ) from error
    return Base(file, sif.read_partition(file), inspected, facts)


@dataclass(frozen=True)
class Unpacked:
    """A base in the folder `root`, which programs can be run in. `started`: when its making began, by the clock that its files have."""

    root: Path
    facts: BaseFacts
    started: float


def unpack(
    kit: Kit, source: str, *, shown: str, named: str, digest: str, folder: Path, http: bool = False, login: Login | None = None
) -> Unpacked:
    """Makes `folder`/base from what the tool calls `source`, the user `shown`, and the labels `named`. Raises MlwfError."""
    started = _clock_of(folder)
    root = folder / "base"
    kit.tool.build_sandbox(kit.runner, source, root, shown=shown, tmpdir=folder, http=http, login=login)
    if os.path.lexists(root / OURS):
        raise MlwfError(
            _("The base image has a /{name} already").format(name=OURS), cure=_("Use a base image that was not made by this tool.")
        )
    return Unpacked(root, _probe(kit, root, named, digest), started)


def _clock_of(folder: Path) -> float:
    """What time it is for the files in the folder. A shared file system has another machine's clock, which may be behind."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        return Path(made).lstat().st_mtime


def pack_base(squash: Squash, runner: Runner, base: Unpacked, target: Path) -> None:
    """Makes the SIF `target` of it. Raises MlwfError."""
    facts = base.facts
    inspected = _prepare(base.root, facts.source)
    _settle(base.root, base.started)
    objects = [
        sif.Described(sif.DEFINITION, "", f"bootstrap: docker\nfrom: {facts.source}\n".encode()),
        sif.Described(sif.JSON, INSPECT_OBJECT, canonical(inspected)),
        sif.Described(sif.JSON, BASE_OBJECT, canonical(asdict(facts))),
    ]
    size = squash.create(runner, base.root, target, offset=sif.partition_offset(objects))
    with target.open("r+b") as file:
        sif.write_front(file.fileno(), objects, size=size, architecture=facts.architecture, identity=facts.digest.encode())


def canonical(value: object) -> bytes:
    """As JSON, the same bytes each time. Half a character (of a base's label) is a backslash and its number there."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def _probe(kit: Kit, root: Path, named: str, digest: str) -> BaseFacts:
    cure = _("Use a base image for this machine's processors ({machine}) that has /bin/sh, so none that is called distroless.")
    said = kit.tool.run(
        kit.runner, root, ["/bin/sh", "-c", PROBE], _("The base image cannot be run"), timeout=300,
        cure=cure.format(machine=platform.machine()),
    )  # fmt: skip
    lines = [*said.splitlines(), "", ""]
    architecture = MACHINES.get(lines[0].strip())
    libc = lines[1].removeprefix("glibc ").strip()
    if architecture is None:
        raise MlwfError(
            _("The base image is for an unknown processor: {machine}").format(machine=lines[0]), cure=_("Use another base image.")
        )
    pythons: dict[str, str] = {}
    for line in lines[2:]:
        match = PYTHON.fullmatch(line)
        if match:
            pythons.setdefault(match[1], match[2])
    return BaseFacts(named, digest, architecture, libc if libc[:1].isdigit() else "", pythons)


def _prepare(root: Path, named: str) -> dict[str, object]:
    """Puts our two hooks into the unpacked base, takes away what differs from run to run, and answers what `inspect` shall say."""
    meta = root / ".singularity.d"
    for place in (meta, meta / "env"):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise MlwfError(
                _("The base image cannot be used"),
                _("its {path} is not a folder").format(path=f"/{place.relative_to(root)}"),
                _("Use another base image."),
            )
    _write(meta / "env/92-mlwf.sh", ENVIRONMENT_HOOK)
    _write(meta / "runscript", RUNSCRIPT)
    _write(meta / "Singularity", f"bootstrap: docker\nfrom: {named}\n", 0o644)
    try:
        labels = json.loads(_own(meta / "labels.json"))
    except (OSError, ValueError):
        labels = {}
    labels = labels if isinstance(labels, dict) else {}
    labels = {str(name): str(value) for name, value in labels.items() if name != LABEL_DATE}
    labels[LABEL_FROM] = named
    _write(meta / "labels.json", json.dumps(labels, indent=1, sort_keys=True) + "\n", 0o644)
    scripts = sorted(each for each in (meta / "env").glob("*.sh") if each.name[:3] in {"10-", "90-", "92-"} and _own(each))
    attributes = {
        "labels": labels,
        "environment": {f"/.singularity.d/env/{each.name}": _own(each).decode("utf-8", "replace").rstrip("\n") for each in scripts},
        "runscript": RUNSCRIPT.rstrip("\n"),
    }
    return {"data": {"attributes": attributes}, "type": "container"}


def _own(path: Path) -> bytes:
    """What a small file of the base holds; of a link, which would lead to a file of this machine, nothing. Raises FileNotFoundError."""
    return path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size <= MAX_META else b""


def _write(path: Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # never through a link that the base put there
    path.write_text(text)
    path.chmod(mode)


def _settle(root: Path, started: float) -> None:
    """Gives what the conversion itself made or touched a fixed time; the base's own files keep theirs. And opens to us what must be read:
    the tools do so by --fix-perms, but not for a squashfs without a SIF around it.
    """
    for path in _tree(root):
        state = path.lstat()
        needed = 0o500 if stat.S_ISDIR(state.st_mode) else 0o400 if stat.S_ISREG(state.st_mode) else 0
        if needed & ~state.st_mode:
            path.chmod(stat.S_IMODE(state.st_mode) | needed)
        if state.st_mtime >= started - 2 and not stat.S_ISSOCK(state.st_mode):
            os.utime(path, (sif.EPOCH, sif.EPOCH), follow_symlinks=False)


def _tree(root: Path) -> Iterator[Path]:
    """Each folder comes before what is in it, and may be opened then."""
    yield root
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in folders):
            if not path.is_symlink():
                yield path
        for name in files:
            yield Path(folder, name)
