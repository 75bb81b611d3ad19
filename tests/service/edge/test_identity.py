"""Who calls is what the kernel says of the connection, and nothing else."""

import os
import pwd
import socket
from collections.abc import Iterator

import pytest

from backend.adapters.nss import Nss
from backend.api.identity import PeerCredentials, peer_uid
from tests.service.edge.live import Live, live_service, request

NOBODY = pwd.getpwnam("nobody").pw_uid
DAEMON = pwd.getpwnam("daemon").pw_uid
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
FORGED = {
    "X_Forwarded_User": "root",
    "X_Forwarded_For": "127.0.0.1",
    "X_Forwarded_Proto": "https",
    "Forwarded": "for=1.2.3.4;by=root",
    "Remote_User": "root",
    "X_Remote_User": "root",
    "Authorization": "Basic cm9vdDpyb290",
    "SCRIPT_NAME": "/elsewhere",
    "PATH_INFO": "/api/v1/health",
    "REMOTE_USER": "root",
    "gunicorn.socket": "1",
}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_service() as service:
        service.start()
        yield service


def test_my_own_uid(live: Live) -> None:
    status, me = live.ask("GET", "/me")
    assert (status, me["uid"], me["user"]) == (200, os.geteuid(), pwd.getpwuid(os.geteuid()).pw_name)
    assert me["admin"] == (os.geteuid() == 0)


@needs_root
@pytest.mark.parametrize("uid", [NOBODY, DAEMON])
def test_another_uid(live: Live, uid: int) -> None:
    status, me = live.ask_as(uid, request("GET", "/me"))
    entry = pwd.getpwuid(uid)
    assert (status, me["uid"], me["user"], me["admin"]) == (200, uid, entry.pw_name, False)
    assert {group["gid"] for group in me["groups"]} == set(os.getgrouplist(entry.pw_name, entry.pw_gid))


@needs_root
@pytest.mark.parametrize("name", sorted(FORGED))
def test_nothing_that_a_request_says_changes_it(live: Live, name: str) -> None:
    status, me = live.ask_as(NOBODY, request("GET", "/me", **{name: FORGED[name]}))
    assert (status, me.get("uid")) in {(200, NOBODY), (400, None)}  # a header that is no proper one is refused


@needs_root
def test_a_uid_without_a_name_is_nobody(live: Live) -> None:
    uid = next(number for number in range(54321, 60000) if not _known(number))
    status, found = live.ask_as(uid, request("GET", "/servers"))
    assert (status, found["code"]) == (401, "caller_unknown")
    assert str(uid) in found["detail"]
    assert live.ask_as(uid, request("GET", "/health"))[0] == 200


@needs_root
def test_only_admins_see_all(live: Live) -> None:
    assert live.ask_as(NOBODY, request("GET", "/servers?all=true"))[0] == 403
    assert live.ask("GET", "/servers?all=true")[0] == 200


def test_what_is_no_unix_connection_is_nobody() -> None:
    with pytest.raises(RuntimeError):
        PeerCredentials().caller({}, bytes, Nss(admin_group="x"))
    with socket.socket() as tcp, pytest.raises(RuntimeError):
        peer_uid(tcp)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = PeerCredentials().caller({"gunicorn.socket": ours}, bytes, Nss(admin_group="x"))
        assert found.uid == os.geteuid()


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
