"""What --base-container-url can name, and the digest that stands for its content."""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.image.base.docker_reference import DIGEST, DockerReference
from mlwf.line import is_one_line
from mlwf.transfer.tar_stream import DAMAGE

FORMS = "docker://…, docker-archive:FILE.tar, oci:FOLDER:TAG, oci-archive:FILE.tar, docker-daemon:NAME:TAG, library://…, oras://…, FILE.sif"
PULLED = ("library", "oras")
DAEMON_NAME = re.compile(r"(?:[\w.-]+:[0-9]{1,5}/)?[\w./-]+(?::[\w.-]+)?|sha256:[0-9a-f]{64}")
# Whatever stands before an @ there, unless a digest follows.
USER_INFO = re.compile(r"[a-z][a-z0-9+-]*://.*@(?!sha256:)", re.IGNORECASE)
MAX_DOCUMENT = 4 << 20
# What reading an index raises that is missing, damaged or an enemy's.
NO_IMAGE: tuple[type[Exception], ...] = (OSError, KeyError, TypeError, AttributeError, MlwfError, *DAMAGE)


@dataclass(frozen=True)
class BaseSource:
    """A base image as the user named it. `path` for what lies on this machine; `tag`: which image of it, empty where nothing is said."""

    text: str
    kind: str
    path: Path | None = None
    tag: str = ""
    reference: DockerReference | None = None

    @property
    def is_remote(self) -> bool:
        return self.path is None and self.kind != "docker-daemon"


@dataclass(frozen=True)
class Pinned:
    """A base image whose content can be named: what the container tool is given, and the digest. `exact`: the address holds it too.

    `size`: its bytes, where a Docker daemon has told them.
    """

    source: str
    digest: str
    exact: str
    size: int = 0


def parse_base(text: str) -> BaseSource:
    """Raises WrongUseError for what is no base image's address, OSError for a path of which this user may not know what is there."""
    if not text or not is_one_line(text) or text.startswith("-"):
        raise _unknown(text)
    if USER_INFO.match(text):
        raise WrongUseError(
            _("The address of the base image holds a user name or password, which others could read"),
            cure=_(
                "Write it without, and log in with 'docker login' or 'podman login', or set APPTAINER_DOCKER_USERNAME and "
                "APPTAINER_DOCKER_PASSWORD; for library:// with 'apptainer remote login'."
            ),
        )
    if text.startswith("docker://"):
        return BaseSource(text, "docker", reference=DockerReference.parse(text))
    scheme, colon, rest = text.partition(":")
    if colon and scheme in PULLED and rest.startswith("//") and len(rest) > 2:
        return BaseSource(text, scheme)
    if colon and scheme == "docker-daemon" and DAEMON_NAME.fullmatch(rest):
        return BaseSource(text, scheme)
    if colon and scheme in {"docker-archive", "oci-archive", "oci"}:
        name = _file_part(rest)
        return BaseSource(text, scheme, path=_existing(name, text), tag=rest.removeprefix(name).removeprefix(":"))
    if colon and re.fullmatch(r"[a-z][a-z0-9+-]*", scheme) and not Path(text).exists():
        raise _unknown(text)
    path = _existing(text, text)
    if not path.is_file():
        raise _unknown(text)
    return BaseSource(text, "sif", path=path)


def pin(base: BaseSource, environ: Mapping[str, str], *, http: bool, digest_of: Callable[[Path], str]) -> Pinned:
    """The base's digest, asked of its registry or daemon, or of `digest_of` its file. Raises MlwfError.

    What the container tool pulls by itself (library://, oras://) has no digest before it is a file: it is not pinned here.
    """
    if base.reference:
        # What speaks over a network is imported where it is used: a cached image on a local base shall not wait for it.
        from mlwf.image.base.registry import registry_digest

        digest = registry_digest(base.reference, environ, http=http)
        exact = base.reference.pinned(digest)
        return Pinned(exact, digest, exact)
    if base.kind == "docker-daemon":
        from mlwf.image.base.daemon import find_image

        digest, size = find_image(base.text.removeprefix("docker-daemon:"), environ)
        # By its id: a moment later, the name may mean another one.
        return Pinned(f"docker-daemon:{digest}", digest, base.text, size)
    assert base.path is not None  # noqa: S101  # the other kinds have a path
    if base.kind == "sif":
        return Pinned(str(base.path), digest_of(base.path), base.text)
    exact = f"{base.kind}:{base.path}"
    if base.kind in {"oci", "oci-archive"}:
        digest, alone = _oci_image(base)
        # Where there are several, the tools ask for the digest, and take no tag.
        return Pinned(exact, digest, exact if alone else f"{exact}@{digest}")
    if base.tag:
        _check_alone(base)
    return Pinned(exact, digest_of(base.path), exact)


def _file_part(rest: str) -> str:
    """The path in `path[:reference]`, where the path itself may hold colons."""
    parts = rest.split(":")
    for count in range(len(parts), 0, -1):
        if Path(":".join(parts[:count])).exists():
            return ":".join(parts[:count])
    return parts[0]


def _existing(name: str, text: str) -> Path:
    path = Path(name)
    if not name or not path.exists():
        raise WrongUseError(
            _("There is no base image {text}").format(text=text),
            _("{path} does not exist").format(path=name or "''"),
            _("A base image is one of: {forms}.").format(forms=FORMS),
        )
    found = path.resolve()
    if not is_one_line(str(found)):
        raise _unknown(str(found))  # where a link leads to stands in the recipes, on one line
    return found


def _unknown(text: str) -> WrongUseError:
    return WrongUseError(
        _("{text} is not a base image").format(text=repr(text)), cure=_("A base image is one of: {forms}.").format(forms=FORMS)
    )


def _oci_image(base: BaseSource) -> tuple[str, bool]:
    """The manifest's digest in a folder or an archive of the OCI image layout, and whether that holds no other image."""
    assert base.path is not None  # noqa: S101
    try:
        index = document(base.path / "index.json") if base.kind == "oci" else _member(base.path, "index.json")
        manifests = json.loads(index)["manifests"]
        annotations = [each.get("annotations") or {} for each in manifests]
        names = [{each.get("org.opencontainers.image.ref.name"), each.get("io.containerd.image.name")} for each in annotations]
        chosen = [each for each, known in zip(manifests, names, strict=True) if not base.tag or base.tag in known]
        if len(chosen) == 1 and DIGEST.fullmatch(chosen[0]["digest"]):
            return str(chosen[0]["digest"]), len(manifests) == 1
    except NO_IMAGE:
        pass  # what is told below holds for all of them
    raise no_one_image(base.path, base.tag)


def _check_alone(base: BaseSource) -> None:
    """The image that is asked for by name must be the archive's only one, whose digest stands for it: not every tool can choose."""
    assert base.path is not None  # noqa: S101
    try:
        (image,) = json.loads(_member(base.path, "manifest.json"))
        if _full_name(base.tag) in map(_full_name, image.get("RepoTags") or ()):
            return
    except NO_IMAGE:
        pass  # what is told below holds for all of them
    raise no_one_image(base.path, base.tag)


def _full_name(name: str) -> tuple[str, str, str]:
    reference = DockerReference.parse(f"docker://{name}")
    return reference.host, reference.name, reference.tag


def _member(archive: Path, name: str) -> bytes:
    """A small file of an archive; empty where there is none. Raises OSError and what tarfile raises."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.removeprefix("./") == name and member.isreg() and member.size <= MAX_DOCUMENT:
                content = tar.extractfile(member)
                return content.read() if content else b""
    return b""


def no_one_image(where: Path, tag: str = "") -> MlwfError:
    """A folder or archive does not hold the one image that it was named for."""
    return MlwfError(
        _("{folder} does not hold one image {tag}").format(folder=where, tag=tag or "''"),
        cure=_("Name a folder of the OCI image layout and a tag of it (oci:FOLDER:TAG), or a file that holds that image alone."),
    )


def document(file: Path) -> bytes:
    """An index or a manifest of a folder of the OCI image layout; empty where it is larger than any is. Raises OSError."""
    with file.open("rb") as content:
        data = content.read(MAX_DOCUMENT + 1)
    return data if len(data) <= MAX_DOCUMENT else b""


def file_digest(path: Path) -> str:
    """`sha256:…` of a file's content."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
