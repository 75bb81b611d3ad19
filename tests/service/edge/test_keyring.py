"""Keys at rest: several, newest encrypts, closed to others, and a rotation that may be killed anywhere."""

import json
import threading
from pathlib import Path

import pytest
from mlwf.secret import Secret

from backend.registry.keyring import Keyring, KeyringError
from backend.registry.models import Operation
from tests.service.edge.world import World


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "keys.json")
    assert made.create()
    return made


def test_what_goes_in_comes_out(ring: Keyring) -> None:
    stored = ring.encrypt(Secret("pässwörd"))
    assert stored.startswith(f"{ring.newest}:")
    assert "pässwörd" not in stored
    assert ring.decrypt(stored) == Secret("pässwörd")


def test_the_file_is_made_once_and_closed_to_others(ring: Keyring, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    before = file.read_bytes()
    assert not ring.create()
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_older_keys_still_decrypt(ring: Keyring) -> None:
    first = ring.newest
    old = ring.encrypt(Secret("old"))
    assert ring.rotate() == ring.newest != first
    assert ring.encrypt(Secret("new")).startswith(f"{ring.newest}:")
    assert ring.decrypt(old) == Secret("old")


def test_a_rotation_by_another_process_is_seen(ring: Keyring, tmp_path: Path) -> None:
    newer = Keyring(tmp_path / "keys.json").rotate()
    assert ring.encrypt(Secret("x")).startswith(f"{newer}:")


def test_refusals_say_the_cure_and_no_key(ring: Keyring, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    stored = ring.encrypt(Secret("x"))
    with pytest.raises(KeyringError, match="damaged in the registry"):
        ring.decrypt(stored[:-4] + "AAAA")
    with pytest.raises(KeyringError, match=r"which is not in .* put that file back from the backup"):
        ring.decrypt("kother:" + stored.partition(":")[2])
    file.chmod(0o640)
    with pytest.raises(KeyringError, match=r"open to others \(mode 0640\): chmod 0600"):
        ring.encrypt(Secret("x"))
    file.chmod(0o600)
    key = json.loads(file.read_text())["keys"][0]["key"]
    file.write_text(json.dumps({"keys": [{"id": "k", "key": key[:-9]}]}))
    with pytest.raises(KeyringError, match="damaged: put it back") as caught:
        ring.encrypt(Secret("x"))
    assert key[:10] not in str(caught.value)
    assert caught.value.__cause__ is None
    file.unlink()
    with pytest.raises(KeyringError, match="`aihub init` makes it"):
        ring.encrypt(Secret("x"))


def test_two_rotations_at_once_lose_no_key(ring: Keyring, tmp_path: Path) -> None:
    threads = [threading.Thread(target=Keyring(tmp_path / "keys.json").rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "keys.json").read_text())["keys"]) == 5


def test_everything_stored_is_encrypted_anew(world: World) -> None:
    keyring, registry = world.service.keyring, world.registry
    server_id = world.made()
    body = {"access_key_id": "AKOTHER", "secret_access_key": "another-secret"}
    pending = world.client.put("/api/v1/servers/gaa50000/wine/storage", json=body).json["id"]
    keyring.rotate()
    assert not keyring.is_settled(registry)
    changed_at = world.row(server_id).updated_at
    assert keyring.reencrypt(registry) == 4
    assert world.row(server_id).updated_at == changed_at, "nobody changed the server"
    assert keyring.reencrypt(registry) == 0
    assert keyring.is_settled(registry)
    row = world.row(server_id)
    assert {row.secret_access_key.partition(":")[0], row.box_keys.partition(":")[0]} == {keyring.newest}
    assert keyring.decrypt(row.secret_access_key) == Secret("the-secret-key-of-the-test")
    with registry.reading() as session:
        payload = session.get_one(Operation, pending).payload
    assert payload
    assert json.loads(keyring.decrypt(payload).reveal())["secret_access_key"] == "another-secret"


def test_a_rotation_that_was_killed_is_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the new key was made, and killed in the middle of the rows: nothing is lost, and the next run ends it."""
    keyring, registry = world.service.keyring, world.registry
    ids = [world.made(env_name=f"wine-{number}") for number in range(3)]
    keyring.rotate()
    encrypt, calls = keyring.encrypt, iter(range(100))

    def killed(secret: Secret) -> str:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return encrypt(secret)

    monkeypatch.setattr(keyring, "encrypt", killed)
    with pytest.raises(KeyboardInterrupt):
        keyring.reencrypt(registry)
    monkeypatch.undo()
    assert all(keyring.decrypt(world.row(each).secret_access_key) == Secret("the-secret-key-of-the-test") for each in ids)
    assert keyring.reencrypt(registry) == 9
    assert keyring.is_settled(registry)
