"""Users and groups of a test's own: the programs that it starts see a copy of this machine's /etc, which real commands change."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ENTER = 'mount --bind "$0" /etc; exec "$@"'


@dataclass(frozen=True)
class OwnAccounts:
    """`home`: the folder with the copy in it."""

    home: Path

    @property
    def within(self) -> tuple[str, ...]:
        """What a command begins with (as root) that is to see these accounts in place of the machine's."""
        return "unshare", "--mount", "sh", "-ec", _ENTER, str(self.home / "etc")

    def add_group(self, name: str, gid: int) -> None:
        self._change("groupadd", "--gid", str(gid), name)

    def add_user(self, name: str, uid: int, *groups: str) -> None:
        """Their primary group is nogroup, as none of these."""
        self._change("useradd", "--uid", str(uid), "--gid", "nogroup", "--no-create-home", "--groups", ",".join(groups), name)

    def remove_from(self, group: str, user: str) -> None:
        self._change("usermod", "--remove", "--groups", group, user)

    def _change(self, command: str, *words: str) -> None:
        subprocess.run([command, "--prefix", self.home, *words], check=True, capture_output=True)


@contextmanager
def own_accounts() -> Iterator[OwnAccounts]:
    """Those of this machine, to be added to."""
    home = Path(tempfile.mkdtemp(prefix="accounts-", dir="/tmp"))
    try:
        shutil.copytree("/etc", home / "etc", symlinks=True)
        yield OwnAccounts(home)
    finally:
        shutil.rmtree(home)
