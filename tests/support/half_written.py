"""A database as a power cut leaves it in the middle of a transaction, for the tests."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROWS = 400
_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=DELETE")
database.execute("PRAGMA cache_size=4")  # so that half of it is in the file, and what takes it back beside it
database.execute("CREATE TABLE IF NOT EXISTS later (name TEXT, text TEXT)")
database.executemany("INSERT INTO later VALUES (?, ?)", [(str(number), "x" * 500) for number in range(200)])
for table in ("runs", "later"):
    database.execute(f"CREATE INDEX of_{table} ON {table} (name)")
database.execute("BEGIN")
for table in ("runs", "later"):
    database.execute(f"UPDATE {table} SET name = name || 'half'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def write_half(database: Path) -> Path:
    """Whoever writes there (without WAL) commits something, and is killed in the middle of the next transaction. The journal beside it."""
    done = subprocess.run([sys.executable, "-c", _WRITER, str(database)], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = database.with_name(f"{database.name}-journal")
    assert journal.read_bytes()[:4] == b"\xd9\xd5\x05\xf9", "one that SQLite would play back"
    return journal


def verdict_on(database: Path) -> str:
    """What SQLite says of it."""
    with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
        try:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)


def mode_of(database: Path) -> str:
    """Its journal mode."""
    with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
