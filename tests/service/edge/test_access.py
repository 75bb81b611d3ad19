"""Tickets and bearer tokens as the API gives them, and that the box's own guard reads them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.adapters.nss import GroupEntry, Nss, UserEntry
from backend.plans.wanted import wanted_box
from backend.ports import Directory
from backend.reconcile.leavers import ABSENT_SECONDS, Leavers
from backend.registry.models import AuditEntry, Server, Token, Visit, now
from backend.wishes import tickets
from backend.wishes.kick import Kick
from tests.service.edge.world import ADMIN, ALICE, BOB, GROUP, World, make_world
from tracking_server.guard import signed
from tracking_server.guard.access_files import parse_ticket_keys

SERVER = f"/api/v1/servers/{GROUP.name}/wine"
CAROL = replace(ALICE, user="carol", uid=1003)


def ticket(world: World) -> Any:
    return world.client.post(f"{SERVER}/tickets")


def make_token(world: World, **body: Any) -> Any:
    answer = world.client.post(f"{SERVER}/tokens", json={"seconds": 3600, **body})
    assert answer.status_code == 201, answer.text
    return answer.json


def audit(world: World) -> list[tuple[str, str]]:
    with world.registry.reading() as session:
        return [(entry.user, entry.action) for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id))]


def leavers(world: World, directory: Directory | None = None, clock: Callable[[], float] = time.monotonic) -> Leavers:
    service, found = world.service, directory or world.directory
    return Leavers(registry=world.registry, directory=found, keyring=service.keyring, settings=service.settings, clock=clock)


def sweep(world: World) -> bool:
    """Two looks in a row."""
    looking = leavers(world)
    return any([looking.sweep(), looking.sweep()])


def box(world: World, server_id: str) -> Any:
    return wanted_box(world.row(server_id), world.service.settings, world.service.keyring)


def test_a_ticket_is_for_the_caller_and_this_server_and_the_guard_reads_it(world: World) -> None:
    server_id = world.made(users=["job"])
    answer = ticket(world)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    row = world.row(server_id)
    assert answer.json["sign_in_url"] == f"https://portal.example.org/rnode/{row.host}/{row.port}/mlflow/-/sign-in"
    keys = box(world, server_id).ticket_keys
    document = json.dumps({"keys": [{"id": key.id, "key": key.key.reveal()} for key in keys]})
    claims = signed.read(signed.TICKET, parse_ticket_keys(document), answer.json["ticket"])
    assert claims is not None
    assert (claims["s"], claims["u"], claims["e"] - claims["t"]) == (server_id, "alice", pytest.approx(30))
    assert claims["r"] == answer.headers["X-Request-Id"]
    assert ticket(world).json["ticket"] != answer.json["ticket"]
    assert audit(world)[-1] == ("alice", "ticket")


def test_tickets_in_a_loop_are_audited_once_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit is never shortened by itself."""
    world.made(users=["job"])
    begin = now().replace(second=0, microsecond=0)
    for second in (1, 20, 59, 61, 118, 121):
        monkeypatch.setattr("backend.wishes.access.now", lambda second=second: begin + timedelta(seconds=second))
        assert ticket(world).status_code == 201
    assert audit(world)[1:] == [("alice", "ticket")] * 3
    world.be(CAROL)
    ticket(world)
    assert audit(world)[-1] == ("carol", "ticket")


@pytest.mark.parametrize("caller", [BOB, replace(BOB, groups=())])
def test_a_stranger_gets_nothing(world: World, caller: Any) -> None:
    world.made(users=["job"])
    token = make_token(world)["token"]
    world.be(caller)
    asked = [
        ticket(world),
        world.client.get(f"{SERVER}/tokens"),
        world.client.post(f"{SERVER}/tokens", json={"seconds": 60}),
        world.client.delete(f"{SERVER}/tokens/{token['id']}"),
    ]
    assert [(answer.status_code, answer.json["code"]) for answer in asked] == [(403, "not_a_member")] * 4


def test_no_ticket_without_portal_or_for_a_server_that_does_not_run(tmp_path: Any) -> None:
    world = make_world(tmp_path, portal_url=None)
    world.made(users=["job"])
    assert (ticket(world).status_code, ticket(world).json["code"]) == (409, "no_portal")
    world.registry.close()


def test_no_ticket_for_a_server_that_does_not_run(world: World) -> None:
    operation = world.create()
    assert ticket(world).json["code"] == "server_not_up"
    world.finish(operation["id"], users=[{"name": "job", "bcrypt": "$2b$04$"}])
    assert ticket(world).status_code == 201


def test_nothing_opens_a_server_before_a_user_is_registered(world: World) -> None:
    server_id = world.made()
    for answer in (ticket(world), world.client.post(f"{SERVER}/tokens", json={"seconds": 60})):
        assert (answer.status_code, answer.json["code"]) == (409, "auth_info_missing")
        assert answer.json["cure"] == "Register Auth Info first, in the console or with mlwf server auth."
    assert audit(world)[-1][1] == "create"
    with world.registry.session() as session:
        session.get_one(Server, server_id).users = [{"name": "job", "bcrypt": "$2b$04$"}]
    assert ticket(world).status_code == 201
    make_token(world)


def test_a_token_is_shown_once_and_kept_as_a_hash(world: World) -> None:
    server_id = world.made(users=["job"])
    made = make_token(world, name="nightly")
    token, secret = made["token"], made["secret"]
    assert (token["user"], token["name"], token["state"], token["revoked_at"]) == ("alice", "nightly", "pending", None)
    assert secret.startswith(f"aihub_{token['id']}_")
    (wanted,) = box(world, server_id).tokens
    assert (wanted.id, wanted.user, wanted.sha256) == (token["id"], "alice", hashlib.sha256(secret.encode()).hexdigest())
    assert world.get(f"/servers/{GROUP.name}/wine/tokens")["tokens"] == [token]
    database = (world.service.settings.state_dir / "registry.db").read_bytes()
    wal = world.service.settings.state_dir / "registry.db-wal"
    assert secret.encode() not in database + (wal.read_bytes() if wal.exists() else b"")
    assert audit(world)[-1] == ("alice", "token_create")


def test_a_token_is_revoked_by_its_user_and_by_who_may_set_the_users(world: World) -> None:
    server_id = world.made(users=["job"])
    mine, other = make_token(world)["token"], make_token(world)["token"]
    assert world.client.delete(f"{SERVER}/tokens/{mine['id']}").json["state"] == "revoked"
    assert world.client.delete(f"{SERVER}/tokens/{mine['id']}").status_code == 200
    assert [token.id for token in box(world, server_id).tokens] == [other["id"]]
    world.be(CAROL)
    assert world.client.delete(f"{SERVER}/tokens/{other['id']}").json["state"] == "revoked"
    assert world.client.delete(f"{SERVER}/tokens/zzzzzzzzzzzz").json["code"] == "no_such_bearer_token"
    assert audit(world)[-2:] == [("alice", "token_revoke"), ("carol", "token_revoke")]


def test_where_only_admins_set_users_members_revoke_their_own(tmp_path: Any) -> None:
    world = make_world(tmp_path, manage_by="admins")
    world.made(users=["job"])
    token = make_token(world)["token"]
    world.be(CAROL)
    answer = world.client.delete(f"{SERVER}/tokens/{token['id']}")
    assert (answer.status_code, answer.json["code"]) == (403, "token_of_other")
    world.be(ADMIN)
    assert world.client.delete(f"{SERVER}/tokens/{token['id']}").json["state"] == "revoked"
    world.registry.close()


def test_tokens_live_as_long_as_the_site_lets_them(world: World) -> None:
    world.made(users=["job"])
    answer = world.client.post(f"{SERVER}/tokens", json={"seconds": 31 * 86400})
    assert (answer.status_code, answer.json["code"]) == (403, "token_too_long")
    token = make_token(world)["token"]
    with world.registry.session() as session:
        session.get_one(Token, token["id"]).expires_at = now() - timedelta(seconds=1)
    assert world.get(f"/servers/{GROUP.name}/wine/tokens")["tokens"][0]["state"] == "expired"


def test_who_left_the_group_loses_tokens_and_sign_ins_and_may_come_back(world: World) -> None:
    server_id = world.made(users=["job"])
    make_token(world)
    ticket(world)
    world.be(CAROL)
    kept = make_token(world)["token"]
    assert not sweep(world)
    world.directory.broken = True
    assert not sweep(world), "a directory that does not answer takes nothing away"
    world.directory.broken = False
    world.directory.callers[ALICE.uid] = replace(ALICE, groups=())
    assert sweep(world)
    assert not sweep(world), "once is enough"
    assert audit(world)[-1] == ("alice", "left_group")
    wanted = box(world, server_id)
    assert [token.id for token in wanted.tokens] == [kept["id"]]
    ((user, at),) = wanted.revoked
    assert user == "alice"
    world.be(ALICE)
    again = ticket(world)
    assert again.status_code == 201
    keys = {key.id: signed.decode(key.key.reveal()) for key in wanted.ticket_keys}
    claims = signed.read(signed.TICKET, keys, again.json["ticket"])  # type: ignore[arg-type]
    assert claims is not None
    assert claims["t"] > at
    del world.directory.callers[ALICE.uid]
    assert sweep(world), "and an account that is gone is out"


def test_a_lost_answer_of_the_directory_ends_nothing(world: World) -> None:
    """What is revoked does not come back: once out is not out, and what NSS lost once is not what it loses again."""
    world.made(users=["job"])
    make_token(world)
    looking = leavers(world)
    for lost in (replace(ALICE, groups=()), None):
        for _ in range(2):
            world.directory.callers = {ALICE.uid: lost} if lost else {}
            assert not looking.sweep()
            world.directory.callers = {ALICE.uid: ALICE}
            assert not looking.sweep()
    assert world.get(f"/servers/{GROUP.name}/wine/tokens")["tokens"][0]["state"] != "revoked"
    assert audit(world)[-1] == ("alice", "token_create")


def test_a_source_of_the_directory_that_is_away_reads_like_nobody_and_ends_nothing_for_an_hour(world: World) -> None:
    """As sssd that was stopped: no error, and no account or group is found."""
    world.made(users=["job"])
    make_token(world)
    at = [0.0]
    looking = leavers(world, clock=lambda: at[0])
    callers, groups = world.directory.callers, world.directory.groups
    for seconds in (0.0, ABSENT_SECONDS - 1, 10.0):
        at[0] += seconds
        world.directory.callers, world.directory.groups = {}, {}
        assert [looking.sweep() for _ in range(3)] == [False] * 3
        world.directory.callers, world.directory.groups = callers, groups
        assert not looking.sweep()
    # The users' source alone, while a group of the host's own names them.
    world.directory.members = lambda *, group: [ALICE.user]  # type: ignore[method-assign]
    world.directory.callers = {}
    assert [looking.sweep() for _ in range(3)] == [False] * 3
    at[0] += ABSENT_SECONDS
    assert looking.sweep()
    assert audit(world)[-1] == ("alice", "left_group")


def test_who_has_the_uid_of_an_account_that_is_gone_does_not_keep_it_in(world: World) -> None:
    """After an hour: a site that changes how names are written gives everybody another one, and can take that back."""
    server_id = world.made(users=["job"])
    make_token(world)
    ticket(world)
    world.be(replace(ALICE, user="dora"))
    ticket(world)
    hers = make_token(world)["token"]
    at = [0.0]
    looking = leavers(world, clock=lambda: at[0])
    assert [looking.sweep() for _ in range(3)] == [False] * 3
    at[0] += ABSENT_SECONDS
    assert [looking.sweep() for _ in range(2)] == [True, False]
    assert audit(world)[-1] == ("alice", "left_group")
    wanted = box(world, server_id)
    assert [token.id for token in wanted.tokens] == [hers["id"]]
    assert [user for user, _ in wanted.revoked] == ["alice"]


class HidingNames:
    """A name service whose list of a user's groups lacks what it could not look up, as getgrouplist(3)'s does."""

    listed: tuple[str, ...] = (ALICE.user,)

    def user(self, key: str | int) -> UserEntry | None:
        return UserEntry(name=ALICE.user, uid=ALICE.uid, gid=1001) if key in {ALICE.user, ALICE.uid} else None

    def group(self, key: str | int) -> GroupEntry | None:
        return GroupEntry(name=GROUP.name, gid=GROUP.gid, members=self.listed) if key in {GROUP.name, GROUP.gid} else None

    def group_ids(self, user: UserEntry) -> Sequence[int]:
        return [user.gid]


def test_a_list_of_groups_that_hides_an_error_ends_nothing_however_often(world: World) -> None:
    world.made(users=["job"])
    make_token(world)
    names = HidingNames()
    looking = leavers(world, Nss(admin_group="aihub-admins", names=names))
    assert [looking.sweep() for _ in range(3)] == [False, False, False]
    names.listed = ()
    assert [looking.sweep() for _ in range(3)] == [False, True, False]
    assert audit(world)[-1] == ("alice", "left_group")


def test_a_new_ticket_key_signs_when_its_server_surely_has_it(world: World) -> None:
    server_id = world.made(users=["job"])
    first = box(world, server_id).ticket_keys
    world.service.access.rotate_ticket_key(ADMIN, GROUP.name, "wine", at_once=False)
    both = box(world, server_id).ticket_keys
    assert both[1:] == first
    assert ticket(world).json["ticket"].startswith(first[0].id + ".")
    later = tickets.make_ticket(both, server_id=server_id, user="alice", now=both[0].made_at + 61, request_id=None)
    assert later.reveal().startswith(both[0].id + ".")
    world.service.access.rotate_ticket_key(ADMIN, GROUP.name, "wine", at_once=True)
    assert len(box(world, server_id).ticket_keys) == 1
    assert not {key.id for key in box(world, server_id).ticket_keys} & {key.id for key in both}


def test_secrets_show_themselves_nowhere(world: World) -> None:
    server_id = world.made(users=["job"])
    text = ticket(world).json["ticket"]
    key = box(world, server_id).ticket_keys[0].key
    assert key.reveal() not in repr(box(world, server_id))
    assert repr(tickets.new_keys()) == "Secret('***')"
    assert text.partition(".")[2] not in repr(world.service.access.ticket(ALICE, GROUP.name, "wine", request_id=None))
    assert world.row(server_id).ticket_keys.startswith("k2")  # type: ignore[union-attr]


def test_who_signed_in_by_a_clock_that_was_ahead_is_out_once_and_for_good(world: World) -> None:
    """What ends by a time does not end what was signed for a later one: so it ends by its key."""
    server_id = world.made(users=["job"])
    ticket(world)
    before = box(world, server_id).ticket_keys
    with world.registry.session() as session:
        session.get_one(Visit, (server_id, "alice")).ticket_at = now() + timedelta(days=365)
    world.directory.callers[ALICE.uid] = replace(ALICE, groups=())
    assert sweep(world)
    assert not {key.id for key in before} & {key.id for key in box(world, server_id).ticket_keys}
    assert not sweep(world), "once is enough"


def test_who_is_put_out_while_the_request_waits_for_its_turn_is_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else is: no clock was ahead."""
    server_id = world.made(users=["job"])
    ticket(world)
    before, turn = box(world, server_id).ticket_keys, world.registry.session

    @contextmanager
    def others_first() -> Iterator[Session]:
        with turn() as session:
            session.get_one(Visit, (server_id, "alice")).revoked_at = now()
        with turn() as session:
            yield session

    monkeypatch.setattr(world.registry, "session", others_first)
    ticket(world)
    wanted = box(world, server_id)
    assert [user for user, _ in wanted.revoked] == ["alice"]
    assert wanted.ticket_keys == before


def test_who_was_put_out_by_a_clock_that_was_ahead_may_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server_id = world.made(users=["job"])
    ticket(world)
    before = box(world, server_id).ticket_keys
    with world.registry.session() as session:
        session.get_one(Visit, (server_id, "alice")).revoked_at = now() + timedelta(days=365)
    seen_by_the_reconciler = []
    monkeypatch.setattr(Kick, "send", lambda _kick: seen_by_the_reconciler.append(box(world, server_id).revoked))
    assert ticket(world).status_code == 201
    assert seen_by_the_reconciler == [()], "the ticket is signed by a key that the box learns from it"
    wanted = box(world, server_id)
    assert wanted.revoked == ()
    assert not {key.id for key in before} & {key.id for key in wanted.ticket_keys}, "what was ended stays so"
    again = ticket(world).json["ticket"]
    keys = {key.id: signed.decode(key.key.reveal()) for key in wanted.ticket_keys}
    assert signed.read(signed.TICKET, keys, again) is not None  # type: ignore[arg-type]
