"""What the container tool is given for a base: the same image, in words that every tool understands."""

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image import sif
from mlwf.image.base.size import is_for_this_machine, layout_manifest
from mlwf.image.base.source import BaseSource, Pinned, no_one_image
from mlwf.image.tool import ContainerTool, Login
from mlwf.transfer.tar_stream import DAMAGE

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NOT_WHOLE: tuple[type[Exception], ...] = (OSError, *DAMAGE)
BLOB = re.compile(r"(?:\./)*(blobs/sha256/[0-9a-f]{64})")


def given(source: BaseSource, pinned: Pinned, place: Path) -> str:
    """What to give the tool. What must be unpacked or shown otherwise for it lies in the folder `place` then. Raises MlwfError.

    The tools differ in what they take: no tags in layouts, no names in archives, no layout whose image is behind an index.
    """
    if source.kind == "docker-archive" and source.path:
        view = place / "archive.tar"  # a path with a colon would be cut there
        view.symlink_to(source.path)
        return f"docker-archive:{view}"
    if source.kind == "oci" and source.path:
        return _one_image(source.path, pinned.digest, place / "layout")
    if source.kind == "oci-archive" and source.path:
        return _one_image(_unpacked(source.path, place / "unpacked"), pinned.digest, place / "layout")
    return pinned.source


def login_for(source: BaseSource, environ: Mapping[str, str]) -> Login | None:
    """The user's name and password for the base's registry, where there is one and they are known."""
    if not source.reference and source.kind != "oras":
        return None
    from mlwf.image.base.registry import registry_login  # speaks over a network, which a base in a file needs not wait for

    return registry_login(source.reference.host if source.reference else urlsplit(source.text).netloc, environ)


def check_opens(tool: ContainerTool, file: Path) -> None:
    """Raises MlwfError for an image that the tool refuses in words of its own: packed with zstd, or a SIF with no squashfs."""
    if sif.is_packed_with_zstd(file) and not tool.opens_zstd:
        raise MlwfError(
            _("The base image {file} cannot be opened").format(file=file),
            _("it is packed with zstd, which {tool} does not read").format(tool=f"{tool.kind} {tool.version}"),
            _("Have it made with gzip ('mlwf_create_image --compression gzip', or 'apptainer build' without --mksquashfs-args)."),
        )


def _one_image(layout: Path, digest: str, view: Path) -> str:
    """A folder that shows one image of a layout, the one for this machine where there are several; what to give the tool."""
    try:
        shown = _manifest_entry(layout, digest)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise no_one_image(layout) from error
    view.mkdir()
    (view / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [shown]}))
    (view / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (view / "blobs").symlink_to(layout / "blobs")
    return f"oci:{view}"


def _manifest_entry(layout: Path, digest: str) -> dict[str, object]:
    """How an index names the image's manifest, which `digest` names itself or by an index that does. Raises ValueError and its like."""
    for _level in ("index", "image"):
        content = layout_manifest(layout, digest)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise ValueError(digest)
        told = json.loads(content)
        if "manifests" not in told:
            return {"mediaType": told.get("mediaType") or MANIFEST, "digest": digest, "size": len(content)}
        digest = next(str(each["digest"]) for each in told["manifests"] if is_for_this_machine(each.get("platform") or {}))
    raise ValueError(digest)


def _unpacked(archive: Path, into: Path) -> Path:
    """The blobs of an archive of the OCI image layout, in a folder. Raises MlwfError for one that is not whole."""
    (into / "blobs/sha256").mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                blob = BLOB.fullmatch(member.name)
                content = tar.extractfile(member) if blob and member.isreg() else None
                if blob and content:
                    with (into / blob[1]).open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
    except NOT_WHOLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; those of bzip2 and gzip have none
        raise MlwfError(
            _("The base image {file} is not whole").format(file=archive), str(error), _("Copy it again, or save the image anew.")
        ) from error
    return into
