"""Who writes into SQLite comes in the order of asking."""

import subprocess
import threading
from pathlib import Path

from tests.support.box import environment, until
from tracking_server.mlflow_process.turns import Turns

WRITERS = 25
WRITE = """
import sys, threading
from sqlalchemy import create_engine, text
from tracking_server.mlflow_process import turns

WRITERS, made = int(sys.argv[2]), []
class Known(turns.Turns):
    def __init__(self):
        super().__init__()
        made.append(self)
turns.Turns = Known
turns.install()
engine = create_engine("sqlite:///" + sys.argv[1], pool_size=5, max_overflow=120)
with engine.begin() as connection:
    connection.execute(text("CREATE TABLE seen (number INTEGER)"))

def write(number):
    with engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM seen"))
        connection.execute(text("INSERT INTO seen VALUES (:number)"), {"number": number})

threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
with engine.begin() as connection:
    connection.execute(text("INSERT INTO seen VALUES (-1)"))
    for at, thread in enumerate(threads, 1):
        thread.start()
        while len(made[0]._waiting) < at:
            threading.Event().wait(0.001)
for thread in threads:
    thread.join()
with engine.connect() as connection:
    print(*connection.execute(text("SELECT number FROM seen ORDER BY rowid")).scalars())
print(made[0]._taken)
"""


def test_writers_of_one_database_come_in_order_and_the_last_leaves_it_free(tmp_path: Path) -> None:
    argv = [environment() / "bin" / "python", "-P", "-c", WRITE, tmp_path / "a.db", str(WRITERS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    order, taken = done.stdout.splitlines()
    assert [int(each) for each in order.split()] == list(range(-1, WRITERS))
    assert taken == "False"


def test_who_is_not_called_in_time_goes_on_and_is_not_called_later() -> None:
    turns = Turns()
    assert turns.take()
    assert not turns.take(seconds=0.01)
    called = threading.Event()
    thread = threading.Thread(target=lambda: called.set() if turns.take() else None)
    thread.start()
    until(lambda: len(turns._waiting) == 1, what="a second one in the queue")
    turns.end()
    assert called.wait(30), "the first one's turn went to who had gone"
    thread.join()
    turns.end()
    assert turns.take(seconds=0)
