"""Who asks again for what is under way, as a client does that did not hear the answer, is answered with the same operation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import ServiceError
from tests.service.engine.support import ADMIN, ALICE, Site, asking

STRANGER = replace(ALICE, user="mallory", uid=666, groups=())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state", ports=6)


def refused(ask: object) -> str:
    with pytest.raises(ServiceError) as caught:
        ask()  # type: ignore[operator]
    return caught.value.code


@pytest.mark.parametrize("older", [False, True], ids=["the only one", "beside an older one that is deleted"])
@pytest.mark.parametrize("step", ["check_name", "unpack_snapshot", "write_box", "start_box", "wait_ready"])
def test_a_restore_asked_again_is_the_one_under_way(site: Site, step: str, older: bool):
    for _ in range(1 + older):
        server = site.made()
        site.ask("delete")
        site.reconciler().reconcile_all()
    restore, seen = site.ask("restore"), []

    def at(point: str) -> None:
        if point == f"restore.{step}.done":
            again = site.requests.restore(asking(server_id=server.id))
            seen.extend([site.ask("restore").id, again.id, refused(lambda: site.ask("restore", caller=STRANGER))])

    site.reconciler(at=at).reconcile_all()
    assert seen == [restore.id, restore.id, "not_a_member"]
    assert site.operation(restore).state == "succeeded"
    assert refused(lambda: site.ask("restore")) == ("server_exists" if older else "nothing_to_restore")


def test_a_delete_that_is_to_keep_what_is_damaged_is_not_the_plain_one_under_way(site: Site):
    site.made()

    def ask(*, damaged: bool) -> str:
        return site.requests.delete(asking(ADMIN), damaged=damaged).id

    plain = ask(damaged=False)
    assert ask(damaged=False) == plain
    assert refused(lambda: ask(damaged=True)) == "server_busy"
    site.reconciler().reconcile_all()
    site.made("wine")
    damaged = ask(damaged=True)
    assert [ask(damaged=True), ask(damaged=False)] == [damaged, damaged], "which also does what the plain one would"
