"""Free TCP ports on loopback, outside the range from which the kernel serves outgoing connections."""

import random
import socket
from pathlib import Path

from demo.errors import DemoError

LOOPBACK = "127.0.0.1"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 12000
_chooser = random.SystemRandom()
_share = (0, 1)


def draw_from_share(number: int, of: int) -> None:
    """From now on draw from share `number` (0, 1, …) of `of` equal ones: processes with other shares never draw the same port."""
    global _share  # noqa: PLW0603 (the process's own, said once)
    _share = (number, of)


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
    span = _span()
    for _ in range(count * 200):
        if len(found) == count:
            return list(found)
        port = _chooser.choice(span)
        if is_free(port):
            found.add(port)
    raise DemoError(f"no {count} free ports between {span[0]} and {span[-1]} on {LOOPBACK}: stop what holds them")


def free_range(length: int) -> int:
    """The first port of a run of `length` ports that are all free now.

    Raises:
        DemoError: there is no such run.
    """
    span = _span()
    for _ in range(400):
        first = _chooser.choice(span[: 1 - length or None])
        if all(is_free(port) for port in range(first, first + length)):
            return first
    raise DemoError(f"no {length} free ports in a row between {span[0]} and {span[-1]} on {LOOPBACK}: stop what holds them")


def _span() -> range:
    """What is drawn from."""
    number, of = _share
    length = (_ephemeral_start() - _LOWEST) // of
    return range(_LOWEST + number * length, _LOWEST + (number + 1) * length)


def _ephemeral_start() -> int:
    if _RANGE_FILE.exists():
        return max(int(_RANGE_FILE.read_text().split()[0]), _LOWEST + 2000)
    return 32768
