"""The demo's folder: private, chosen once, and usable however long its path is."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from mlwf.aws_profiles import key_pair, profile_names

from demo.errors import DemoError
from demo.home import Home
from demo.ports import free_range, is_free


def test_what_is_chosen_once_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path / "demo")
    assert not home.exists()
    with home.locked():
        first = home.state()
        home.save(replace(first, wanted=True))
        store = home.store()
    assert Home(tmp_path / "demo").state() == replace(first, wanted=True)
    assert Home(tmp_path / "demo").store() == store


def test_everything_in_it_is_the_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "demo")
    before = os.umask(0o022)
    try:
        with home.locked():
            home.state()
            home.write_credentials(home.store().users["demo"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    secret = [home.credentials, *(home.path / "store").glob("*.*")]
    assert [str(path) for path in secret if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_the_credentials_file_offers_the_profile_and_keeps_the_users_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "demo")
    with home.locked():
        user = home.store().users["demo"]
        home.write_credentials(user)
    assert profile_names(home.credentials) == ["demo"]
    assert key_pair("demo", home.credentials).access_key_id == user.access_key
    with home.credentials.open("a") as file:
        file.write("[mine]\naws_access_key_id = A\naws_secret_access_key = B\n")
    home.write_credentials(user)
    assert profile_names(home.credentials) == ["demo", "mine"]


def test_a_long_path_gets_a_short_one_for_sockets_and_gives_it_back(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long-" * 20) / "demo")
    with home.locked():
        home.state()
    short = home.socket
    assert len(os.fsencode(short)) <= 107
    assert home.socket == short, "the same while it runs"
    short.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short))
    assert (home.path / "service" / "run" / "service.sock").is_socket()

    alias = Path(str(home.state().alias))
    alias.unlink()  # as a cleaner of /tmp does
    again = home.socket
    assert again != short
    home.drop_alias()
    assert not Path(again).exists()
    assert home.state().alias is None
    alias.parent.rmdir()


def test_a_short_path_is_used_as_it_is(tmp_path: Path) -> None:
    home = Home(Path("/tmp/demo-that-is-never-made"))
    assert home.socket == Path("/tmp/demo-that-is-never-made/service/run/service.sock")


def test_a_folder_that_cannot_be_made_is_said_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match="set DEMO_HOME to a folder that you may write"), Home(tmp_path / "file" / "demo").locked():
        pass


def test_a_range_of_ports_is_free_and_below_the_ephemeral_ones() -> None:
    first = free_range(50)
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < first <= lowest_ephemeral - 50
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first)
