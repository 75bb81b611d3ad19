"""A box's guard as docs/reference/box.md has it, without nginx and MLflow: stands for the interpreter of an MLflow environment.

Called as `PYTHON -P -m tracking_server DIRECTORY`. A file `fake.json` beside `config/`, or beside this program, changes its ways:
`{"die": "why"}` ends it with status 1, `{"state": "failed", "reason": …}` answers so, `{"deaf": true}` ignores SIGTERM,
`{"mute": true}` answers nothing, `{"loud": "failed"}` is the state where what acts by itself is on.

Called as `PYTHON -P -m tracking_server.migrate DATABASE` it notes its version in the database; a file
`slow-migration` beside this program makes it wait first, `no-migration` makes it fail.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

if "tracking_server.migrate" in sys.argv:  # what stands for a migration; twice would not be the same
    environment = Path(sys.argv[0]).parent.parent.name
    if (Path(sys.argv[0]).parent / "no-migration").exists():
        sys.stderr.write("it begins\nno such table\n")
        sys.exit(1)
    if (Path(sys.argv[0]).parent / "slow-migration").exists():
        signal.sigwait([signal.SIGUSR1])
    with sqlite3.connect(sys.argv[-1]) as connection:
        connection.execute("CREATE TABLE schema (version TEXT)")
        connection.execute("INSERT INTO schema VALUES (?)", (environment.removeprefix("mlflow-"),))
    connection.close()
    sys.exit(0)
BOX = Path(sys.argv[-1])
CONFIG = ("keys.json", "s3/credentials", "settings.json", "users.json", "ticket_keys.json", "tokens.json", "revoked.json")


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ways = ways_now()
        answer = {
            "server_id": SETTINGS["server_id"],
            "state": ways["loud"] if "loud" in ways and SETTINGS.get("webhooks", True) else ways.get("state", "asleep"),
            "mlflow_version": "9.9.9",
            "reason": ways.get("reason"),
            "config": {name: replaced_at(name) for name in CONFIG},
        }
        body = json.dumps(answer).encode()
        self.send_response(503 if answer["state"] == "failed" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(HTTPServer):
    def server_bind(self) -> None:  # the standard one asks for the host's name
        self.socket.bind(self.server_address)


def ways_now() -> dict:
    """Of this box, else of all boxes of this environment."""
    files = [file for file in (BOX / "fake.json", Path(sys.argv[0]).parent / "fake.json") if file.exists()]
    return json.loads(files[0].read_text()) if files else {}


def replaced_at(name: str) -> int | None:
    file = BOX / "config" / name
    return file.stat().st_mtime_ns if file.exists() else None


def open_files() -> dict[str, str]:
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them is closed again
            found[link.name] = str(link.readlink())
    return found


def die(why: str) -> None:
    sys.stderr.write(why + "\n")
    sys.exit(1)


for folder in ("run", "log", "data", "tmp"):
    (BOX / folder).mkdir(mode=0o700, exist_ok=True)
os.chdir(BOX / "run")
lock = os.open("guard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    die("another guard runs here")
os.ftruncate(lock, 0)
os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
(BOX / "run" / "seen.json").write_text(
    json.dumps(
        {
            "environment": dict(os.environ),
            "descriptors": open_files(),
            "session": os.getsid(0),
            "umask": os.umask(0o077),
        }
    )
)
ways = ways_now()
if "die" in ways:
    die(ways["die"])
SETTINGS = json.loads((BOX / "config" / "settings.json").read_text())
address, _, port = SETTINGS["listen"].rpartition(":")
# a second process in a group of its own, as nginx and MLflow are: it holds the port, and outlives a guard that is killed
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    listener.bind((address, int(port)))
except OSError:
    die(f"port {port} is taken")
listener.listen()
(BOX / "run" / "nginx.conf").write_text(f"http {{\n    server {{\n        listen {address}:{port} backlog=4096;\n    }}\n}}\n")
out = os.open(BOX / "log" / "mlflow.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], process_group=0, pass_fds=[listener.fileno()], stdout=out, stderr=out
)
(BOX / "run" / "child.pid").write_text(str(child.pid))
is_new = not (BOX / "data" / "mlflow.db").exists()
database = sqlite3.connect(BOX / "data" / "mlflow.db")
if is_new:  # a copy that was put back stays without: a real box turns it on, and until then the service must do without it, too
    database.execute("PRAGMA journal_mode=WAL")
with database:
    database.execute("CREATE TABLE IF NOT EXISTS runs (name TEXT)")
database.close()


def end(*_: object) -> None:
    if not ways_now().get("deaf"):
        child.kill()
        child.wait()
        os._exit(0)


signal.signal(signal.SIGTERM, end)
with (BOX / "log" / "guard.log").open("a") as log:
    log.write("the guard runs\n")
if ways.get("mute"):
    signal.sigwait([signal.SIGUSR1])
server = Server((address, int(port)), Health, bind_and_activate=False)
server.socket.close()
server.socket = listener
server.serve_forever()
