"""The host's firewall guards the servers' ports also where Docker publishes them: rewritten packets never come to `input`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "deploy" / "nftables" / "aihub.nft"
PORT = 21000
PUBLISHED = f"""table ip nat {{
    chain pre {{
        type nat hook prerouting priority -100
        tcp dport {PORT} dnat to 192.0.2.2:{PORT}
    }}
}}
"""
LISTEN = f"import socket; s = socket.create_server(('192.0.2.2', {PORT})); print('listens', flush=True); [s.accept() for _ in range(9)]"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in map(shutil.which, ("nft", "ip")), reason="network namespaces and nft are root's"
)


def _run(*argv: str, text: str | None = None, check: bool = True) -> int:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=check).returncode


class Hosts:
    """The service's host between two clients and one container, each a network namespace."""

    def __init__(self) -> None:
        self._names = {name: f"aihub{os.getpid()}{name}" for name in ("host", "inside", "outside", "box")}

    def on(self, name: str, *argv: str, text: str | None = None, check: bool = True) -> int:
        return _run("ip", "netns", "exec", self._names[name], *argv, text=text, check=check)

    def make(self) -> None:
        for name in self._names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for name, network in (("inside", "10.9.8"), ("outside", "203.0.113"), ("box", "192.0.2")):
            host, other = self._names["host"], self._names[name]
            _run("ip", "-n", host, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", other)
            for where, link, address in ((host, f"to-{name}", 1), (other, "eth0", 2)):
                _run("ip", "-n", where, "addr", "add", f"{network}.{address}/24", "dev", link)
                _run("ip", "-n", where, "link", "set", link, "up")
            _run("ip", "-n", other, "route", "add", "default", "via", f"{network}.1")
        self.on("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.on("host", "nft", "-f", "-", text=PUBLISHED)

    def reaches(self, name: str, address: str) -> bool:
        return self.on(name, sys.executable, "-c", CONNECT, address, str(PORT), check=False) == 0

    def listener(self) -> "subprocess.Popen[str]":
        argv = ["ip", "netns", "exec", self._names["box"], sys.executable, "-c", LISTEN]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def remove(self) -> None:
        for name in self._names.values():
            _run("ip", "netns", "del", name, check=False)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.make()
        with made.listener() as listener:
            assert listener.stdout
            assert listener.stdout.readline() == "listens\n"
            yield made
            listener.kill()
    finally:
        made.remove()


def test_only_the_cluster_reaches_a_published_port(hosts: Hosts) -> None:
    assert hosts.reaches("inside", "10.9.8.1")
    assert hosts.reaches("outside", "203.0.113.1"), "without the rules it is open: else this test shows nothing"
    hosts.on("host", "nft", "-f", str(RULES))
    assert hosts.reaches("inside", "10.9.8.1")
    assert not hosts.reaches("outside", "203.0.113.1")
