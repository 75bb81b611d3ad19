"""A real munged for tests, with a key, socket and folders of its own; several of them are hosts of one realm, or of different ones."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.box import until

KEY_BYTES = 128


@contextmanager
def munged(key: bytes | None = None, *, clock: str | None = None) -> Iterator[Path]:
    """The socket of a munged with this key (default: a new one). `clock`: how far its clock is off, as `faketime` has it (`+1h`)."""
    home = Path(tempfile.mkdtemp(prefix="mg-", dir="/tmp"))
    process: subprocess.Popen[bytes] | None = None
    try:
        for name, mode in (("run", 0o755), ("own", 0o700)):
            (home / name).mkdir()
            (home / name).chmod(mode)  # whatever the umask: munged insists
        home.chmod(0o755)
        key_file, socket = home / "own" / "key", home / "run" / "s"
        key_file.touch(mode=0o600)
        key_file.write_bytes(key or new_key())
        files = {"key-file": key_file, "socket": socket, "pid-file": home / "run" / "pid", "log-file": home / "own" / "log"}
        options = [f"--{name}={path}" for name, path in {**files, "seed-file": home / "own" / "seed"}.items()]
        argv = ["setpriv", "--pdeathsig", "TERM", "munged", "--foreground", *options]
        process = subprocess.Popen([*(["faketime", "-f", clock] if clock else []), *argv], stdin=subprocess.DEVNULL, start_new_session=True)
        until(lambda: _answers(socket, process), what="munged")
        yield socket
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def credential(socket: Path, payload: str, *, uid: int, ttl: int = 0) -> str:
    """What `munge` makes for that uid alone."""
    argv = ["munge", f"--socket={socket}", f"--restrict-uid={uid}", f"--ttl={ttl}"]
    return subprocess.run(argv, input=payload, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _answers(socket: Path, process: "subprocess.Popen[bytes] | None") -> bool:
    assert process is not None
    assert process.poll() is None, f"munged ended with status {process.returncode}"
    if not socket.exists():
        return False
    done = subprocess.run(["munge", f"--socket={socket}", "--no-input"], capture_output=True, check=False, timeout=20)
    return done.returncode == 0
