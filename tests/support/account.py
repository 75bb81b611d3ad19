"""Be another account for a while, in this process: tests of what must work without root."""

import codecs
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

ACCOUNT = 64321
"""A uid and gid that no account of the machine has."""


@contextlib.contextmanager
def service_account(*groups: int) -> Iterator[int]:
    """This process is `ACCOUNT` with these groups, and has no right of root. Modules that are imported meanwhile must be readable by it:
    import them before.
    """
    for name in ("ascii", "latin-1", "idna", "utf-8-sig"):
        codecs.lookup(name)
    with account(ACCOUNT, ACCOUNT, *groups):
        yield ACCOUNT


@contextlib.contextmanager
def account(uid: int, *groups: int) -> Iterator[None]:
    """This process has that uid, the gid of the same number and these groups. All its threads have, so be quick."""
    mine = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(mine)


@contextlib.contextmanager
def folder_of(uid: int) -> Iterator[Path]:
    """A folder of that account's, gone afterwards. It does not reach those of pytest, which are below one of root's."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, uid, uid)
        yield Path(name)
