"""More than one worker: one that is told to end while they are made, and one that fails while another falls asleep."""

from pathlib import Path

from tests.box.parts import run
from tests.support.box import environment

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: it forks, and takes over the signals.
_TOLD_MEANWHILE = """
import os, signal
from tracking_server.mlflow_process import workers

usual, forked = workers.fork, []

def fork(work):
    forked.append(usual(work))
    if len(forked) == 2:
        os.kill(os.getpid(), signal.SIGTERM)  # before anybody has noted this one
    return forked[-1]

workers.fork = fork
status = workers.Workers(4, lambda number: signal.pause()).run()
print(status, len(forked))
"""
_FAILS_MEANWHILE = """
import os, sys, time
from tracking_server.mlflow_process.workers import Workers

reads, writes = os.pipe()

def serve(number):
    if number == 0:  # falls asleep; the other fails when it is gone
        return
    os.close(writes)
    os.read(reads, 1)
    sys.stderr.write("it fails\\n")
    os._exit(3)

# The pipe's last writer is the parent, which lets go of it once the first has ended.
waited = os.waitpid

def waitpid(*asked):
    found = waited(*asked)
    if found[0] and not ended:
        os.close(writes)
        ended.append(found[0])
    return found

ended = []
os.waitpid = waitpid
print(Workers(2, serve).run())
"""
_KILLED_MEANWHILE = """
import os, signal
from tracking_server.mlflow_process.workers import Workers

begun, begins = os.pipe()
waited_for, waits = os.pipe()

def serve(number):
    os.close(waits)
    if number == 0:
        os.read(begun, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.write(begins, b"x")
    signal.sigwait([signal.SIGTERM])
    os.read(waited_for, 1)  # what it has begun lasts until somebody waits for its end
    print("answered", flush=True)

# The first wait is for the one that is killed.
waited, ended = os.waitpid, []

def waitpid(*asked):
    if ended:
        os.close(waits)
    found = waited(*asked)
    ended.append(found[0])
    return found

os.waitpid = waitpid
print(Workers(2, serve).run())
"""
_NEVER_BLOCKS = """
import os, socket, uvicorn
from tracking_server.mlflow_process.door import Door
from tracking_server.mlflow_process.server import SleepyServer
from tracking_server.mlflow_process.workers import SharedActivity

async def application(scope, receive, send):
    await receive()
    print(os.get_blocking(held.fileno()))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print(os.get_blocking(held.fileno()))
    await send({"type": "lifespan.shutdown.complete"})

held = socket.socket(socket.AF_UNIX)
held.bind("")
held.listen()
held.setblocking(False)
handed_over = socket.socket(fileno=os.dup(held.fileno()))
config = uvicorn.Config(application, lifespan="on", log_config=None)
rest = {"drain_seconds": 1, "told": print, "activity": SharedActivity(1), "door": Door()}
SleepyServer(config, handed_over, idle_seconds=0.1, **rest).run_until_idle()
"""
_CLIENT_LEFT = """
import asyncio, socket, threading, time, uvicorn
from tracking_server.mlflow_process.door import Door
from tracking_server.mlflow_process.server import SleepyServer
from tracking_server.mlflow_process.workers import SharedActivity

released, done = threading.Event(), []

async def application(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.to_thread(released.wait, 30)
    released.set()
    done.append(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def ask(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(held.getsockname())
    client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    return client

def clients():
    ask("/slow").close()
    time.sleep(0.5)  # five times the time after which it falls asleep
    ask("/quick").recv(100)

held = socket.socket(socket.AF_UNIX)
held.bind("")
held.listen()
config = uvicorn.Config(application, lifespan="off", log_config=None)
rest = {"drain_seconds": 5, "told": lambda _word: None, "activity": SharedActivity(1), "door": Door()}
threading.Thread(target=clients, daemon=True).start()
SleepyServer(config, held, idle_seconds=0.1, **rest).run_until_idle()
print(*done)
"""


def test_who_is_told_to_end_while_workers_are_made_ends_them_all() -> None:
    assert run(_TOLD_MEANWHILE) == ["0", "2"]


def test_a_worker_that_fails_while_another_falls_asleep_is_not_taken_for_asleep() -> None:
    assert run(_FAILS_MEANWHILE) == ["1"]


def test_a_worker_that_is_killed_takes_nobodys_request_along_but_its_own() -> None:
    assert run(_KILLED_MEANWHILE) == ["answered", "1"]


def test_a_worker_that_starts_never_lets_the_others_wait_for_a_connection() -> None:
    """The listening socket is one for all: where it blocked, a worker that had just accepted somebody hung until somebody else came."""
    assert run(_NEVER_BLOCKS, environment() / "bin" / "python") == ["False", "ready", "False"]


def test_nobody_waits_for_a_request_whose_client_has_left() -> None:
    """It goes on in its thread: a server that fell asleep meanwhile let nobody in until that had ended."""
    assert run(_CLIENT_LEFT, environment() / "bin" / "python") == ["/quick", "/slow"]
