"""The service with real boxes and a real object store, through its API alone: a server's whole life, and no secret where none belongs."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from mlwf.client import Client, OperationFailedError, Server, User
from mlwf.secret import Secret

from demo.ports import free_ports
from tests.service.edge.live import Live, until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.podman import running_podman
from tests.support.runtimes import containers_of, is_open, runtimes, server_processes, service_on
from tests.support.s3 import S3Store
from tests.support.secret_forms import forms_of

pytestmark = [pytest.mark.box, pytest.mark.timeout(900), pytest.mark.skipif(os.geteuid() != 0, reason="the caller's group is root's")]
GROUP = "root"
PASSWORDS = {"alice": "first password/of alice", "job": "second password/of job"}
NEXT_PASSWORD = "third password/of alice"
GIVEN = {*PASSWORDS.values(), NEXT_PASSWORD, "not-the-secret-of-it", "nothing-at-all-here"}
PORTAL = "https://portal.example.org"


@pytest.fixture(scope="module", params=[*runtimes(), pytest.param("podman", marks=[pytest.mark.heavy, pytest.mark.containers])])
def containers(request: pytest.FixtureRequest) -> Iterator[Docker | None]:
    """As everywhere, and of Podman's Docker-compatible socket besides."""
    if request.param == "process":
        yield None
        return
    docker: Docker = request.getfixturevalue("docker")
    if request.param == "docker":
        yield docker
        return
    with running_podman(docker, docker.box_image(MLFLOW_VERSION)) as podman:
        yield podman


@pytest.fixture(scope="module")
def live(containers: Docker | None, s3_store: S3Store) -> Iterator[Live]:
    (port,) = free_ports(1)
    with service_on(containers, s3_store, idle_seconds=3, portal_url=PORTAL, token_listen=f"127.0.0.1:{port}") as service:
        yield service


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with live.client() as made:
        yield made


def wish(store: S3Store, **changes: Any) -> dict[str, Any]:
    user = store.owner
    given = {"group": GROUP, "env_name": "w" * 255, "bucket": store.make_bucket(), "access_key_id": user.access_key}
    return {**given, "secret_access_key": Secret(user.secret_key), **changes}


def objects_of(store: S3Store, server: Server) -> list[str]:
    """What lies below the server's prefix."""
    found = store.client().list_objects_v2(Bucket=server.storage.bucket, Prefix=f"{server.storage.prefix}/")
    return [each["Key"] for each in found.get("Contents", [])]


def status_of(url: str, auth: tuple[str, str] | None = None, **headers: str) -> int:
    session = requests.Session()
    session.trust_env = False
    with session:
        path = "api/2.0/mlflow/experiments/search"
        return session.post(f"{url}{path}", json={"max_results": 1}, auth=auth, headers=headers, timeout=60).status_code


def test_a_key_that_is_wrong_leaves_nothing(live: Live, client: Client, s3_store: S3Store) -> None:
    with pytest.raises(OperationFailedError) as caught:
        client.wait(client.create(**wish(s3_store, env_name="wrong", secret_access_key=Secret("not-the-secret-of-it"))))
    assert caught.value.problem.code == "storage_secret_wrong"
    assert client.servers(deleted=True) == []
    assert not list((live.state / "servers").iterdir())


def test_a_whole_life(live: Live, client: Client, s3_store: S3Store, containers: Docker | None) -> None:
    asked = wish(s3_store)
    created = client.wait(client.create(**asked), timeout=200)
    assert created.message == "Service created"
    assert [step.state for step in created.steps] == ["succeeded"] * 4
    (server,) = client.servers()
    assert (len(server.env_name), len(server.id)) == (255, 12)
    assert status_of(server.inside_url, ("alice", PASSWORDS["alice"])) == 401  # nobody is registered

    client.wait(client.set_users(GROUP, server.env_name, [User(name, Secret(word)) for name, word in PASSWORDS.items()]))
    assert [status_of(server.inside_url, pair) for pair in PASSWORDS.items()] == [200, 200]
    client.wait(client.set_users(GROUP, server.env_name, [User("alice", Secret(NEXT_PASSWORD))]))
    assert status_of(server.inside_url, ("alice", NEXT_PASSWORD)) == 200
    assert [status_of(server.inside_url, pair) for pair in PASSWORDS.items()] == [401, 401]

    with pytest.raises(OperationFailedError) as caught:
        client.wait(
            client.set_storage(GROUP, server.env_name, access_key_id="AKNOBODYKNOWS", secret_access_key=Secret("nothing-at-all-here"))
        )
    assert caught.value.problem.code == "storage_key_unknown"
    assert client.server(GROUP, server.env_name).storage.access_key_id == s3_store.owner.access_key

    live.stop()  # the box goes on without the service
    assert status_of(server.inside_url, ("alice", NEXT_PASSWORD)) == 200
    live.start()
    until(lambda: client.server(GROUP, server.env_name).status in {"running", "sleeping"})

    place = f"{server.inside_url}api/2.0/mlflow-artifacts/artifacts/0/kept/artifacts/x"
    assert requests.put(place, data=b"x", auth=("alice", NEXT_PASSWORD), timeout=60).status_code == 200
    held = objects_of(s3_store, server)
    assert held
    client.wait(client.stop(GROUP, server.env_name))
    assert client.server(GROUP, server.env_name).status == "stopped"
    client.wait(client.delete(GROUP, server.env_name))
    assert client.servers() == []
    (deleted,) = client.servers(deleted=True)
    assert deleted.port == server.port
    assert objects_of(s3_store, server) == held, "the bucket is the group's"
    client.wait(client.restore(GROUP, server.env_name), timeout=200)
    assert client.server(GROUP, server.env_name).inside_url == server.inside_url
    assert status_of(server.inside_url, ("alice", NEXT_PASSWORD)) == 200
    assert objects_of(s3_store, server) == held
    check = live.aihub("check", "--json", check=False)
    failed = {each["name"] for each in json.loads(check.stdout) if each["state"] == "failure"}
    assert failed == (set() if containers is None else {"firewall"}), "which no test of the API puts in force"


def test_no_secret_is_where_none_belongs(live: Live, client: Client, s3_store: S3Store, containers: Docker | None) -> None:
    """After all that: not in a log, an argument list, the service's environment, the registry, a folder that others read, or an answer."""
    (server,) = client.servers()
    own = _own(live, server, s3_store)
    names = {*own, *GIVEN, *_used_without_password(live, client, server)}
    assert len(names) == 1 + 3 + 1 + 1 + 5 + 4
    secrets = _all_forms(names)
    for path in (path for path in live.home.rglob("*") if path.is_file()):
        with contextlib.suppress(FileNotFoundError):  # MLflow takes what lies beside its database along when it falls asleep
            content = path.read_bytes()
            assert not {secret for secret in secrets if secret.encode() in content and own.get(secret) != path}, path
            inside = live.state in path.parents
            assert not inside or not is_open(path), f"{path} is open to others"
    assert not any(secret in live.log for secret in secrets)
    parts = [_told_by(process) for process in live.parts()]
    assert all(parts)
    boxes = until(lambda: _told_while_awake(server, containers, live.state), what="MLflow among what was looked at")
    assert not any(secret in text for secret in secrets for text in (*parts, *boxes))
    answers = (
        str([each.raw for each in client.servers(deleted=True)])
        + str(client.tokens(GROUP, server.env_name))
        + live.aihub("tokens", "list", "--json").stdout
        + live.aihub("operations", "--json").stdout
        + live.aihub("audit", "--json").stdout
    )
    if containers is not None:
        answers += containers.run("inspect", *containers_of(containers, live.state))
    assert not any(secret in answers for secret in secrets)
    assert "$2b$" not in answers
    assert _operations_with_payload(live.state / "registry.db") == 0


def test_the_end_of_a_server_leaves_its_bucket_and_keeps_no_secret(live: Live, client: Client, s3_store: S3Store) -> None:
    (server,) = client.servers()
    held, secrets = objects_of(s3_store, server), _all_forms({*_own(live, server, s3_store), *GIVEN})
    assert held
    client.wait(client.delete(GROUP, server.env_name))
    assert objects_of(s3_store, server) == held
    kept = [path for path in (live.state / "kept").rglob("*") if path.is_file()]
    assert "mlflow.db" in {path.name for path in kept}
    assert [path for path in kept if any(secret.encode() in path.read_bytes() for secret in secrets)] == []
    live.aihub("servers", "purge", f"{GROUP}/{server.env_name}", "--yes")
    assert client.servers(deleted=True) == []
    assert objects_of(s3_store, server) == held


def _own(live: Live, server: Server, store: S3Store) -> dict[str, Path]:
    """What the box needs, and the service's keyring: each secret with the one file, of mode 0600, that has it."""
    config, keyring = live.state / "servers" / server.id / "config", live.state / "keys.json"
    return {
        store.owner.secret_key: config / "s3" / "credentials",
        **dict.fromkeys(json.loads((config / "keys.json").read_bytes()).values(), config / "keys.json"),
        **dict.fromkeys(_keys_in(config / "ticket_keys.json"), config / "ticket_keys.json"),
        **dict.fromkeys(_keys_in(keyring), keyring),
    }


def _all_forms(secrets: set[str]) -> set[str]:
    return {form for secret in secrets for form in forms_of(secret, *PASSWORDS)}


def _keys_in(file: Path) -> list[str]:
    return [str(each["key"]) for each in json.loads(file.read_bytes())["keys"]]


def _used_without_password(live: Live, client: Client, server: Server) -> set[str]:
    """A bearer token, a ticket, the cookie that it became, and an API token, once each was used: the part of it that proves it."""
    token = live.aihub("tokens", "create", "--user", "root").stdout.strip()
    me = f"http://{live.settings['token_listen']}/api/v1/me"
    assert requests.get(me, headers={"Authorization": f"Bearer {token}"}, timeout=60).json()["user"] == "root"
    bearer = client.create_token(GROUP, server.env_name, seconds=600)[1].reveal()
    until(lambda: status_of(server.inside_url, Authorization=f"Bearer {bearer}") == 200)
    ticket = client.ticket(GROUP, server.env_name).ticket.reveal()
    signed_in = requests.post(
        f"{server.inside_url}-/sign-in", data={"ticket": ticket}, headers={"Origin": PORTAL}, timeout=60, allow_redirects=False
    )
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    assert status_of(server.inside_url, Cookie=cookie, Origin=PORTAL) == 200
    return {*(text.split("_", 2)[2] for text in (bearer, token)), *(text.rpartition(".")[2] for text in (ticket, cookie))}


def _told_while_awake(server: Server, containers: Docker | None, state: Path) -> list[str]:
    """What the box's processes tell, MLflow's among them; nothing where it fell asleep meanwhile."""
    assert status_of(server.inside_url, ("alice", NEXT_PASSWORD)) == 200
    told = [_told_by(process) for process in server_processes(containers, state)]
    return told if any("tracking_server.mlflow_process" in each for each in told) else []


def _told_by(process: psutil.Process) -> str:
    """Arguments and environment; nothing of a child that ended while we looked."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
        return f"{process.cmdline()} {process.environ()}"
    return ""


def _operations_with_payload(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM operations WHERE payload IS NOT NULL").fetchone()
    connection.close()
    return int(count)
