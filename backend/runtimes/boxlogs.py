"""What of a box's logs tells why something failed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from typing import Final

WENT_WELL: Final = " INFO request: "
"""In a line of ``mlflow.log`` for a request that MLflow answered (docs/reference/box.md)."""
_TAIL_BYTES: Final = 65536
_MOST_BYTES: Final = 64 * 1024**2


def telling(lines: Sequence[str]) -> list[str]:
    """All lines but those: they are many, and would leave no room for what went wrong."""
    return [line for line in lines if WENT_WELL not in line]


def tail_of(stream: Iterable[bytes], lines: int) -> list[str]:
    """The last telling lines of a tar archive's one file; none of an archive that ends early, as where the file is cut meanwhile. More than
    the logs' bound is not read: it may be anything.
    """
    held = io.BytesIO()
    for chunk in stream:
        held.write(chunk)
        if held.tell() > _MOST_BYTES:
            return []
    held.seek(0)
    try:
        text = _one_file(held)
    except tarfile.ReadError:
        return []
    return telling(text[-_TAIL_BYTES:].decode(errors="replace").splitlines())[-lines:]


def _one_file(held: io.BytesIO) -> bytes:
    with tarfile.open(fileobj=held) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isfile() else None
        return b"" if file is None else file.read()
