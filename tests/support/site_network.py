"""The network around a fresh host: a cable, and at its other end, in a namespace, one machine with the object store and the jobs."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

HOST, MACHINE = "10.1.2.3", "10.1.2.1"
"""The fresh host's address, as docs/howto/docker.md has it in `listen_address`, and the other machine's."""
_FILES = Path("/etc/netns")
"""What `ip netns exec NAME` shows a program as /etc is in a folder NAME of it."""


class SiteNetwork:
    """`names`: what HOST is called there."""

    def __init__(self, *names: str) -> None:
        self.name = f"aihub-site-{os.getpid()}"
        self.plug = f"up{os.getpid()}"
        self._files = _FILES / self.name
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        self._files.mkdir(parents=True)
        (self._files / "hosts").write_text(f"127.0.0.1 localhost\n{HOST} {' '.join(names)}\n")

    def connect(self) -> None:
        """Take the other end of the cable, named `plug`, that the host has brought at its start: a new one each time."""
        # After a power cut the kernel takes its time with the old one; gone already is fine.
        subprocess.run(["ip", "-n", self.name, "link", "delete", self.plug], capture_output=True, check=False)
        _ip("link", "set", self.plug, "netns", self.name)
        _ip("-n", self.name, "address", "add", f"{MACHINE}/24", "dev", self.plug)
        _ip("-n", self.name, "link", "set", self.plug, "up")

    def on_the_machine(self, *argv: str | Path) -> list[str]:
        """That command there, with this machine's files, as arguments for this machine."""
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def remove(self) -> None:
        shutil.rmtree(self._files, ignore_errors=True)
        with contextlib.suppress(OSError):  # others' are in it
            _FILES.rmdir()
        _ip("netns", "delete", self.name)


@contextlib.contextmanager
def site_network(*names: str) -> Iterator[SiteNetwork]:
    site = SiteNetwork(*names)
    try:
        yield site
    finally:
        site.remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
