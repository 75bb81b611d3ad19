"""A throwaway PostgreSQL for heavy tests: an own cluster on a Unix socket in a folder of its own, run by an account that is not root."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534
PROGRAMS = Path("/usr/lib/postgresql")


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The SQLAlchemy address of an empty database `registry`."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    programs = max(PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name))
    try:
        os.chown(folder, NOBODY, NOBODY)
        _as_nobody(folder, programs / "initdb", "--pgdata=data", "--username=aihub", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        _as_nobody(folder, programs / "pg_ctl", "--pgdata=data", "--log=log", "--wait", f"--options={options}", "start")
        try:
            _as_nobody(folder, programs / "createdb", f"--host={folder}", "--username=aihub", "registry")
            yield f"postgresql+psycopg://aihub@/registry?host={folder}"
        finally:
            _as_nobody(folder, programs / "pg_ctl", "--pgdata=data", "--wait", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _as_nobody(folder: Path, *argv: str | Path) -> None:
    account = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # Into a file: the server would hold a pipe open.
    with (folder / "output").open("ab") as output:
        done = subprocess.run([*account, *argv], cwd=folder, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL,
                              stdout=output, stderr=output, check=False)  # fmt: skip
    assert done.returncode == 0, (folder / "output").read_text()
