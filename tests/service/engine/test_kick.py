import stat
import threading
import time
from pathlib import Path

from backend.wishes.kick import Kick


def test_a_kick_wakes_at_once(tmp_path: Path):
    receiver = Kick(tmp_path / "kick.sock")
    receiver.listen()
    threading.Timer(0.1, Kick(tmp_path / "kick.sock").send).start()
    began = time.monotonic()
    assert receiver.wait(20)
    assert time.monotonic() - began < 10
    receiver.close()


def test_many_kicks_are_one(tmp_path: Path):
    receiver = Kick(tmp_path / "kick.sock")
    receiver.listen()
    for _ in range(2000):  # more than the socket holds
        receiver.send()
    assert receiver.wait(5)
    assert not receiver.wait(0)
    receiver.close()


def test_sending_to_nobody_is_fine(tmp_path: Path):
    Kick(tmp_path / "nobody.sock").send()
    Kick(tmp_path / "no-folder" / "kick.sock").send()
    dead = Kick(tmp_path / "dead.sock")
    dead.listen()
    dead.close()
    dead.send()


def test_a_long_path_and_a_former_owner_do_not_matter(tmp_path: Path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    former = Kick(folder / "kick.sock")
    former.listen()
    receiver = Kick(folder / "kick.sock")
    receiver.listen()
    Kick(folder / "kick.sock").send()
    assert receiver.wait(5)
    assert stat.S_IMODE((folder / "kick.sock").stat().st_mode) == 0o600
    receiver.close()
    former.close()
