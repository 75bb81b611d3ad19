"""The user directory: what the host knows, and an error of it denies and says so."""

import errno
import os
import pwd
from collections.abc import Sequence
from dataclasses import replace

import pytest

from backend.adapters.nss import GroupEntry, Nss, UserEntry
from backend.domain import Group
from backend.errors import ServiceError
from tests.service.edge.world import BOB, BODY, World


class Site:
    """A name service in memory; ``failing`` names the questions that do not answer."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.alice = UserEntry(name="alice", uid=1001, gid=1001)
        self.table = [
            GroupEntry(name="alice", gid=1001, members=()),
            GroupEntry(name="lab", gid=20001, members=("alice", "bob")),
            GroupEntry(name="aihub-admins", gid=300, members=("carol",)),
        ]

    def _fail(self, name: str) -> None:
        if name in self.failing:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    def user(self, key: str | int) -> UserEntry | None:
        self._fail("user")
        carol = UserEntry(name="carol", uid=1003, gid=300)
        return next((each for each in (self.alice, carol) if key in (each.name, each.uid)), None)

    def group(self, key: str | int) -> GroupEntry | None:
        self._fail("group")
        return next((each for each in self.table if key in (each.name, each.gid)), None)

    def group_ids(self, user: UserEntry) -> Sequence[int]:
        self._fail("group_ids")
        return [user.gid, *(each.gid for each in self.table if user.name in each.members), 77777]


def test_the_caller_with_groups() -> None:
    caller = Nss(admin_group="aihub-admins", names=Site()).caller(uid=1001)
    assert (caller.user, caller.admin) == ("alice", False)
    assert caller.groups == (Group(name="alice", gid=1001), Group(name="lab", gid=20001))  # 77777 has no name


def test_admins_are_a_group_and_root() -> None:
    directory = Nss(admin_group="aihub-admins", names=Site())
    assert directory.caller(uid=1003).admin
    assert Nss(admin_group="aihub-admins").caller(uid=0).admin


def test_nobody_unknown_gets_in() -> None:
    with pytest.raises(ServiceError, match="caller_unknown"):
        Nss(admin_group="a", names=Site()).caller(uid=4242)


@pytest.mark.parametrize("failing", ["user", "group", "group_ids"])
def test_an_error_denies_and_says_so(failing: str) -> None:
    directory = Nss(admin_group="a", names=Site(failing))
    with pytest.raises(ServiceError) as caught:
        directory.caller(uid=1001)
    assert (caught.value.code, caught.value.params) == ("directory_failed", {"why": "Connection refused"})


def test_an_error_is_not_taken_for_nobody() -> None:
    """While the directory is away, nobody has left a group."""
    for question in ("user", "group"):
        with pytest.raises(ServiceError, match="directory_failed"):
            Nss(admin_group="a", names=Site(question)).is_member(user="alice", gid=20001)


def test_membership_now() -> None:
    directory = Nss(admin_group="a", names=Site())
    assert directory.is_member(user="alice", gid=20001)
    assert directory.is_member(user="alice", gid=1001)
    assert not directory.is_member(user="alice", gid=300)
    assert not directory.is_member(user="gone", gid=20001)
    assert directory.members(group=Group(name="lab", gid=20001)) == ("alice", "bob")
    assert directory.members(group=Group(name="lab", gid=9)) == ()


def test_the_host_itself() -> None:
    directory, daemon = Nss(admin_group="a"), pwd.getpwnam("daemon")
    caller = directory.caller(uid=daemon.pw_uid)
    assert caller.user == "daemon"
    assert {group.gid for group in caller.groups} == set(os.getgrouplist("daemon", daemon.pw_gid))
    assert directory.group(name="daemon") == Group(name="daemon", gid=daemon.pw_gid)
    assert directory.is_member(user="daemon", gid=daemon.pw_gid)


@pytest.mark.parametrize("name", ["no-such-group-here", "", "a\0b", "\ud800", "x" * 5000])
def test_names_that_are_none(name: str) -> None:
    assert Nss(admin_group="a").group(name=name) is None


def test_the_api_denies_while_the_directory_is_away(world: World) -> None:
    world.made()
    world.directory.broken = True
    for answer in (world.client.get("/api/v1/servers"), world.client.delete("/api/v1/servers/gaa50000/wine")):
        assert answer.status_code == 503
        assert answer.json["code"] == "directory_failed"
        assert answer.headers["Retry-After"]
    assert world.client.get("/api/v1/health").status_code == 200


def test_a_directory_that_hides_a_callers_groups_is_told_as_such(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users in the host's own files, groups in a directory that is away: the list of a user's groups has no error, a group's name has."""
    world.be(replace(BOB, groups=()))

    def away(*, name: str) -> None:
        raise ServiceError("directory_failed", why=f"no answer about {name}")

    assert world.client.post("/api/v1/servers", json=BODY).json["code"] == "not_a_member"
    monkeypatch.setattr(world.directory, "group", away)
    assert world.client.post("/api/v1/servers", json=BODY).json["code"] == "directory_failed"
