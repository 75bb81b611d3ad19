"""Builds of the PyTorch family: one for each kind of GPU, in an index of its own, which uv has to be told."""

import re
from collections.abc import Iterable, Mapping, MutableMapping

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.image.model.requirements import Requirements, plain

BACKEND = "UV_TORCH_BACKEND"
TAG = r"cpu|xpu|cu[0-9]{2,3}|rocm[0-9.]+"
# For these uv asks PyTorch's index, where it is told a backend, and no other one.
FAMILY = frozenset({
    "torch", "torchvision", "torchaudio", "torchtext", "torchcodec", "torchao", "torchrec", "torchserve", "torchtune", "torch-tensorrt",
    "triton", "triton-rocm", "triton-xpu", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "xformers",
    "fbgemm-gpu", "fbgemm-gpu-genai",
})  # fmt: skip
# The builds' versions end with their kind.
BUILD = re.compile(rf"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)[^;]*==\s*[^+;\s]+\+(?P<tag>{TAG})")
INDEX = re.compile(rf"https://download\.pytorch\.org/whl/(?P<tag>{TAG})/?")


def recorded_backend(requirements: Requirements) -> str:
    """What uv calls the builds of PyTorch that the model recorded, such as cu128; empty where it recorded none. Raises MlwfError."""
    found = [match for line in (*requirements.packages, *requirements.constraints) if (match := BUILD.match(line))]
    tags = {match["tag"] for match in found if plain(match["name"]) in FAMILY}
    if len(tags) > 1:
        raise MlwfError(
            _("The model's packages are built for different GPUs"),
            ", ".join(sorted(tags)),
            _("Log it from an environment whose packages are all built for the same GPU."),
        )
    return tags.pop() if tags else ""


def index_backend(name: str, registry: str) -> str:
    """Of which builds PyTorch's index `registry` is, for a package that uv takes from there by itself; else empty."""
    match = INDEX.fullmatch(registry) if plain(name) in FAMILY else None
    return match["tag"] if match else ""


def chosen_backend(environ: Mapping[str, str], backend: str) -> str:
    """The model's own `backend` goes before a site's or user's choice, which is for models that do not say. Where that is set and empty,
    PyTorch comes from the indexes like all else: from a mirror in UV_INDEX, say.
    """
    choice = environ.get(BACKEND)
    return "" if choice == "" else backend or choice or ""


def tell_backend(environ: MutableMapping[str, str], backend: str) -> None:
    chosen = chosen_backend(environ, backend)
    if chosen:
        environ[BACKEND] = chosen


def told_backend(environ: Mapping[str, str], packages: Iterable[tuple[str, str]]) -> str:
    """Which builds uv was told of, where some of `packages` (names and versions) are of the family; else empty."""
    family = [version for name, version in packages if plain(name) in FAMILY]
    told = environ.get(BACKEND, "") if family else ""
    if told != "auto":
        return told
    # It looked for a GPU on this machine; whoever installs the lock elsewhere needs what it found.
    tags = {tag for version in family if re.fullmatch(TAG, tag := version.partition("+")[2])}
    return tags.pop() if len(tags) == 1 else ""
