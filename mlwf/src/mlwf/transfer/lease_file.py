"""A lease file says who works on something, and is renewed while its holder lives. It needs no locks of the file system (NFS, Lustre).

Two holders at once are possible where a file system loses an exclusive create or a holder stands still for minutes: whoever uses leases
must bear that. In the cache it costs double work, since entries appear by one rename.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlwf.file_server import rename

RENEW_SECONDS = 15.0
OVER_SECONDS = 180.0
AHEAD_SECONDS = 3600.0
"""How far a renewal may lie ahead of the file server's clock. One that lies further was made before that was set back, and no other since:
a dead holder would keep all others out until it is that late."""
LONGEST_PAUSE = 5.0
OVER = "{}"
"""What a lease says once its holder has let go: one that was moved meanwhile, and is put back, is known for what it is."""
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})


def whoami() -> dict[str, str | int]:
    """Names the process, so that another one on the same host can tell whether it lives."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        # Only within one PID namespace does a number mean the same process.
        "pids": _link("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


@contextlib.contextmanager
def hold(
    file: Path, *, waits: Callable[[], object] = lambda: None, pause: float = 0.1, keeps: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Holds the lease `file`, whose folder exists, until the end; waits for another holder, and tells `waits` once. Raises OSError.

    `keeps` is asked at the end: whether the file stays, as a lease that is over, for who looks later.

    A look is a dozen questions to a file server that many may ask at once: the pause between two begins with `pause` seconds and grows.
    """
    token = json.dumps({**whoami(), "token": secrets.token_hex(8)})
    told = False
    while (descriptor := _take(file, token)) is None:
        if is_over(file):
            _take_away(file)
            continue
        if not told:
            waits()
            told = True
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    ended = threading.Event()
    renewer = threading.Thread(target=_renew, args=(descriptor, ended), name="lease", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        ended.set()
        renewer.join()
        with contextlib.suppress(OSError):
            if _holds(file, token) and not keeps():
                file.unlink()
        _let_go(descriptor)


def is_over(file: Path, *, silent: float = OVER_SECONDS) -> bool:
    """Whether its holder is known to be dead, or has not renewed it for `silent` seconds. False for one that is gone."""
    try:
        text = file.read_text()
        age = server_time(file.parent) - file.stat().st_mtime
    except OSError:
        return False
    try:
        held = json.loads(text)
    except ValueError:
        held = None  # cut short with its host: its age decides
    if held == {}:
        return True
    me = whoami()
    if isinstance(held, dict) and held.get("pid") and all(held.get(name) == me[name] for name in ("host", "boot", "pids")):
        return bool(_started(int(held["pid"])) != held.get("started"))
    return not -max(AHEAD_SECONDS, silent) <= age <= silent


def _take(file: Path, token: str) -> int | None:
    """Makes the file with its content at once: a link either appears whole or not at all, on NFS too. The open file; None: another's."""
    mine = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = _create(mine, token)
    try:
        os.link(mine, file)
    except OSError as error:
        # A file server that was started anew is asked again, since its answer was lost: what it refuses then, it has done.
        if isinstance(error, FileExistsError) and _holds(file, token):
            return descriptor
        os.close(descriptor)
        if isinstance(error, FileExistsError):
            return None
        if error.errno not in NO_LINKS:
            raise
    else:
        return descriptor
    finally:
        mine.unlink(missing_ok=True)
    # For file systems without hard links. Whoever reads it before its content is there goes by its age.
    try:
        return _create(file, token)
    except FileExistsError:
        return None


def _create(file: Path, token: str) -> int:
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, token.encode())
    except BaseException:
        os.close(descriptor)
        file.unlink(missing_ok=True)
        raise
    return descriptor


def _holds(file: Path, token: str) -> bool:
    try:
        return file.read_text() == token
    except OSError:
        return False


def _let_go(descriptor: int) -> None:
    """Says so in the file itself, wherever somebody moved it; that it needs no room makes it work on a full disk."""
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, OVER.encode(), 0)
        os.ftruncate(descriptor, len(OVER))
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _take_away(file: Path) -> None:
    """Removes a lease that is over. Of several who try, one gets it; a fresh one that somebody took meanwhile is put back."""
    aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}.over")
    try:
        rename(file, aside)
    except FileNotFoundError:
        return
    if not is_over(aside):
        with contextlib.suppress(OSError):  # somebody has one already, or there are no links: work is done twice
            os.link(aside, file)
    aside.unlink(missing_ok=True)


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        with contextlib.suppress(OSError):  # a moment without the file server is no reason to give up
            os.utime(descriptor)


def server_time(folder: Path) -> float:
    """The file server's clock: this host's may differ from it, and from that of the host that renewed a lease. Raises OSError."""
    probe = folder / f".clock.{secrets.token_hex(8)}"
    try:
        probe.touch(0o600)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _started(pid: int) -> int:
    """When the process started, in the kernel's ticks; 0 when there is none, or only its exit status is left, which nobody asked for."""
    try:
        # The name, in parentheses, may hold anything; the fields after the last parenthesis are plain.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
