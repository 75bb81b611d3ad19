"""What every place for boxes must do. A test module makes a `boxes` fixture and inherits `BoxFilesContract`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mlwf.secret import Secret

from backend.domain import Box, BoxToken, StorageKey, TicketKey, User, new_server_id
from backend.ports import BoxFiles

UIDS = (1_900_019_000, 1_900_019_001)
"""For boxes whose folders have owners of their own; the others take no notice."""


def box_of(server_id: str, *, secret: Secret = Secret("s3cr3t"), users: tuple[User, ...] = (), uids: tuple[int, int] | None = UIDS) -> Box:  # noqa: B008 (never changes)
    keys = Secret('{"webhook_secret_encryption_key": "w", "crypto_kek_passphrase": "k", "flask_secret_key": "f"}')
    key = StorageKey(access_key_id="AKIA", secret_access_key=secret)
    return Box(server_id=server_id, settings={"server_id": server_id, "listen": "127.0.0.1:1"}, key=key, keys=keys, users=users, uids=uids)


class BoxFilesContract:
    def test_what_is_installed_is_there_and_installing_it_again_changes_nothing(self, boxes: BoxFiles):
        box = box_of(new_server_id())
        assert boxes.ids() == []
        assert boxes.install(box) is True
        assert boxes.install(box) is False
        assert boxes.ids() == [box.server_id]
        assert boxes.install(replace(box, users=(User(name="a", bcrypt="$2b$"),))) is True

    def test_what_was_replaced_is_seen_by_its_time(self, boxes: BoxFiles):
        box = box_of(new_server_id())
        assert set(boxes.config(box.server_id).values()) == {None}
        boxes.install(box)
        before = boxes.config(box.server_id)
        boxes.install(replace(box, users=(User(name="a", bcrypt="$2b$"),)))
        after = boxes.config(box.server_id)
        assert [name for name in before if before[name] != after[name]] == ["users.json"]

    def test_what_is_retracted_is_taken_and_nothing_given(self, boxes: BoxFiles):
        """Also where the box has others in it than who asks knows, as while a new version is proven."""
        one, two, three = (BoxToken(id=name, sha256="0" * 64, user="u", expires=2e9) for name in ("one", "two", "three"))
        box = replace(box_of(new_server_id()), tokens=(one, two), revoked=(("ann", 1.0),), users=(User(name="a", bcrypt="$2b$"),))
        boxes.install(box)
        before = boxes.config(box.server_id)
        assert boxes.retract(replace(box, users=(), tokens=(one, two, three))) is False
        assert boxes.retract(replace(box, users=(), tokens=(two, three), revoked=(("bob", 2.0),))) is True
        after = boxes.config(box.server_id)
        assert {name for name in before if before[name] != after[name]} == {"tokens.json", "revoked.json"}
        assert boxes.install(replace(box, tokens=(two,), revoked=(("ann", 1.0), ("bob", 2.0)))) is False

    def test_a_box_with_ticket_keys_gets_the_newer_ones_and_one_without_gets_none(self, boxes: BoxFiles):
        old, new = (TicketKey(id=name, key=Secret(name * 43), made_at=1.0) for name in ("o", "n"))
        box = replace(box_of(new_server_id()), ticket_keys=(old,))
        boxes.install(box)
        for keys in ((new, old), (new,)):
            assert boxes.retract(replace(box, ticket_keys=keys)) is True
            assert boxes.retract(replace(box, ticket_keys=keys)) is False
        assert boxes.install(replace(box, ticket_keys=(new,))) is False
        boxes.install(replace(box, ticket_keys=()))
        assert boxes.retract(replace(box, ticket_keys=(new,))) is False, "as while a new version is proven"

    def test_nothing_is_retracted_from_a_box_that_is_not_there_and_none_is_made(self, boxes: BoxFiles):
        assert boxes.retract(replace(box_of(new_server_id()), revoked=(("ann", 1.0),))) is False
        assert boxes.ids() == []

    def test_removing_removes_all_and_gone_already_is_fine(self, boxes: BoxFiles):
        box = box_of(new_server_id())
        boxes.install(box)
        for _ in range(2):
            boxes.remove(box.server_id)
            assert boxes.ids() == []

    def test_boxes_do_not_meet(self, boxes: BoxFiles):
        first, second = box_of(new_server_id()), box_of(new_server_id())
        boxes.install(first)
        boxes.install(second)
        assert boxes.directory(first.server_id) != boxes.directory(second.server_id)
        boxes.remove(first.server_id)
        assert boxes.ids() == [second.server_id]

    @pytest.mark.parametrize("name", ["", "..", "../../etc", "a/b", "UPPERCASE123", "short", "x" * 255])
    def test_nothing_but_an_id_names_a_directory(self, boxes: BoxFiles, name: str):
        with pytest.raises(ValueError, match="not a server's id"):
            boxes.directory(name)
