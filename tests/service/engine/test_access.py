"""The box is told who may in and who no more, soon after it was asked for, and it is noted that it was told."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.domain import Caller, Observation
from backend.registry.models import Server, Token
from backend.wishes.access import Access
from backend.wishes.kick import Kick
from tests.service.engine.support import ADMIN, ALICE, GROUP, Site, until


class Entered(Site):
    """A site with one server that runs, and its access."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, envs_dir=home.parent / "envs", portal_url="https://portal.example.org", observe_seconds=3600)
        self.callers = {ALICE.uid: ALICE}
        self.directory.caller = lambda *, uid: self.callers[uid]  # type: ignore[method-assign]
        self.server_id = self.made().id
        with self.registry.session() as session:
            session.get_one(Server, self.server_id).users = [{"name": "job", "bcrypt": "$2b$04$"}]
        self.access = Access(
            registry=self.registry,
            directory=self.directory,
            settings=self.settings,
            keyring=self.keyring,
            kick=Kick(self.settings.kick_socket),
        )

    def token(self, caller: Caller = ALICE) -> Token:
        return self.access.make_token(caller, GROUP.name, "wine", seconds=3600, name="", request_id=None)[0]

    def is_told(self) -> bool:
        with self.registry.reading() as session:
            server = session.get_one(Server, self.server_id)
            return all(token.told for token in server.tokens) and all(visit.told for visit in server.visits)

    def config(self, name: str) -> Any:
        return json.loads((self.boxes.directory(self.server_id) / "config" / name).read_text())

    @property
    def ids(self) -> list[str]:
        return sorted(token["id"] for token in self.config("tokens.json")["tokens"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Entered]:
    site = Entered(tmp_path / "state")
    yield site
    site.registry.close()


def test_a_new_server_has_a_key_and_its_portal(site: Entered) -> None:
    assert len(site.config("ticket_keys.json")["keys"]) == 1
    assert site.config("settings.json")["sign_in_origins"] == ["https://portal.example.org"]
    assert site.config("settings.json")["session_seconds"] == 43200


def test_a_server_that_was_made_with_capitals_in_its_hosts_name_is_known_to_clients_that_have_none(tmp_path: Path) -> None:
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs", portal_url="https://Portal.example.org:443")
    server = site.made()
    with site.registry.session() as session:
        session.get_one(Server, server.id).host = "MLFlow01.Example.org"  # as they were made once
    site.reconciler().reconcile_all()
    settings = site.settings_of(server)
    assert settings["public_hosts"] == [f"mlflow01.example.org:{server.port}", "portal.example.org"]
    assert settings["origins"] == settings["sign_in_origins"] == ["https://portal.example.org"]
    assert site.one().host == "MLFlow01.Example.org", "its address stays as people have it"
    site.registry.close()


def test_a_kick_is_enough_for_a_token_to_come_and_go(site: Entered) -> None:
    """The looks are an hour apart here: only what was asked for makes the reconciler go."""
    stop = threading.Event()
    thread = threading.Thread(target=site.reconciler().run, args=(stop,))
    thread.start()
    try:
        token = site.token()
        until(site.is_told)
        assert site.ids == [token.id]
        site.access.revoke_token(ALICE, GROUP.name, "wine", token.id, request_id=None)
        until(site.is_told)
        assert site.ids == []
    finally:
        stop.set()
        thread.join()


def test_who_may_in_no_more_is_told_while_an_operation_is_under_way(site: Entered) -> None:
    """As an upgrade that is tried for an hour, while the box of before serves."""
    kept, leaked = site.token(), site.token()
    site.access.ticket(ALICE, GROUP.name, "wine", request_id=None)
    site.reconciler().reconcile_all()
    assert site.ids == sorted([kept.id, leaked.id])
    begun, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def at(point: str) -> None:
        if point == "stop.stop_box.begun":
            begun.set()
            assert go_on.wait(30)

    reconciler = site.reconciler(at=at)
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        site.ask("stop")
        assert begun.wait(60)
        site.access.revoke_token(ALICE, GROUP.name, "wine", leaked.id, request_id=None)
        until(lambda: site.ids == [kept.id])
        late = site.token()
        site.callers[ALICE.uid] = replace(ALICE, groups=())
        site.directory.listed[GROUP.gid] = ["bob"]
        for _ in range(2):
            reconciler._look_at_members()
        until(lambda: site.ids == [])
        until(lambda: [entry["user"] for entry in site.config("revoked.json")["revoked"]] == ["alice"])
        assert not site.is_told()  # which the look after the operation's end notes
        assert late.id not in site.ids
        go_on.set()
        until(site.is_told)
    finally:
        go_on.set()
        stop.set()
        thread.join()


def test_every_session_ends_at_once_also_while_an_operation_is_under_way(site: Entered) -> None:
    begun, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def at(point: str) -> None:
        if point == "stop.stop_box.begun":
            begun.set()
            assert go_on.wait(30)

    site.ask("stop")
    reconciler = site.reconciler(settings=replace(site.settings, observe_seconds=0.05), at=at)
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        assert begun.wait(60)
        (stolen,) = site.config("ticket_keys.json")["keys"]
        site.access.rotate_ticket_key(ADMIN, GROUP.name, "wine", at_once=False)
        until(lambda: len(site.config("ticket_keys.json")["keys"]) == 2)  # it signs in a minute, while the operation may take an hour
        site.access.rotate_ticket_key(ADMIN, GROUP.name, "wine", at_once=True)
        until(lambda: stolen not in site.config("ticket_keys.json")["keys"])
        assert len(site.config("ticket_keys.json")["keys"]) == 1, "who presses Open again gets in"
    finally:
        go_on.set()
        stop.set()
        thread.join()


def test_who_left_is_out_while_looks_wait_for_the_daemon(site: Entered, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what is asked and never answers; the box itself serves."""
    site.token()
    site.access.ticket(ALICE, GROUP.name, "wine", request_id=None)
    site.reconciler().reconcile_all()
    asked, answers, stop = threading.Event(), threading.Event(), threading.Event()
    real = site.runtime.observe

    def observe(**where: Any) -> Observation:
        asked.set()
        assert answers.wait(60)
        return real(**where)  # type: ignore[no-any-return]

    monkeypatch.setattr(site.runtime, "observe", observe)
    reconciler = site.reconciler(settings=replace(site.settings, observe_seconds=0.05, reconciler_threads=1))
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        assert asked.wait(10)
        site.callers[ALICE.uid] = replace(ALICE, groups=())
        site.directory.listed[GROUP.gid] = ["bob"]
        until(lambda: [entry["user"] for entry in site.config("revoked.json")["revoked"]] == ["alice"], 10)
        until(lambda: site.ids == [], 10)
        assert not site.is_told()  # which a look that sees the box notes
    finally:
        answers.set()
        until(site.is_told, 10)
        stop.set()
        thread.join()


def test_a_box_that_takes_nothing_over_is_not_taken_as_told(site: Entered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.plans.box_steps.CONFIG_SECONDS", 0.05)
    site.runtime.boxes[site.server_id].rigid = True
    token = site.token()
    site.reconciler().reconcile_all()
    assert not site.is_told()
    site.runtime.boxes[site.server_id].rigid = False
    site.reconciler().reconcile_all()
    assert site.is_told()
    assert site.ids == [token.id]


def test_a_stopped_server_reads_it_when_it_starts(site: Entered) -> None:
    site.ask("stop")
    site.reconciler().reconcile_all()
    token = site.token()
    site.reconciler().reconcile_all()
    assert site.is_told()
    assert site.ids == [token.id]


def test_who_left_is_told_to_the_box_also_where_the_group_is_another_one_now(site: Entered) -> None:
    site.token()
    site.access.ticket(ALICE, GROUP.name, "wine", request_id=None)
    site.reconciler().reconcile_all()
    assert site.config("revoked.json") == {"revoked": []}
    site.directory.gids[GROUP.name] = 777
    site.callers[ALICE.uid] = replace(ALICE, groups=(replace(GROUP, gid=777),))
    reconciler = site.reconciler()
    for _ in range(2):
        reconciler.reconcile_all()
    assert [entry["user"] for entry in site.config("revoked.json")["revoked"]] == ["alice"]
    assert site.ids == []
    assert site.is_told()


def test_who_left_is_told_also_where_the_boxs_folders_cannot_be_looked_at(site: Entered, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_directory: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("backend.files.disk.used_bytes", closed)
    token = site.token()
    site.reconciler().reconcile_all()
    assert (site.is_told(), site.ids) == (True, [token.id])
    assert site.one().reason == {"code": "box_ill", "params": {"why": "its folders were closed to the service"}, "log": None}


def test_a_server_of_an_older_service_gets_its_key(site: Entered) -> None:
    with site.registry.session() as session:
        session.get_one(Server, site.server_id).ticket_keys = None
    before = site.one().updated_at
    site.reconciler().reconcile_all()
    site.reconciler().reconcile_all()
    assert site.one().updated_at == before, "nobody changed the server"
    assert len(site.config("ticket_keys.json")["keys"]) == 1
    assert site.access.ticket(ALICE, GROUP.name, "wine", request_id=None).user == "alice"


def test_a_session_does_not_outlive_a_delete(site: Entered) -> None:
    """Which were signed out, only the box knew."""
    site.reconciler().reconcile_all()
    before = site.config("ticket_keys.json")["keys"]
    site.ask("delete")
    site.reconciler().reconcile_all()
    site.ask("restore")
    site.reconciler().reconcile_all()
    after = site.config("ticket_keys.json")["keys"]
    assert len(after) == 1
    assert not {key["key"] for key in before} & {key["key"] for key in after}


def test_tokens_survive_delete_and_restore_and_go_with_a_purge(site: Entered) -> None:
    token = site.token()
    site.ask("delete")
    site.reconciler().reconcile_all()
    site.ask("restore")
    site.reconciler().reconcile_all()
    assert site.ids == [token.id]
    site.ask("delete")
    site.reconciler().reconcile_all()
    site.ask("purge", caller=replace(ALICE, admin=True))
    site.reconciler().reconcile_all()
    with site.registry.reading() as session:
        assert session.get(Token, token.id) is None
