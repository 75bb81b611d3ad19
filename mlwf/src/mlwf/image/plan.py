"""What a build is made from, found out in the order that spares work: the base's address, package, base, Python, lock, and their key."""

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.file_server import state_of
from mlwf.i18n import _
from mlwf.image.aside import Aside
from mlwf.image.base import converted
from mlwf.image.base.converted import BaseFacts, ComingBase
from mlwf.image.base.given import check_opens, given, login_for
from mlwf.image.base.pulled import Pulled, pull
from mlwf.image.base.size import OF_FILE, OF_KIND, OF_LAYERS, base_size
from mlwf.image.base.source import PULLED, BaseSource, Pinned, file_digest, parse_base, pin
from mlwf.image.environment.install import INDEXES
from mlwf.image.environment.lock import BasePlatform, Lock, make_lock
from mlwf.image.environment.pythons import Python, PythonWishes, find_python
from mlwf.image.environment.pytorch import BACKEND
from mlwf.image.growth import Growth
from mlwf.image.kit import Kit
from mlwf.image.model.package import ModelPackage
from mlwf.image.model.requirements import Policy, without_passwords
from mlwf.image.recipe import Recipe
from mlwf.image.remembered import known_digest, of_address, recall, remember
from mlwf.image.steps import Meter
from mlwf.image.tempspace import find_tempspace, sweep_tempspace, temporary_folder
from mlwf.transfer.workspace import check_space

# Of what we write into an image, of what we make of a base, and of how packages are resolved. Raised with each change there: what an
# older mlwf has made is in the caches, and would be taken for it.
FORMAT, BASE_FORMAT, LOCK_FORMAT = "8", "8", "9"
LEAST_SPACE = 1 << 30
LAYERED = frozenset({"docker", "oci"})
# What else is remembered of an address: how the container tool itself calls what it fetched.
PULLED_AS = "pulled-as"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    package_url: str
    base_url: str
    output: Path
    tmpdir: Path | None = None
    test: bool = True
    offline: bool = False
    fetch_only: bool = False
    relock: bool = False
    allow_python_minor: bool = False
    allow_source_builds: bool = False
    allow_indexes: bool = False
    allow_urls: bool = False
    checksum: str = ""
    python_mirror: str = ""
    compression: str | None = None
    http_registry: bool = False
    copy: bool = False

    @property
    def policy(self) -> Policy:
        """What the model's requirements may ask for."""
        return Policy(indexes=self.allow_indexes, urls=self.allow_urls)


@dataclass(frozen=True)
class Found:
    """The base that the user named. `pinned`: None for what has no digest before it is fetched; `size`: its bytes, 0 where nobody tells."""

    source: BaseSource
    pinned: Pinned | None
    size: int = 0

    @property
    def room(self) -> int:
        """Bytes for unpacking it and packing it again; what a small base takes where its size is not known."""
        return max(OF_KIND.get(self.source.kind, OF_FILE) * self.size, LEAST_SPACE)


@dataclass(frozen=True)
class Plan:
    """All that decides the image's bytes; `key` names them. `python_wanted`: the version that the model recorded."""

    recipe: Recipe
    base: ComingBase
    python: Python
    python_wanted: str
    lock: Lock
    key: str


def look_up(kit: Kit, wanted: Wanted) -> Found:
    """What may be wrong with the base and is cheap to ask comes out before anything is fetched. Raises MlwfError."""
    source = _source(wanted.base_url)
    with kit.steps.step("look-up"):
        if source.kind == "sif" and source.path:
            check_opens(kit.tool, source.path)
        if source.kind in PULLED and not wanted.offline:
            if _pulled_before(kit, source):  # and mostly it is the same still
                return Found(source, None)
            found = Found(source, None, base_size(kit, source, http=wanted.http_registry))
            # The SIF is there twice for a moment: as the container tool's own cache has it, and as a file.
            cure = _("Free some with 'mlwf cache prune', or choose another place with MLWF_CACHE.")
            check_space(kit.cache.root, 2 * found.size, cure)
        else:
            pinned = _pin(kit, source, wanted)
            if kit.cache.get("bases", _base_key(kit, source, pinned)) or (wanted.offline and source.is_remote):
                return Found(source, pinned)
            found = Found(source, pinned, base_size(kit, source, pinned.digest, http=wanted.http_registry) or pinned.size)
        sweep_tempspace(kit.runner.environ, wanted.tmpdir)
        find_tempspace(kit.runner.environ, wanted.tmpdir, found.room)
    return found


def _source(text: str) -> BaseSource:
    """The base as the user named it, which may be read if it is a file or a folder. Raises MlwfError."""
    try:
        source = parse_base(text)
        if source.path:
            state_of(source.path)
    except OSError as error:
        raise MlwfError(
            _("The base image {file} cannot be opened").format(file=text),
            error.strerror or str(error),
            _("Check the permissions of the file and of the folders above it."),
        ) from error
    return source


def make_plan(kit: Kit, wanted: Wanted, found: Found, package: ModelPackage, folder: Path, aside: Aside) -> Plan:  # noqa: PLR0917
    """A base that is not in the cache is packed `aside`. Raises MlwfError."""
    source = found.source
    with kit.steps.step("base") as meter, _pinned(kit, found, folder, wanted) as pinned:
        known = found if found.pinned else replace(found, size=pinned.size)
        base = _base(kit, known, pinned, wanted, aside, meter)
    with kit.steps.step("python"):
        wishes = PythonWishes(wanted.allow_python_minor, wanted.python_mirror, wanted.offline)
        python = find_python(package.python, base, kit, wishes=wishes)
    with kit.steps.step("lock"):
        lock = _lock(kit, base, python, package, folder=folder, wanted=wanted)
        kit.runner.environ.update(lock.variables)
    mirror = without_passwords(wanted.python_mirror or kit.runner.environ.get("UV_PYTHON_INSTALL_MIRROR", ""))
    recipe = Recipe(source, pinned, python, not wanted.allow_source_builds, lock.variables, mirror, wanted.http_registry)
    key = _image_key(kit, base.facts, package.python, python, lock, recipe)
    return Plan(recipe, base, python, package.python, lock, key)


def _pin(kit: Kit, source: BaseSource, wanted: Wanted) -> Pinned:
    """The base's digest; without network, the one that the address had when it was last asked for."""
    remembered = of_address(kit, source)
    if wanted.offline and source.is_remote:
        try:
            digest, exact = recall(remembered)
        except FileNotFoundError:
            raise _not_fetched(kit, source.text) from None
        return Pinned(exact, digest, exact)
    pinned = pin(source, kit.runner.environ, http=wanted.http_registry, digest_of=lambda file: known_digest(kit, file))
    if source.is_remote:
        remember(remembered, f"{pinned.digest} {pinned.exact}")
    return pinned


@contextlib.contextmanager
def _pinned(kit: Kit, found: Found, folder: Path, wanted: Wanted) -> Iterator[Pinned]:
    """For what only the container tool can fetch: the fetched SIF, which is kept only as a converted base."""
    if found.pinned:
        yield found.pinned
        return
    text = found.source.text
    pulled = pull(kit, found.source, folder, _pulled_before(kit, found.source), http=wanted.http_registry)
    yield Pinned(str(pulled.file or text), pulled.digest, text, pulled.file.stat().st_size if pulled.file else 0)
    # What proved to be no base does not take the place of one that is kept.
    remember(of_address(kit, found.source), f"{pulled.digest} {text}")
    remember(of_address(kit, found.source, PULLED_AS), f"{pulled.digest} {pulled.entry}")
    if pulled.file:
        pulled.file.unlink(missing_ok=True)


def _pulled_before(kit: Kit, source: BaseSource) -> Pulled | None:
    """What was fetched from there, if a base that was made of it is kept."""
    try:
        digest, entry = recall(of_address(kit, source, PULLED_AS))
    except FileNotFoundError:
        return None
    kept = entry and kit.cache.get("bases", _base_key(kit, source, Pinned(source.text, digest, source.text)))
    return Pulled(digest, entry) if kept else None


def _base_name(source: BaseSource, pinned: Pinned) -> str:
    """How the labels call the base: the same wherever its file lies."""
    return pinned.exact if source.reference else f"{source.kind}@{pinned.digest}"


def _base_key(kit: Kit, source: BaseSource, pinned: Pinned) -> str:
    """One digest may stand for an image of each kind of processor: what is taken of it is for this machine's."""
    return kit.cache.key("base", BASE_FORMAT, *_tools(kit), _base_name(source, pinned), pinned.digest, platform.machine())


def _image_key(kit: Kit, base: BaseFacts, python_wanted: str, python: Python, lock: Lock, recipe: Recipe) -> str:  # noqa: PLR0917
    """The recipe is in the image, and names the version of uv, whose scripts are in it, too."""
    made_of = (base.source, base.digest, base.architecture, python_wanted, python.version, python.origin, python.form, lock.digest)
    return kit.cache.key("image", FORMAT, *_tools(kit), *made_of, recipe.singularity(portable=True))


def _tools(kit: Kit) -> tuple[str, ...]:
    return kit.tool.kind, kit.tool.version, kit.squash.squasher.version, *kit.squash.squasher.compressor


def _base(kit: Kit, found: Found, pinned: Pinned, wanted: Wanted, aside: Aside, meter: Meter) -> ComingBase:  # noqa: PLR0917
    source = found.source
    named, key = _base_name(source, pinned), _base_key(kit, source, pinned)
    aside.held.enter_context(kit.cache.lock(f"base-{key}", waits=kit.steps.waits))
    file = kit.cache.get("bases", key)
    if file:
        aside.held.close()
        base = converted.load_base(file)
        return ComingBase(base.facts, lambda: base, base.partition.size)
    if wanted.offline and source.is_remote:
        raise _not_fetched(kit, source.text)
    if (
        source.kind in PULLED and not pinned.size
    ):  # not fetched, since it was here a moment ago; by itself the tool would build it unchecked
        raise MlwfError(_("The base image {source} was just removed from the cache").format(source=source.text), cure=_("Run it again."))
    place = aside.held.enter_context(temporary_folder(kit.runner.environ, wanted.tmpdir, found.room))
    meter.watches(Growth(place), OF_LAYERS * found.size if source.kind in LAYERED else None)
    what, login = given(source, pinned, place), login_for(source, kit.runner.environ)
    unpacked = converted.unpack(
        kit, what, shown=source.text, named=named, digest=pinned.digest, folder=place, http=wanted.http_registry, login=login
    )
    return _coming(kit, unpacked, key, aside, size=found.size if source.kind in {*LAYERED, *PULLED, "sif"} else 0)


def _coming(kit: Kit, unpacked: converted.Unpacked, key: str, aside: Aside, *, size: int) -> ComingBase:
    """What has been unpacked is enough to resolve and fetch the packages: meanwhile it is packed."""
    file = unpacked.root.with_name("base.sif")

    def packed() -> converted.Base:
        converted.pack_base(kit.squash, aside.runner, unpacked, file)
        return converted.load_base(kit.cache.put("bases", key, file))

    future = aside.start(packed)

    def made() -> converted.Base:
        if future.done():
            return future.result()
        with kit.steps.step("base-pack", grows=file):
            return future.result()

    return ComingBase(unpacked.facts, made, size)


def _lock(kit: Kit, base: ComingBase, python: Python, package: ModelPackage, *, folder: Path, wanted: Wanted) -> Lock:
    target = BasePlatform(base.facts.glibc, base.facts.architecture)
    environ = kit.runner.environ
    # An empty choice of PyTorch's builds is another one than none.
    indexes = [*(without_passwords(environ.get(name, "")) for name in INDEXES), BACKEND in environ]
    own = file_digest(package.uv_lock) if package.uv_lock else ""
    asked = (wanted.allow_source_builds, wanted.policy, own, *indexes, *package.requirements, "constraints", *package.wanted.constraints)
    key = kit.cache.key("lock", LOCK_FORMAT, target.as_uv(), python.version, *asked)
    kept = None if wanted.relock else kit.cache.get("locks", key)
    if kept:
        lock = Lock(kept.read_text(), python.version)
        if lock.uv_lock:
            kit.runner.note(f"The model's uv.lock: {lock.uv_lock}")
        return lock
    wheels = kit.cache.root / "wheels" / python.version.rpartition(".")[0]
    only_wheels = not wanted.allow_source_builds
    lock = make_lock(
        package, python.version, target, runner=kit.runner, cache=wheels, folder=folder, policy=wanted.policy, offline=wanted.offline,
        only_wheels=only_wheels,
    )  # fmt: skip
    file = folder / "lock"
    file.write_text(lock.text)
    kit.cache.put("locks", key, file)
    return lock


def _not_fetched(kit: Kit, text: str) -> MlwfError:
    squasher = kit.squash.squasher
    return MlwfError(
        _("The base image {text} is not in the cache, and --offline forbids fetching it").format(text=text),
        _("there is none for {tool} and {packer}").format(
            tool=f"{kit.tool.kind} {kit.tool.version}", packer=f"mksquashfs {squasher.version} ({squasher.compression})"
        ),
        _("Run the same command with --fetch-only on a node with internet first, which has the same versions of both."),
    )
