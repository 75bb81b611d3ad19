"""Free TCP ports on loopback, outside the range from which the kernel serves outgoing connections."""

import random
import socket
from pathlib import Path

from demo.errors import DemoError

LOOPBACK = "127.0.0.1"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 12000
_chooser = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of loopback (or of all addresses)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that are free now.

    They are drawn at random, so that several people on one machine seldom draw the same, and below the ephemeral range, so that a port
    that is kept for the next start is not taken by somebody's outgoing connection meanwhile.

    Raises:
        DemoError: no free ports were found.
    """
    found: set[int] = set()
    highest = _ephemeral_start() - 1
    for _ in range(count * 200):
        if len(found) == count:
            return list(found)
        port = _chooser.randint(_LOWEST, highest)
        if is_free(port):
            found.add(port)
    raise DemoError(f"no {count} free ports between {_LOWEST} and {highest} on {LOOPBACK}: stop what holds them")


def free_range(length: int) -> int:
    """The first port of a run of `length` ports that are all free now.

    Raises:
        DemoError: there is no such run.
    """
    highest = _ephemeral_start() - length
    for _ in range(400):
        first = _chooser.randint(_LOWEST, highest)
        if all(is_free(port) for port in range(first, first + length)):
            return first
    raise DemoError(f"no {length} free ports in a row between {_LOWEST} and {highest} on {LOOPBACK}: stop what holds them")


def _ephemeral_start() -> int:
    if _RANGE_FILE.exists():
        return max(int(_RANGE_FILE.read_text().split()[0]), _LOWEST + 2000)
    return 32768
