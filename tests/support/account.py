"""Be another account for a while, in this process: tests of what must work without root."""

import codecs
import contextlib
import os
from collections.abc import Iterator

ACCOUNT = 64321
"""A uid and gid that no account of the machine has."""


@contextlib.contextmanager
def service_account(*groups: int) -> Iterator[int]:
    """This process is `ACCOUNT` with these groups, and has no right of root. Modules that are imported meanwhile must be readable by it:
    import them before.
    """
    for name in ("ascii", "latin-1", "idna", "utf-8-sig"):
        codecs.lookup(name)
    mine = os.getgroups()
    os.setgroups([ACCOUNT, *groups])
    os.setegid(ACCOUNT)
    os.seteuid(ACCOUNT)
    try:
        yield ACCOUNT
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(mine)
