"""One image, from the model package to the finished, tested folder."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mlwf.errors import MlwfError, with_cure
from mlwf.file_server import link, rename
from mlwf.i18n import _
from mlwf.image import sif
from mlwf.image.allocation import bounded, megabytes, processors
from mlwf.image.aside import Aside
from mlwf.image.base.converted import INSPECT_OBJECT, canonical
from mlwf.image.cache import Cache, remove_tree
from mlwf.image.environment.install import Environments, make_or_fetch
from mlwf.image.environment.uv_program import uv_version
from mlwf.image.kit import Kit
from mlwf.image.model.kept import keep_package, kept_package
from mlwf.image.model.package import ModelPackage, fetch_package
from mlwf.image.model.sources import check_source
from mlwf.image.pack import open_to_readers, pack
from mlwf.image.plan import FORMAT, Plan, Wanted, look_up, make_plan
from mlwf.image.process import Runner, free_some_space
from mlwf.image.proof import NEEDS_GPU, Verdict, prove
from mlwf.image.recipe import ENV_SH, README
from mlwf.image.software_list import software_list
from mlwf.image.squash import Squash
from mlwf.image.steps import Meter, Reporter, Steps
from mlwf.image.tool import find_mksquashfs, find_tool
from mlwf.transfer.workspace import DIRECTORY_MODE, FILE_MODE, Workspace, check_space

PREFIX = "MLWFCreateImage_"
IMAGE, LOG = "container.simg", "build.log"
IMAGE_MODE = 0o750
SOFTWARE_OBJECT, PROVENANCE_OBJECT = "mlwf-software.cdx.json", "mlwf-provenance.json"
FICLONE = 0x40049409


@dataclass(frozen=True)
class Created:
    """What came of it. `folder`: None after --fetch-only; `cached`: the image was there already; `seconds`: by step."""

    folder: Path | None
    key: str
    size: int
    cached: bool
    verdict: Verdict | None
    seconds: dict[str, float]
    python: str


def create(wanted: Wanted, environ: Mapping[str, str], report: Reporter) -> Created:
    """Makes the folder and answers what it holds. Raises MlwfError; of what was made then, and after an interrupt, nothing is left.

    What the programs said stays at a failure, beside where the folder would be.
    """
    tool = find_tool(environ)
    check_source(wanted.package_url, wanted.checksum)
    squash = Squash(find_mksquashfs(environ, tool, wanted.compression), processors(environ), megabytes())
    cache = Cache.open(environ)
    source = kept_package(cache, wanted.package_url, environ) if wanted.offline else wanted.package_url
    with (
        Workspace(wanted.output, prefix=PREFIX) as workspace,
        _log_kept(workspace),
        _disk_errors(),
        (workspace.path / LOG).open("ab", buffering=0) as log,
    ):
        kit = Kit(tool, Runner(bounded(environ, squash.processors), log), squash, cache, Steps(report))
        found = look_up(kit, wanted)
        with kit.steps.step("package") as meter:
            package = _package(cache, wanted, source, environ, workspace.path / "model", meter)
        if package.warning:
            kit.warns(package.warning)
        with cache.work() as work, Aside(kit.runner, "base") as aside:
            plan = make_plan(kit, wanted, found, package, work, aside)
            if wanted.fetch_only:
                with kit.steps.step("environment") as meter:
                    _environments(kit, plan, wanted).fetch(plan.lock, work / "layer", offline=wanted.offline, meter=meter)
                plan.base.made()
                return Created(None, plan.key, 0, False, None, kit.steps.seconds, plan.python.version)
            image, cached = _image(kit, plan, wanted, work, workspace)
            target = workspace.path / IMAGE
            hand_out(image, target, copy=wanted.copy)
            verdict = _proof(kit, plan, package, target, work) if wanted.test else None
        _write_beside(workspace.path, plan, package, verdict)
        size = target.stat().st_size
        _open_modes(workspace.path)
        folder = workspace.publish()
    return Created(folder, plan.key, size, cached, verdict, kit.steps.seconds, plan.python.version)


def _package(cache: Cache, wanted: Wanted, source: str, environ: Mapping[str, str], into: Path, meter: Meter) -> ModelPackage:  # noqa: PLR0917
    """Unpacked into `into`; with --fetch-only, one that had to be fetched is kept in the cache."""
    with contextlib.ExitStack() as held:
        if wanted.fetch_only:
            source = held.enter_context(keep_package(cache, source, environ, meter, checked=bool(wanted.checksum)))
        return fetch_package(source, into, environ=environ, progress=meter, checksum=wanted.checksum, policy=wanted.policy)


def _environments(kit: Kit, plan: Plan, wanted: Wanted) -> Environments:
    return Environments(kit, plan.base, plan.python, only_wheels=not wanted.allow_source_builds)


def _image(kit: Kit, plan: Plan, wanted: Wanted, work: Path, output: Workspace) -> tuple[Path, bool]:
    """The image in the cache, made if need be, and whether it was there."""
    with kit.cache.lock(f"image-{plan.key}", waits=kit.steps.waits):
        kept = kit.cache.get("images", plan.key)
        if kept:
            plan.base.made()
            return kept, True
        layer = work / "mlwf"
        layer.mkdir()
        _check_room(kit, output, plan.base.size, copy=wanted.copy)
        with kit.steps.step("environment") as meter:
            make_or_fetch(_environments(kit, plan, wanted), plan.lock, layer, offline=wanted.offline, meter=meter)
            objects = _describe(kit, plan, layer)
            unpacked = open_to_readers(layer)
        made = work / IMAGE
        base = plan.base.made()
        total = base.partition.size + unpacked
        _check_room(kit, output, total, copy=wanted.copy)
        with kit.steps.step("pack", grows=made, total=total):
            pack(kit, base, layer, objects, made, identity=plan.key.encode())
            made.chmod(IMAGE_MODE)
            with ThreadPoolExecutor(1) as aside:
                aside.submit(remove_tree, layer)  # a second's work, while the image is hashed
                return kit.cache.put("images", plan.key, made), False


def _check_room(kit: Kit, output: Workspace, size: int, *, copy: bool) -> None:
    """Whether an image of `size` bytes fits into the cache, and into the output where that is elsewhere. Raises MlwfError."""
    together = kit.cache.root.stat().st_dev == output.path.stat().st_dev
    cure = _("Free some with 'mlwf cache prune', or choose another place with MLWF_CACHE.")
    check_space(kit.cache.root, 2 * size if copy and together else size, cure)
    if not together:
        output.check_space(size)


def _describe(kit: Kit, plan: Plan, layer: Path) -> list[sif.Described]:
    """Puts what explains the image into its /mlwf, and answers the objects before its squashfs."""
    if plan.python.folder:
        shutil.copytree(plan.python.folder, layer / "python", symlinks=True, copy_function=link_or_copy)
    packages = layer / "env/lib" / f"python{plan.python.version.rpartition('.')[0]}" / "site-packages"
    software = canonical(software_list(plan.lock, packages, base=plan.base.facts.source, digest=plan.base.facts.digest))
    (layer / "env.sh").write_text(ENV_SH)
    (layer / "README").write_text(README)
    (layer / "software.cdx.json").write_bytes(software)
    definition = plan.recipe.singularity(portable=True)
    provenance = _provenance(kit, plan)
    labels = {f"mlwf.{name}": str(value) for name, value in provenance.items()}
    inspected = plan.base.made().inspected["data"]
    assert isinstance(inspected, dict)  # noqa: S101  # load_base has read it
    attributes = dict(inspected["attributes"])
    attributes["labels"] = {**attributes["labels"], **labels}
    attributes["deffile"] = definition
    return [
        sif.Described(sif.DEFINITION, "", definition.encode()),
        sif.Described(sif.JSON, INSPECT_OBJECT, canonical({"data": {"attributes": attributes}, "type": "container"})),
        sif.Described(sif.JSON, PROVENANCE_OBJECT, canonical(provenance)),
        sif.Described(sif.JSON, SOFTWARE_OBJECT, software),
    ]


def _provenance(kit: Kit, plan: Plan) -> dict[str, str]:
    """What the image was made from and by; no time and no folder, so that the same inputs give the same bytes."""
    return {
        "base": plan.base.facts.source,
        "base-digest": plan.base.facts.digest,
        "python": plan.python.version,
        "python-wanted": plan.python_wanted,
        "python-origin": plan.python.origin,
        "lock-sha256": plan.lock.digest,
        "uv-lock": plan.lock.uv_lock or "none",
        "builder-format": FORMAT,
        "uv": uv_version(),
        "container-tool": f"{kit.tool.kind} {kit.tool.version}",
        "mksquashfs": f"{kit.squash.squasher.version} {' '.join(kit.squash.squasher.compressor)}",
    }


def _proof(kit: Kit, plan: Plan, package: ModelPackage, image: Path, work: Path) -> Verdict:
    """The verdict, remembered: the same model in the same image needs no second test on this user's account.

    What a shared layer says is no test of this user's, and what only a GPU can tell is asked again, on a node that may have one.
    """
    key = kit.cache.key("proof", FORMAT, plan.key, package.sha256)
    known = replace(kit.cache, layers=()).get("proofs", key)
    if known:
        return Verdict(**json.loads(known.read_bytes()))
    with kit.steps.step("proof"):
        verdict = prove(kit, image, package, work)
        if verdict.state != NEEDS_GPU:
            file = work / "verdict"
            file.write_text(json.dumps(verdict.as_json()))
            kit.cache.put("proofs", key, file)
    return verdict


def hand_out(image: Path, target: Path, *, copy: bool = False) -> None:
    """Gives the user the cached image: a clone where the file system can, else a hard link, else (or with `copy`) a copy.

    A hard link shares its bytes with the cache and with the user's other folders. Whoever changes it (signs it, say) changes those too;
    the cache finds out, and drops its own.
    """
    if not _clone(image, target) and (copy or not _link(image, target)):
        shutil.copyfile(image, target)
    target.chmod(IMAGE_MODE)


def _clone(image: Path, target: Path) -> bool:
    with image.open("rb") as source, target.open("xb") as clone:
        try:
            fcntl.ioctl(clone.fileno(), FICLONE, source.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def link_or_copy(source: str, target: str) -> None:
    """A hard link where that is possible: some file systems have none, others not so many of one file. Raises OSError."""
    if not _link(source, target):
        shutil.copy2(source, target)


def _link(image: Path | str, target: Path | str) -> bool:
    """A file of another owner (of the site's cache, say) is not linked: its mode, which is set afterwards, only that owner can change."""
    try:
        if Path(image).lstat().st_uid != os.geteuid():
            return False
        link(image, target)
    except OSError:
        return False
    return True


def _write_beside(folder: Path, plan: Plan, package: ModelPackage, verdict: Verdict | None) -> None:
    objects = sif.read_objects(folder / IMAGE)
    provenance = json.loads(objects[PROVENANCE_OBJECT]) | {"model-sha256": package.sha256, "model": package.name, "image-key": plan.key}
    provenance["conda-left-out"] = list(package.left_out)
    provenance["proof"] = verdict.as_json() if verdict else None
    files = {
        "Singularity": plan.recipe.singularity(),
        "Dockerfile": plan.recipe.dockerfile(),
        "requirements.lock": plan.lock.text,
        "software.cdx.json": objects[SOFTWARE_OBJECT].decode(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8", "surrogateescape")
    # What a model says may hold half a character: a backslash and its number are JSON for that.
    told = json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
    (folder / "provenance.json").write_text(told, "utf-8", "backslashreplace")


def _open_modes(folder: Path) -> None:
    """Folders 0750 and files 0640, as everything that these tools hand over; the image 0750."""
    for where, folders, names in os.walk(folder):
        for name in folders:
            Path(where, name).chmod(DIRECTORY_MODE)
        for name in names:
            file = Path(where, name)
            file.chmod(IMAGE_MODE if file == folder / IMAGE else FILE_MODE)


@contextlib.contextmanager
def _log_kept(workspace: Workspace) -> Iterator[None]:
    """Keeps the build log of a failure, once a program has run, and has the message name it."""
    log, kept = workspace.path / LOG, workspace.target.with_name(f"{workspace.target.name}.log")
    try:
        yield
    except MlwfError as error:
        with contextlib.suppress(OSError):  # the failure itself is what counts
            if log.stat().st_size:
                log.chmod(0o600)
                rename(log, kept)
                told = _("The build log is {file}.").format(file=kept)
                error.cure = with_cure(error.cure, told) if error.cure else told
        raise


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Says what the operating system's errors mean for the user."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        file = error.filename2 or error.filename  # of a copy, where it was to go
        raise MlwfError(
            _("The image cannot be written"),
            f"{error.strerror or error}{f' ({file})' if file else ''}",
            free_some_space() if full else _("Check the folder and its file system."),
        ) from error
