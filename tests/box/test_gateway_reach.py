"""Where a server whose gateway is open may connect to: whatever a member writes into an endpoint, to nothing that is not public."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.box.parts import LEAST
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, Box, environment, until
from tests.support.s3 import S3Store
from tracking_server.mlflow_process.outwards import Store, is_public
from tracking_server.settings import from_mapping

pytestmark = pytest.mark.box
GATEWAY = "/api/3.0/mlflow/gateway"


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of the host's own loopback, as a service of the site's may have it, and what is heard there; each call ends at once."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(ConnectionError):
                    heard.append(b"")
                    heard[-1] = connection.recv(65536)

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)


def service_account(port: int) -> str:
    """A credential as Google's are, whose tokens are made at that port."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    address = f"http://127.0.0.1:{port}/token"
    return json.dumps({"type": "service_account", "client_email": "x@example.org", "private_key": pem, "token_uri": address})


def make_endpoint(box: Box, name: str, credential: str) -> None:
    secret = {"vertex_credentials": credential}
    asked = {"secret_name": name, "provider": "vertex_ai", "secret_value": secret, "auth_config": {"vertex_project": "p"}}
    made = box.request("POST", f"{GATEWAY}/secrets/create", json=asked).json()["secret"]
    model = {"name": name, "secret_id": made["secret_id"], "provider": "vertex_ai", "model_name": "gemini-x"}
    made = box.request("POST", f"{GATEWAY}/model-definitions/create", json=model).json()["model_definition"]
    chosen = {"model_definition_id": made["model_definition_id"], "linkage_type": "PRIMARY", "weight": 1.0}
    answer = box.request("POST", f"{GATEWAY}/endpoints/create", json={"name": name, "model_configs": [chosen]})
    assert answer.status_code == 200, answer.text


def question(box: Box, name: str) -> Any:
    asked = {"model": name, "messages": [{"role": "user", "content": "Is it so?"}]}
    return box.request("POST", "/gateway/mlflow/v1/chat/completions", json=asked)


def test_a_credential_leads_to_no_address_that_is_not_public(
    own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]
) -> None:
    """The object store is at such an address, and is the site's own choice."""
    box = own_box(allow_gateway=True, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    with listener() as (port, heard):
        make_endpoint(box, "elsewhere", service_account(port))
        for _ in range(3):  # the next one comes by the same connection of nginx's, and is answered as well
            answer = question(box, "elsewhere")
            assert heard == []
            assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text + box.last_words()
            assert "public addresses only, and 127.0.0.1 is none" in answer.json()["message"]
        artifact = "/api/2.0/mlflow-artifacts/artifacts/0/x"
        assert box.request("PUT", artifact, data=b"here").status_code == 200, box.last_words()
        assert box.request("GET", artifact).content == b"here"
        box.write_settings(gateway_private=True)
        until(lambda: question(box, "elsewhere").status_code and heard, what="the call, once it is allowed")
    assert heard[0].startswith(b"POST /token ")


def test_no_file_of_the_hosts_is_taken_for_a_credential(own_box: Callable[..., Box], tmp_path: Path) -> None:
    box = own_box(allow_gateway=True, gateway_private=True)
    box.start()
    with listener() as (port, heard):
        credential = service_account(port)
        (tmp_path / "somebodys.json").write_text(credential)
        make_endpoint(box, "a-file", str(tmp_path / "somebodys.json"))
        assert question(box, "a-file").status_code == 500
        assert heard == []
        make_endpoint(box, "their-own", credential)
        question(box, "their-own")
        assert heard, "it is the file that was not taken"


def test_what_fails_unforeseen_is_said_in_mlflows_form_and_hurts_no_other(own_box: Callable[..., Box]) -> None:
    box = own_box(allow_gateway=True)
    box.start()
    make_endpoint(box, "broken", "no JSON")
    history = "/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id=x&metric_key=x&max_results=many"
    for _ in range(3):
        for answer in (question(box, "broken"), box.request("GET", history)):  # of both halves of MLflow
            assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR"), answer.text + box.last_words()
    log = box.home / "log" / "mlflow.log"
    until(lambda: log.read_text().count("vertex_credentials must be a JSON string") == 3, what="the reason, each time, in the log")


# Run with MLflow's interpreter: each way to the port by which something in it connects.
WAYS = r"""
import asyncio, json, socket, sys, urllib.request
import aiohttp, requests
from tracking_server.mlflow_process import outwards
from tracking_server.settings import from_mapping
port, settings = int(sys.argv[1]), json.loads(sys.argv[2])
outwards.install(from_mapping(settings))
async def by_aiohttp(host):
    async with aiohttp.ClientSession() as session:
        await session.get(f"http://{host}:{port}/")
WAYS = {
    "requests": lambda: requests.get(f"http://127.0.0.1:{port}/"),
    "a name": lambda: requests.get(f"http://localhost:{port}/"),
    "urllib": lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/"),
    "aiohttp": lambda: asyncio.run(by_aiohttp("127.0.0.1")),
    "aiohttp, a name": lambda: asyncio.run(by_aiohttp("localhost")),
    "asyncio": lambda: asyncio.run(asyncio.open_connection("127.0.0.1", port)),
    "a name by itself": lambda: socket.socket().connect(("localhost", port)),
    "connect_ex": lambda: socket.socket().connect_ex(("127.0.0.1", port)),
    "mapped": lambda: socket.socket(socket.AF_INET6).connect(("::ffff:127.0.0.1", port)),
    "any": lambda: socket.socket().connect(("0.0.0.0", port)),
}
def refused(way):
    try:
        way()
    except (OSError, aiohttp.ClientError) as error:
        while error is not None and "public addresses only" not in str(error):
            error = error.__cause__ or error.__context__
        return error is not None
    return False
print(json.dumps({name: refused(way) for name, way in WAYS.items()}))
"""


@pytest.mark.parametrize("version", [MLFLOW_VERSION, pytest.param(OLDEST_VERSION, marks=pytest.mark.heavy)])
@pytest.mark.parametrize(
    ("settings", "bounded"),
    [({"allow_gateway": True}, True), ({"allow_gateway": True, "gateway_private": True}, False), ({"allow_gateway": False}, False)],
)
def test_no_way_out_is_forgotten(version: str, settings: dict[str, Any], *, bounded: bool) -> None:
    with listener() as (port, heard):
        argv: list[str | Path] = [environment(version) / "bin" / "python", "-P", "-c", WAYS, str(port), json.dumps(LEAST | settings)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, cwd="/tmp")
        assert done.returncode == 0, done.stderr
        refused = json.loads(done.stdout)
        assert dict.fromkeys(refused, bounded) == refused
        assert bool(heard) is not bounded


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public(host: str) -> None:
    assert is_public(host)


NOT_PUBLIC = """
10.0.0.1 127.0.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 192.0.2.1 ::1 :: fe80::1%eth0 fd00::1
::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: localhost
"""


@pytest.mark.parametrize("host", [*NOT_PUBLIC.split(), ""])
def test_what_is_not(host: str) -> None:
    assert not is_public(host)


def test_the_object_store_is_its_own_port_of_its_own_host() -> None:
    store = Store(from_mapping({**LEAST, "endpoint_url": "http://localhost:8333"}))
    assert store.is_at("127.0.0.1", 8333)
    assert not store.is_at("127.0.0.1", 8334)
    assert not store.is_at("127.0.0.2", 8333)


def test_no_link_local_address_is_the_stores() -> None:
    store = Store(from_mapping({**LEAST, "endpoint_url": "http://169.254.169.254"}))
    assert not store.is_at("169.254.169.254", 80)
    assert not store.is_at("::ffff:169.254.169.254", 80)


# Run with MLflow's interpreter, as what it installs stays. The name has another address at each look, and nobody listens at any of them.
ROTATING = r"""
import itertools, json, socket, sys
import requests
from tracking_server.mlflow_process import outwards
from tracking_server.settings import from_mapping
looks = itertools.count(1)
def rotate(host, port, *_more, **_named):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.1.{next(looks)}", port))]
socket.getaddrinfo = rotate
outwards.install(from_mapping(json.loads(sys.argv[1])))
def said():
    try:
        requests.get("http://Store.example.org:9/")
    except OSError as error:
        return str(error)
print(json.dumps([said() for _ in range(20)]))
"""


def test_a_store_may_have_another_address_at_each_look() -> None:
    settings = LEAST | {"allow_gateway": True, "endpoint_url": "http://store.example.org:9"}
    argv: list[str | Path] = [environment(MLFLOW_VERSION) / "bin" / "python", "-P", "-c", ROTATING, json.dumps(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, cwd="/tmp")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) == 20
    assert all("Connection refused" in each for each in said), said
