"""Root may run the command too: what it makes in the state still belongs to the service's account, which alone can use it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Where root runs this, act as the account that the folder belongs to; a folder that is not there yet will be root's own."""
    if os.geteuid() != 0 or not folder.exists():
        yield
        return
    owner, group = folder.stat(), os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def give_to_owner(folder: Path, others: Iterable[Path] = ()) -> None:
    """Where root made what is in the folder, and ``others`` elsewhere, it belongs to the folder's account afterwards."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    for path in (*folder.rglob("*"), *others):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
