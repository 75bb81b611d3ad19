"""Writing a SIF: the file format of Apptainer and Singularity, as far as one squashfs with its descriptions needs it.

A SIF is a header of 128 bytes, 48 descriptors of 585 bytes from byte 4096 on, then the objects that they describe. Integers are little
endian. Everything here depends on its arguments only: the same objects give the same bytes.
"""

import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _

LAUNCH = b"#!/usr/bin/env run-singularity\n"
MAGIC = b"SIF_MAGIC"
HEADER = struct.Struct("<32s10s3s3s16s8q")
DESCRIPTOR = struct.Struct("<i?III7q128s384s")
DESCRIPTORS_AT = 4096
DESCRIPTORS = 48
DATA_AT = DESCRIPTORS_AT + DESCRIPTORS * DESCRIPTOR.size
PAGE = 4096
JSON_LIMIT = 16 << 20
DEFINITION, PARTITION, JSON = 0x4001, 0x4004, 0x4006
GROUP = 0xF0000001
SQUASHFS, SYSTEM_PARTITION = 1, 2
# The beginning of a squashfs, and what its bytes 20 and 21 say of zstd.
SQUASHFS_MAGIC, ZSTD_NUMBER = b"hsqs", b"\x06\x00"
ARCHITECTURES = {"386": b"01", "amd64": b"02", "arm": b"03", "arm64": b"04", "ppc64": b"05", "ppc64le": b"06", "riscv64": b"12"}
# 1980-01-01, the first moment that every archive format knows: SIFs of ours carry no clock of the machine that made them.
EPOCH = 315532800


@dataclass(frozen=True)
class Described:
    """A small object before the squashfs: its kind (DEFINITION or JSON), name and content."""

    kind: int
    name: str
    content: bytes


@dataclass(frozen=True)
class Partition:
    """Where the squashfs of a SIF is, in bytes, and for which processors."""

    offset: int
    size: int
    architecture: str


def partition_offset(objects: Sequence[Described]) -> int:
    """Where the squashfs starts when these objects stand before it: at the next whole page."""
    end = DATA_AT + sum(len(each.content) for each in objects)
    return -(-end // PAGE) * PAGE


def write_front(file: int, objects: Sequence[Described], *, size: int, architecture: str, identity: bytes) -> None:
    """Writes header, descriptors and objects into the open file, whose squashfs of `size` bytes is at `partition_offset` already.

    `identity`: what the image's UUID is made of. Raises MlwfError for processors that SIF has no number for.
    """
    arch = ARCHITECTURES.get(architecture)
    if arch is None:
        raise MlwfError(_("A SIF cannot be made for {architecture}").format(architecture=architecture), cure=_("Use another base image."))
    at, table = DATA_AT, b""
    for number, each in enumerate(objects, 1):
        table += _descriptor(each.kind, number, at, len(each.content), len(each.content), each.name)
        at += len(each.content)
    start = partition_offset(objects)
    extra = struct.pack("<ii4s", SQUASHFS, SYSTEM_PARTITION, arch)
    table += _descriptor(PARTITION, len(objects) + 1, start, size, start + size - at, extra=extra)
    free = DESCRIPTORS - len(objects) - 1
    head = HEADER.pack(
        LAUNCH, MAGIC, b"01", arch, uuid.uuid5(uuid.NAMESPACE_OID, identity.hex()).bytes, EPOCH, EPOCH,
        free, DESCRIPTORS, DESCRIPTORS_AT, DESCRIPTORS * DESCRIPTOR.size, DATA_AT, start + size - DATA_AT,
    )  # fmt: skip
    front = head.ljust(DESCRIPTORS_AT, b"\0") + table.ljust(DESCRIPTORS * DESCRIPTOR.size, b"\0")
    front += b"".join(each.content for each in objects)
    front = front.ljust(start, b"\0")
    while front:
        written = os.pwrite(file, front, start - len(front))
        front = front[written:]


def read_partition(path: Path) -> Partition:
    """The squashfs that a SIF starts with. Raises MlwfError when the file is no SIF that has one."""
    names = {number: name for name, number in ARCHITECTURES.items()}
    for kind, _name, offset, size, extra in _descriptors(path):
        if kind == PARTITION:
            filesystem, purpose, arch = struct.unpack_from("<ii4s", extra)
            if filesystem == SQUASHFS and purpose == SYSTEM_PARTITION and arch.rstrip(b"\0") in names:
                return Partition(offset, size, names[arch.rstrip(b"\0")])
    raise MlwfError(_("{file} is not a Singularity image (SIF) with a squashfs").format(file=path), cure=_("Name another base image."))


def is_packed_with_zstd(path: Path) -> bool:
    """Whether the squashfs of a SIF, or one that is the whole file, is; False for other files. Raises MlwfError for a SIF without one."""
    offset = read_partition(path).offset if _descriptors(path) else 0
    with path.open("rb") as file:
        superblock = os.pread(file.fileno(), 22, offset)
    return superblock[:4] == SQUASHFS_MAGIC and superblock[20:] == ZSTD_NUMBER


def read_objects(path: Path) -> dict[str, bytes]:
    """The named JSON objects of a SIF, by name. Raises MlwfError when the file is no SIF; none where it has none."""
    found = {}
    with path.open("rb") as file:
        for kind, name, offset, size, _extra in _descriptors(path):
            if kind == JSON and name:
                found[name] = os.pread(file.fileno(), min(size, JSON_LIMIT), offset)
    return found


def _descriptors(path: Path) -> list[tuple[int, str, int, int, bytes]]:
    """Kind, name, offset, size and particulars of each object; empty when the file is no SIF."""
    with path.open("rb") as file:
        front = file.read(DATA_AT)
    if len(front) < DATA_AT:
        return []
    _launch, magic, _version, _arch, _uuid, _created, _modified, _free, total, at, _length, _data, _size = HEADER.unpack_from(front)
    if magic.rstrip(b"\0") != MAGIC or not 0 < total <= DESCRIPTORS or not 0 < at <= DATA_AT - total * DESCRIPTOR.size:
        return []
    found = []
    for index in range(total):
        fields = DESCRIPTOR.unpack_from(front, at + index * DESCRIPTOR.size)
        if fields[1]:
            found.append((fields[0], fields[12].rstrip(b"\0").decode("ascii", "replace"), fields[5], fields[6], fields[13]))
    return found


def _descriptor(kind: int, number: int, at: int, size: int, padded: int, name: str = "", extra: bytes = b"") -> bytes:  # noqa: PLR0917
    # Owner 0 and no group link, as the tools themselves write them.
    return DESCRIPTOR.pack(kind, True, number, GROUP, 0, at, size, padded, EPOCH, EPOCH, 0, 0, name.encode(), extra)
