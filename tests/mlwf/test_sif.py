"""The file format of an image: a SIF is what its format says, and always the same."""

import struct
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image import sif


def write_sif(path: Path, objects: list[sif.Described], squashfs: bytes = b"hsqs" + b"s" * 9000) -> int:
    offset = sif.partition_offset(objects)
    path.write_bytes(b"\0" * offset + squashfs)
    with path.open("r+b") as file:
        sif.write_front(file.fileno(), objects, size=len(squashfs), architecture="amd64", identity=b"id")
    return offset


def test_a_sif_is_what_the_format_says(tmp_path: Path) -> None:
    objects = [sif.Described(sif.DEFINITION, "", b"Bootstrap: docker\n"), sif.Described(sif.JSON, "a.json", b'{"a": 1}')]
    offset = write_sif(tmp_path / "one.sif", objects)
    raw = (tmp_path / "one.sif").read_bytes()

    assert raw[:32] == b"#!/usr/bin/env run-singularity\n\0"
    assert raw[32:42] == b"SIF_MAGIC\0"
    assert raw[42:48] == b"01\x0002\0"
    assert struct.unpack_from("<8q", raw, 64) == (sif.EPOCH, sif.EPOCH, 45, 48, 4096, 48 * 585, 32176, len(raw) - 32176)
    kind, used, number, group, link, at, size, padded = struct.unpack_from("<i?III3q", raw, 4096 + 2 * 585)
    assert (kind, used, number, group, link) == (0x4004, True, 3, 0xF0000001, 0)
    assert (at, size) == (offset, 9004)
    assert at - (padded - size) == 32176 + 18 + 8, "the padding fills what is between the objects and the page"
    assert offset % 4096 == 0
    assert raw[offset:] == b"hsqs" + b"s" * 9000
    assert sif.read_objects(tmp_path / "one.sif") == {"a.json": b'{"a": 1}'}
    assert sif.read_partition(tmp_path / "one.sif") == sif.Partition(offset, 9004, "amd64")


def test_the_same_objects_are_the_same_sif(tmp_path: Path) -> None:
    objects = [sif.Described(sif.JSON, "a.json", b"{}")]
    for name in ("one", "two"):
        write_sif(tmp_path / name, objects)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [b"", b"SIF_MAGIC", b"\0" * 40000, b"x" * 32 + b"SIF_MAGIC\0" + b"\xff" * 40000])
def test_what_is_no_sif_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(MlwfError, match="not a Singularity image"):
        sif.read_partition(tmp_path / "file")
    assert sif.read_objects(tmp_path / "file") == {}
