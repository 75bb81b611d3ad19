"""How big a base image is, as its manifest tells."""

import functools
import json
import platform
from collections.abc import Callable
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.image.base.docker_reference import DIGEST, REFERENCE, DockerReference
from mlwf.image.base.source import BaseSource, document
from mlwf.image.kit import Kit

# What unpacking takes, and packing again. Layers are packed to a third or a little more (Debian with Python: 86 MB, 222 unpacked).
OF_LAYERS = 4
OF_FILE = 3
# An archive of layers is unpacked by us first.
OF_KIND = {"docker": OF_LAYERS, "oci": OF_LAYERS, "oci-archive": OF_LAYERS + 1}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def base_size(kit: Kit, source: BaseSource, digest: str = "", *, http: bool) -> int:
    """Bytes of the base's layers or file; 0 where nobody tells, as of an image in a library. `digest`: what it was pinned to, if it was."""
    reference = source.reference or _of_pulled(source)
    if reference:
        from mlwf.image.base.registry import registry_manifest

        ask = functools.partial(registry_manifest, reference, environ=kit.runner.environ, http=http)
        try:
            return layers_size(ask, digest or reference.digest or reference.tag)
        except MlwfError as error:  # a size is only for counting: whether the base can be had its fetching tells
            kit.runner.note(str(error))
            return 0
    if source.kind == "oci" and source.path:
        return layers_size(functools.partial(layout_manifest, source.path), digest)
    return source.path.stat().st_size if source.path and source.path.is_file() else 0


def _of_pulled(source: BaseSource) -> DockerReference | None:
    """Where a registry tells of an image that only the container tool fetches. To that the first part is the host, however it looks: no
    other registry is asked, which would get the user's login.
    """
    text = source.text.replace("oras", "docker", 1)
    if source.kind != "oras" or not REFERENCE.fullmatch(text):
        return None
    reference = DockerReference.parse(text)
    return reference if reference.host == text.removeprefix("docker://").partition("/")[0] else None


def layers_size(manifest_of: Callable[[str], bytes], digest: str) -> int:
    """Bytes of the layers as they are fetched; behind an index, of the image for this machine. 0 where the manifest does not tell.

    Raises what `manifest_of` raises.
    """
    for _level in ("index", "image"):
        content = manifest_of(digest)
        try:
            told = json.loads(content)
            if "layers" in told:
                return sum(max(0, int(each["size"])) for each in told["layers"])
            digest = next(str(each["digest"]) for each in told["manifests"] if is_for_this_machine(each.get("platform") or {}))
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return 0
        if not DIGEST.fullmatch(digest):
            return 0
    return 0


def layout_manifest(layout: Path, digest: str) -> bytes:
    """A manifest in a folder of the OCI image layout; empty where there is none."""
    try:
        return document(layout / "blobs" / digest.replace(":", "/"))
    except OSError:
        return b""


def is_for_this_machine(told: dict[str, object]) -> bool:
    """Whether that is what an index says of an image for this machine."""
    machine = platform.machine()
    return (told.get("os"), told.get("architecture")) == ("linux", ARCHITECTURES.get(machine, machine))
