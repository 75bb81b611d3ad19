"""What the box lets through to MLflow, and MLflow's own checks behind it."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.support.box import Box
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box
MakeBox = Callable[..., Box]


def spelled(box: Box, path: str, method: str = "GET", **options: object) -> requests.Response:
    """A request whose path is sent exactly as written."""
    prepared = requests.Request(method, box.origin, auth=box.auth, **options).prepare()  # type: ignore[arg-type]
    prepared.url = box.origin + path
    with requests.Session() as session:
        return session.send(prepared, timeout=60, allow_redirects=False)


DENIED = [
    "/mlflow/ajax-api/3.0/mlflow/assistant/config",
    "/mlflow/api/3.0/mlflow/assistant/config",
    "/mlflow/ajax-api/3.0/jobs/1",
    "/mlflow/ajax-api/3.0/jobs",
    "/mlflow/api/3.0/jobs/search",
    "/mlflow/api/3.0/mlflow/prompt-optimization/jobs",
    "/mlflow/ajax-api/3.0/mlflow/scorer/invoke",
    "/mlflow/ajax-api/3.0/mlflow/genai/evaluate/invoke",
    "/mlflow/gateway/mlflow/v1/models",
    "/mlflow/gateway",
    "/mlflow/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=x",
    "/mlflow/api/3.0/mlflow/gateway/secrets/list",
    "/mlflow/ajax-api/3.0/mlflow/gateway/endpoints/list",
]


def spellings(path: str) -> list[str]:
    head, _, tail = path.removeprefix("/mlflow/").partition("/")
    last = path.rsplit("/", 1)[1]
    return [
        path,
        f"/mlflow//{head}//{tail}",
        f"/mlflow/./x/../{head}/{tail}",
        f"/mlflow/%{ord(head[0]):02x}{head[1:]}/{tail}",
        f"/mlflow%2f{head}%2F{tail}",
        f"/%6dlflow/{head}/{tail}",
        path.replace(last, f"%{ord(last[0]):02X}{last[1:]}"),
    ]


@pytest.mark.parametrize("path", DENIED)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_routes_that_a_shared_server_must_not_have_are_403(box: Box, path: str, method: str) -> None:
    for spelling in spellings(path):
        answer = spelled(box, spelling, method, json={} if method != "GET" else None)
        assert answer.status_code == 403, (spelling, answer.status_code, answer.text[:200])
        assert answer.json()["error_code"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "path", [path.removeprefix("/mlflow") for path in DENIED] + ["/api/2.0/mlflow/experiments/search", "/mlflowx/", "/build/x"]
)
def test_nothing_is_served_outside_the_prefix(box: Box, path: str) -> None:
    assert spelled(box, path).status_code == 404
    assert spelled(box, f"/mlflow/..{path}").status_code == 404


def test_the_root_leads_to_mlflow(box: Box) -> None:
    for path in ("/", "/mlflow"):
        answer = spelled(box, path)
        assert (answer.status_code, answer.headers["Location"]) == (308, "/mlflow/")


def test_a_stranger_host_is_refused_by_mlflow(box: Box) -> None:
    assert box.request("GET", "/", headers={"Host": "evil.example"}).status_code == 403


def test_a_hosts_name_means_the_same_with_and_without_capitals(own_box: MakeBox) -> None:
    """`requests` and browsers send it in lower case, whatever was typed; curl as it was typed."""
    box = own_box(idle_seconds=0)
    box.write_settings(public_hosts=[f"MLFlow01.Example.org:{box.port}"])
    box.start()
    for host in ("mlflow01.example.org", "MLFlow01.Example.org", "MLFLOW01.example.org"):
        named = {"Host": f"{host}:{box.port}"}
        assert box.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers=named).status_code == 200, host
    own = {"Host": f"mlflow01.example.org:{box.port}", "Origin": f"http://mlflow01.example.org:{box.port}"}
    assert box.request("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1}, headers=own).status_code == 200
    assert box.request("GET", "/", headers={"Host": f"mlflow02.example.org:{box.port}"}).status_code == 403


def test_big_requests_are_413_except_artifacts(box: Box) -> None:
    big = b"x" * (65 * 1024 * 1024)
    answer = box.request("POST", "/api/2.0/mlflow/runs/log-batch", data=big, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
    path = "/api/2.0/mlflow-artifacts/artifacts/0/big/artifacts/big.bin"
    put = box.request("PUT", path, data=big)
    assert put.status_code == 200, f"{put.text}\n{box.last_words()}"
    assert box.request("GET", path).content == big


def test_logs_hold_no_query_and_no_credential(box: Box, s3_store: S3Store) -> None:
    box.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0&secret=in-the-query")
    box.request("GET", "/-/info", auth=("alice", "a wrong secret"))
    requests.get(f"{box.url}/-/info", headers={"Authorization": "Bearer a-token-in-a-header"}, timeout=10)
    keys = (box.home / "config" / "keys.json").read_text().split('"')[3::4]
    secrets = ["in-the-query", box.auth[1], "a wrong secret", "a-token-in-a-header", s3_store.owner.secret_key, *keys]
    texts = [log.read_text(errors="replace") for log in (box.home / "log").iterdir()]
    for process in box.processes():
        texts.append(" ".join(process.cmdline()))
        texts.append("\n".join(f"{name}={value}" for name, value in process.environ().items()))
    texts.append((box.home / "run" / "nginx.conf").read_text())
    for text in texts:
        assert [secret for secret in secrets if secret in text] == []


def test_what_users_are_told_of_their_server_is_all_but_its_key(box: Box, s3_store: S3Store) -> None:
    answer = box.request("GET", "/-/info")
    told = ("server_id", "mlflow_version", "bucket", "prefix", "endpoint_url", "region")
    expected = {**{name: box.settings[name] for name in told}, "artifact_access": "proxied", "principal": "basic:alice"}
    assert answer.json() == expected
    assert [key for key in (s3_store.owner.access_key, s3_store.owner.secret_key) if key in answer.text] == []


def test_files_and_folders_are_the_owners_alone(box: Box) -> None:
    open_to_others = [
        path for path in box.home.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink() and path.parent.name != "config"
    ]
    assert [path for path in open_to_others if path.parent != box.home and "config" not in path.parts] == []


def test_a_webhook_made_before_a_sleep_works_after_it(box: Box) -> None:
    webhook = {
        "name": "hook",
        "url": "https://8.8.8.8/hook",
        "secret": "s",
        "status": "DISABLED",
        "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
    }
    made = box.request("POST", "/api/2.0/mlflow/webhooks", json=webhook)
    assert made.status_code == 200, made.text
    number = made.json()["webhook"]["webhook_id"]
    before = box.mlflow_process()
    box.write_settings(idle_seconds=0.2)
    before.wait(60)
    box.wait_state("asleep")
    assert box.request("GET", f"/api/2.0/mlflow/webhooks/{number}").json()["webhook"]["name"] == "hook"
    assert box.request("PATCH", f"/api/2.0/mlflow/webhooks/{number}", json={"description": "again"}).status_code == 200
    box.write_settings(idle_seconds=0)


@pytest.mark.parametrize("path", ["/mlflow/health", "/mlflow/version", "/mlflow/-/health"])
def test_nothing_is_kept_of_a_strangers_body(box: Box, path: str) -> None:
    assert requests.get(box.origin + path, timeout=60).status_code == 200
    assert requests.post(box.origin + path, data=b"x" * 1000, timeout=60).status_code == 413
    assert requests.post(box.origin + path, data=iter([b"x" * 1000]), timeout=60).status_code == 413
    page = {"Accept": "text/html", "X-Forwarded-User": "mallory"}
    refused = requests.get(f"{box.origin}/mlflow/page", data=b"x" * 1000, headers=page, timeout=60)
    assert (refused.status_code, refused.headers["Content-Type"]) == (401, "application/json")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_only_an_upload_has_a_body_on_the_artifact_route(box: Box, method: str) -> None:
    url = f"{box.origin}/mlflow/api/2.0/mlflow-artifacts/artifacts/0/bodies/x"
    for body in (b"x" * 1000, iter([b"x" * 1000])):
        answer = requests.request(method, url, data=body, auth=box.auth, timeout=60)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_name_with_a_line_end_is_refused_and_is_no_other_file(box: Box) -> None:
    place = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/newlines/x"
    assert spelled(box, place, "PUT", data=b"the one").status_code == 200
    for other in ("%0A", "%0Ay", "%7F"):
        assert spelled(box, place + other, "PUT", data=b"another").status_code == 400
        assert spelled(box, place + other, "DELETE").status_code == 400
    assert spelled(box, place).text == "the one"


FOREIGN = ["https://evil.example", "http://localhost:8888", "http://127.0.0.1:8888", "https://localhost", "null"]
CHANGES = [
    ("POST", "/api/2.0/mlflow/experiments/search", {"json": {"max_results": 1}}),
    ("POST", "/ajax-api/2.0/mlflow/experiments/search", {"json": {"max_results": 1}}),
    ("POST", "/graphql", {"json": {"query": "{__typename}"}}),
    ("POST", "/v1/traces", {"data": b"", "headers": {"Content-Type": "application/x-protobuf", "X-MLflow-Experiment-Id": "0"}}),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/foreign", {"data": b"x"}),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/0/foreign", {}),
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_others_change_and_read_nothing_by_a_password_that_the_browser_remembers(box: Box, origin: str) -> None:
    for method, path, given in CHANGES:
        options: dict[str, Any] = {**given, "headers": {**given.get("headers", {}), "Origin": origin}}  # type: ignore[dict-item]
        answer = box.request(method, path, **options)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), (path, answer.text[:200])
        assert "another site" in answer.json()["message"]
    read = box.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Origin": origin})
    assert read.status_code == 200
    assert read.headers.get("Access-Control-Allow-Origin") in (None, box.origin)


def test_pages_of_the_servers_own_origin_change_something(box: Box) -> None:
    for method, path, given in CHANGES[:3]:
        assert box.request(method, path, headers={"Origin": box.origin}, **given).status_code == 200  # type: ignore[arg-type]
