import pytest
from sqlalchemy import select

from backend.domain import Caller, Group
from backend.registry.models import Server
from backend.wishes import membership
from tests.service.engine.support import GROUP, Site


@pytest.fixture
def server(site: Site) -> Server:
    site.made()
    site.set_users("job")
    site.reconciler().reconcile_all()
    return site.one()


def look(site: Site) -> tuple[list[str], list[str]]:
    membership.update_all(site.registry, site.directory)
    return site.one().known_to, site.one().former_members


def test_one_pass_tells_who_left_and_a_new_password_clears_it(site: Site, server: Server):
    assert look(site) == (["alice", "bob"], [])
    site.directory.listed[GROUP.gid] = ["alice"]
    site.reconciler().reconcile_all()
    assert site.one().former_members == ["bob"]
    assert look(site) == (["alice", "bob"], ["bob"])
    site.set_users("job", "another")
    site.reconciler().reconcile_all()
    assert look(site) == (["alice", "bob"], ["bob"]), "the job's password is the one that bob knows"
    site.set_users("job", password="a new one")
    site.reconciler().reconcile_all()
    assert look(site) == (["alice"], [])


def test_who_joins_knows_it_from_then_on(site: Site, server: Server):
    site.directory.listed[GROUP.gid] = ["alice", "bob", "carol"]
    assert look(site) == (["alice", "bob", "carol"], [])
    site.directory.listed[GROUP.gid] = ["alice", "bob"]
    assert look(site) == (["alice", "bob", "carol"], ["carol"])


def test_who_comes_back_is_no_former_member(site: Site, server: Server):
    site.directory.listed[GROUP.gid] = ["alice"]
    look(site)
    site.directory.listed[GROUP.gid] = ["alice", "bob"]
    assert look(site) == (["alice", "bob"], [])


def test_a_primary_member_that_nss_does_not_list_is_asked_for_by_name(site: Site, server: Server):
    with site.registry.session() as session:
        row = session.scalars(select(Server)).one()
        row.known_to = [*row.known_to, "primary"]
    site.directory.unlisted[GROUP.gid] = ["primary"]
    assert look(site)[1] == []
    site.directory.unlisted[GROUP.gid] = []
    assert look(site)[1] == ["primary"]


def test_nss_that_is_away_changes_nothing(site: Site, server: Server):
    site.directory.down = True
    site.directory.listed[GROUP.gid] = []
    assert look(site) == (["alice", "bob"], [])


def test_members_of_another_group_of_that_name_do_not_count(site: Site, server: Server):
    site.directory.gids[GROUP.name] = 30001
    site.directory.listed[30001] = ["stranger"]
    assert "stranger" not in look(site)[0]


def test_a_server_without_a_password_is_known_to_nobody(site: Site, server: Server):
    site.set_users()
    site.reconciler().reconcile_all()
    site.directory.listed[GROUP.gid] = []
    assert look(site) == ([], [])


def test_a_password_that_is_new_since_the_look_began_is_not_judged_by_it(site: Site, server: Server, monkeypatch: pytest.MonkeyPatch):
    real = site.directory.members

    def members(*, group):
        listed = real(group=group)
        monkeypatch.setattr(site.directory, "members", real)
        site.set_users("job", password="a new one")
        site.reconciler().reconcile_all()
        return listed

    site.directory.listed[GROUP.gid] = ["alice"]
    monkeypatch.setattr(site.directory, "members", members)
    assert look(site) == (["alice"], [])


def test_callers_seen_as_members_are_taken_to_know_it(site: Site, server: Server):
    primary = Caller(user="primary", uid=1009, groups=(GROUP,))
    before = site.one().updated_at
    for _ in range(2):
        membership.saw(site.registry, [site.one()], primary)
    assert site.one().known_to == ["alice", "bob", "primary"]
    assert site.one().updated_at == before
    assert look(site)[1] == ["primary"], "NSS knows nothing of that one"


def test_who_could_read_a_password_is_remembered_until_it_is_another_one(site: Site, server: Server):
    """A primary member, whom NSS does not list, was seen once; then the job's password is registered again, beside a second user's."""
    site.directory.unlisted[GROUP.gid] = ["primary"]
    membership.saw(site.registry, [site.one()], Caller(user="primary", uid=1009, groups=(GROUP,)))
    site.set_users("job", "second")
    site.reconciler().reconcile_all()
    site.directory.unlisted[GROUP.gid] = []
    assert look(site) == (["alice", "bob", "primary"], ["primary"])
    site.set_users("job", password="a new one")
    site.reconciler().reconcile_all()
    assert look(site) == (["alice", "bob"], [])


@pytest.mark.parametrize("groups", [(), (Group(name=GROUP.name, gid=30001),), (Group(name="another", gid=GROUP.gid),)])
def test_who_is_no_member_by_name_and_id_is_not_noted(site: Site, server: Server, groups: tuple[Group, ...]):
    membership.saw(site.registry, [site.one()], Caller(user="eve", uid=1010, groups=groups, admin=True))
    assert site.one().known_to == ["alice", "bob"]


def test_a_server_without_users_has_nothing_to_know(site: Site):
    site.made()
    membership.saw(site.registry, [site.one()], Caller(user="primary", uid=1009, groups=(GROUP,)))
    assert site.one().known_to == []
