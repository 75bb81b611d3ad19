"""Artifacts through the box: to the object store, streamed, bounded, harmless."""

import os
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests

from tests.support.box import ROOT, Box, until
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box


def new_run(box: Box) -> tuple[str, str]:
    """Experiment and run ids in the default experiment."""
    run = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]
    return run["run_id"], run["artifact_uri"]


def artifact_path(uri: str) -> str:
    assert uri.startswith("mlflow-artifacts:/")
    return f"/api/2.0/mlflow-artifacts/artifacts/{uri.removeprefix('mlflow-artifacts:/')}"


def test_an_artifact_lands_under_the_servers_own_prefix(box: Box, s3_store: S3Store) -> None:
    run_id, uri = new_run(box)
    assert uri == f"mlflow-artifacts:/0/{run_id}/artifacts"
    answer = box.request("PUT", f"{artifact_path(uri)}/a dir/ü%3F.txt", data=b"content")
    assert answer.status_code == 200, answer.text
    key = f"{box.settings['prefix']}/0/{run_id}/artifacts/a dir/ü?.txt"
    assert s3_store.client().get_object(Bucket=box.settings["bucket"], Key=key)["Body"].read() == b"content"
    assert box.request("GET", f"{artifact_path(uri)}/a dir/ü%3F.txt").content == b"content"
    listed = box.api("GET", "artifacts/list", params={"run_id": run_id, "path": "a dir"})
    assert [file["path"] for file in listed["files"]] == ["a dir/ü?.txt"]


@pytest.mark.parametrize("name", ["語" * 86, "/".join(["語" * 60] * 6)], ids=["for a file system", "for the store"])
def test_a_name_that_is_too_long_is_said_and_not_tried_again(box: Box, name: str) -> None:
    """On a Mac or Windows a name may have 255 Japanese letters; MLflow's clients repeat what is answered by 500 or 503 for minutes."""
    _run_id, uri = new_run(box)
    answer = box.request("PUT", f"{artifact_path(uri)}/{name}", data=b"x")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert "choose shorter names" in answer.json()["message"]


def test_an_artifact_is_deleted_through_the_server_and_nothing_beside_it(box: Box, s3_store: S3Store) -> None:
    """Clients remove artifacts by the same address; one that leaves the server's own prefix removes nothing."""
    run_id, uri = new_run(box)
    for name in ("one", "two"):
        assert box.request("PUT", f"{artifact_path(uri)}/{name}", data=b"x").status_code == 200
    s3_store.client().put_object(Bucket=box.settings["bucket"], Key="mlflow/another/secret", Body=b"x")
    assert box.request("DELETE", f"{artifact_path(uri)}/one", auth=None).status_code == 401
    assert box.request("DELETE", f"{artifact_path(uri)}/one").status_code == 200
    assert [file["path"] for file in box.api("GET", "artifacts/list", params={"run_id": run_id})["files"]] == ["two"]
    assert box.request("GET", f"{artifact_path(uri)}/two").content == b"x"
    root = "/api/2.0/mlflow-artifacts/artifacts"
    for path in (f"{root}/%2e%2e/another/secret", f"{root}/..%2fanother%2fsecret", f"{root}/0/%252e%252e/%252e%252e/another/secret"):
        assert box.request("DELETE", path).status_code >= 400
    assert s3_store.client().head_object(Bucket=box.settings["bucket"], Key="mlflow/another/secret")["ContentLength"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/get-artifact?run_id={run}&path=x.html",
        "//get-artifact?run_id={run}&path=x.html",
        "/./%67et-artifact?run_id={run}&path=x.html",
        "/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html",
        "/%61jax-api//2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html",
    ],
)
def test_uploaded_pages_are_sandboxed_however_the_path_is_spelled(box: Box, path: str) -> None:
    run_id, uri = new_run(box)
    box.request("PUT", f"{artifact_path(uri)}/x.html", data=b"<script>1</script>")
    session = requests.Session()
    prepared = session.prepare_request(requests.Request("GET", box.url, auth=box.auth))
    prepared.url = box.url + path.format(run=run_id)
    answer = session.send(prepared, timeout=60)
    assert answer.content == b"<script>1</script>", answer.text
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_download_by_mlflows_page_is_not_held_in_memory(
    own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]
) -> None:
    box, size = own_box(idle_seconds=0, **store_settings), 256 * 1024**2
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    run_id, uri = new_run(box)
    key = f"{box.settings['prefix']}/{uri.removeprefix('mlflow-artifacts:/')}"
    for name, length in (("first", 1000), ("big", size)):
        s3_store.client().put_object(Bucket=box.settings["bucket"], Key=f"{key}/{name}", Body=bytes(length))
    box.request("GET", "/get-artifact", params={"run_id": run_id, "path": "first"})  # what is imported at the first use
    process = Path(f"/proc/{box.mlflow_process().pid}")
    (process / "clear_refs").write_text("5")  # the kernel's note of the most that it had
    before = most_memory(process)
    with box.request("GET", "/get-artifact", params={"run_id": run_id, "path": "big"}, stream=True) as answer:
        assert sum(len(chunk) for chunk in answer.iter_content(4096)) == size
    assert most_memory(process) - before < size / 4
    until(lambda: not any(files for _where, _folders, files in os.walk(box.home / "tmp")), seconds=20, what="an empty tmp/")


def most_memory(process: Path) -> int:
    (line,) = [each for each in (process / "status").read_text().splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_direct_access_gives_new_experiments_the_bucket_itself(
    own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]
) -> None:
    box = own_box(artifact_access="direct", idle_seconds=0, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    own = f"s3://{box.settings['bucket']}/{box.settings['prefix']}"
    run_id, uri = new_run(box)
    assert uri == f"{own}/0/{run_id}/artifacts"
    made = box.api("POST", "experiments/create", json={"name": "mine"})["experiment_id"]
    assert box.api("GET", "experiments/get", params={"experiment_id": made})["experiment"]["artifact_location"] == f"{own}/{made}"
    key = f"{box.settings['prefix']}/0/{run_id}/artifacts/x.txt"
    s3_store.client().put_object(Bucket=box.settings["bucket"], Key=key, Body=b"direct")
    assert box.request("GET", "/get-artifact", params={"run_id": run_id, "path": "x.txt"}).content == b"direct"


def test_a_full_disk_is_507_and_leaves_no_part(own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]) -> None:
    """A file system of 40 MB under `tmp/`: an upload that does not fit there, though the setting would let it."""
    box = own_box(idle_seconds=0, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    tmp = box.home / "tmp"
    tmp.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", tmp], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    try:
        box.start()
        _, uri = new_run(box)
        answer = box.request("PUT", f"{artifact_path(uri)}/big.bin", data=b"x" * 50_000_000)
        assert answer.status_code == 507, answer.text
        assert answer.json()["error_code"] == "RESOURCE_EXHAUSTED"
        prefix = f"{box.settings['prefix']}/{uri.removeprefix('mlflow-artifacts:/')}"
        assert s3_store.client().list_objects_v2(Bucket=box.settings["bucket"], Prefix=prefix)["KeyCount"] == 0
        assert box.request("PUT", f"{artifact_path(uri)}/small.bin", data=b"x" * 1000).status_code == 200
        s3_store.client().put_object(Bucket=box.settings["bucket"], Key=f"{prefix}/large", Body=b"x" * 50_000_000)
        by_run = box.request("GET", "/get-artifact", params={"run_id": uri.split("/")[-2], "path": "large"})
        for fetched in (answer, box.request("GET", f"{artifact_path(uri)}/large"), by_run):
            assert (fetched.status_code, fetched.headers.get("Retry-After")) == (507, "30"), fetched.text
    finally:
        box.stop()
        subprocess.run(["umount", tmp], check=True)


def test_a_bounded_spool_and_a_bounded_upload(own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]) -> None:
    box = own_box(idle_seconds=0, tmp_bytes=1_000_000, workers=2, **store_settings)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    box.start()
    _, uri = new_run(box)
    assert box.request("PUT", f"{artifact_path(uri)}/900000", data=b"x" * 900_000).status_code == 200
    refused = box.request("PUT", f"{artifact_path(uri)}/1100000", data=b"x" * 1_100_000)
    assert (refused.status_code, refused.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
    assert "more than 1000000 bytes cannot pass" in refused.json()["message"]
    key = f"{box.settings['prefix']}/{uri.removeprefix('mlflow-artifacts:/')}/big"
    s3_store.client().put_object(Bucket=box.settings["bucket"], Key=key, Body=b"x" * 1_100_000)
    run_id = uri.split("/")[-2]
    big = box.request("GET", f"{artifact_path(uri)}/big"), box.request("GET", "/get-artifact", params={"run_id": run_id, "path": "big"})
    assert [(answer.status_code, answer.json()["error_code"]) for answer in big] == [(507, "RESOURCE_EXHAUSTED")] * 2
    assert [(answer.json()["message"], answer.headers.get("Retry-After")) for answer in big] == [(refused.json()["message"], None)] * 2
    assert len(box.request("GET", f"{artifact_path(uri)}/900000").content) == 900_000
    _folders_are_refused(box, s3_store, uri)


def _folders_are_refused(box: Box, s3_store: S3Store, uri: str) -> None:
    """Nothing of them is fetched, or it would be 507. What is a file as well is sent."""
    root = f"{box.settings['prefix']}/{uri.removeprefix('mlflow-artifacts:/')}"
    for name in ("folder/one", "folder/deep/two", "both", "both/one"):
        s3_store.client().put_object(Bucket=box.settings["bucket"], Key=f"{root}/{name}", Body=b"x" * 700_000)
    run_id, whole = uri.split("/")[-2], artifact_path(uri).partition(uri.split("/")[-2])[0].rstrip("/")
    asked = [
        box.request("GET", whole),
        box.request("GET", f"{artifact_path(uri)}/folder"),
        box.request("GET", "/get-artifact", params={"run_id": run_id, "path": "folder"}),
    ]
    assert [(answer.status_code, answer.json()["error_code"]) for answer in asked] == [(400, "INVALID_PARAMETER_VALUE")] * 3
    assert {answer.json()["message"] for answer in asked} == {
        "This is a folder, and a server sends files only: list it, and fetch its files one by one."
    }
    assert len(box.request("GET", f"{artifact_path(uri)}/both").content) == 700_000
    missing = box.request("GET", f"{artifact_path(uri)}/no")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


# With MLflow's interpreter, as a job's process is: a limit of 1000 bytes, a folder that fits and one that does not.
_JOB = """
import sys, tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from tracking_server.mlflow_process import downloads
from tracking_server.mlflow_process.spool import Spool

tmp = Path(sys.argv[2])
downloads.install(Spool(tmp, 1000))
downloads.take_folders()
repository = S3ArtifactRepository(sys.argv[1])
for name in ("small", "large"):
    with tempfile.TemporaryDirectory(dir=tmp) as place:
        try:
            repository.download_artifacts(name, place)
        except Exception as error:
            print(name, "room" in str(error))
        else:
            print(name, sum(each.stat().st_size for each in Path(place).rglob("*") if each.is_file()))
"""


def test_a_folder_that_a_job_fetches_is_bounded(
    box_environment: Path, s3_store: S3Store, store_settings: dict[str, Any], tmp_path: Path
) -> None:
    for name, size in (("small/a", 200), ("small/b/c", 200), ("large/a", 600), ("large/b/c", 600)):
        s3_store.client().put_object(Bucket=store_settings["bucket"], Key=f"job/{name}", Body=b"x" * size)
    variables = {
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": s3_store.owner.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_store.owner.secret_key,
        "AWS_DEFAULT_REGION": store_settings["region"],
        "MLFLOW_S3_ENDPOINT_URL": store_settings["endpoint_url"],
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    argv = [box_environment / "bin" / "python", "-c", _JOB, f"s3://{store_settings['bucket']}/job", tmp_path / "tmp"]
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, env=variables)
    assert done.stdout.splitlines() == ["small 400", "large True"], done.stderr


# Likewise, with an object that breaks off each time that it is fetched, and one that a store with another clock refuses.
_BROKEN = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from tracking_server.mlflow_process import downloads, failures
from tracking_server.mlflow_process.spool import Spool

failures._tell_of_the_store()
downloads.install(Spool(Path(sys.argv[2]), 1000))
for name in ("a", "late"):
    try:
        S3ArtifactRepository(sys.argv[1]).download_artifacts(name, sys.argv[2])
    except Exception as error:
        print(failures.explain(error))
print(sorted(each.name for each in Path(sys.argv[2]).iterdir()))
"""


class _Breaking(BaseHTTPRequestHandler):
    asked: ClassVar[set[str]] = set()

    def do_HEAD(self) -> None:
        self._answer(403 if self.path.endswith("/late") else 200, 100)

    def do_GET(self) -> None:
        self.asked.add(self.path)
        if "late" in self.path:
            content = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
            self._answer(403, len(content))
            self.wfile.write(content)
        else:
            self._answer(200, 100)
            self.wfile.write(b"half")
        self.close_connection = True

    def _answer(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


def test_an_object_that_breaks_off_each_time_is_the_stores_fault(box_environment: Path, tmp_path: Path) -> None:
    store = ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    thread = threading.Thread(target=store.serve_forever, args=(0.02,))
    thread.start()
    variables = {
        "PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.server_address[1]}", "PATH": os.environ["PATH"], "HOME": str(tmp_path),
    }  # fmt: skip
    (tmp_path / "tmp").mkdir()
    argv = [box_environment / "bin" / "python", "-c", _BROKEN, "s3://bucket/job", tmp_path / "tmp"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, env=variables)
    finally:
        store.shutdown()
        store.server_close()
        thread.join()
    told, refused, left = done.stdout.splitlines()
    assert told.startswith("(503,"), done.stderr
    assert "clock and the server's differ (RequestTimeTooSkewed)" in refused, "which the answer to a HEAD has no words for"
    assert left == "[]"
    # and no list of what begins so, which takes long in a bucket of many objects
    assert [path for path in _Breaking.asked if "late" not in path] == ["/bucket/job/a"]


def test_an_object_store_that_is_gone_is_said(own_box: Callable[..., Box], own_s3_store: S3Store) -> None:
    box = own_box(idle_seconds=0, bucket=own_s3_store.make_bucket(), endpoint_url=own_s3_store.endpoint_url)
    box.write_credentials(own_s3_store.owner.access_key, own_s3_store.owner.secret_key)
    box.start()
    run_id, uri = new_run(box)
    own_s3_store.stop()
    answer = box.request("PUT", f"{artifact_path(uri)}/x", data=b"x")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "object store" in answer.json()["message"]
    box.api("POST", "runs/log-metric", json={"run_id": run_id, "key": "m", "value": 1, "timestamp": 1})
    own_s3_store.start()
    assert box.request("PUT", f"{artifact_path(uri)}/x", data=b"x").status_code == 200


def test_a_wrong_key_is_said_until_a_right_one_comes(
    own_box: Callable[..., Box], s3_store: S3Store, store_settings: dict[str, Any]
) -> None:
    box = own_box(idle_seconds=0, **store_settings)
    box.start()
    _, uri = new_run(box)
    answer = box.request("PUT", f"{artifact_path(uri)}/x", data=b"x")
    assert (answer.status_code, answer.json()["error_code"]) == (424, "INVALID_STATE"), answer.text
    assert "key" in answer.json()["message"]
    # What clients with MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD ask before a download: no 403, which would be their own password's fault.
    signed = box.request("GET", f"{artifact_path(uri)}/x".replace("/artifacts/", "/presigned/", 1))
    assert (signed.status_code, signed.json()["error_code"]) == (424, "INVALID_STATE"), signed.text
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    until(lambda: box.request("PUT", f"{artifact_path(uri)}/x", data=b"x").status_code == 200, what="the right key in use")
    assert box.request("GET", f"{artifact_path(uri)}/x".replace("/artifacts/", "/presigned/", 1)).json()["file_size"] == 1
    gone = box.request("GET", f"{artifact_path(uri)}/y".replace("/artifacts/", "/presigned/", 1))
    assert (gone.status_code, gone.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
