"""What mlwf publish must not do: write over others' files, open more than was asked, believe half an answer, or fail when half is done."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.stub import Stubber
from mlwf.errors import MlwfError
from mlwf.publish import run
from mlwf.publish.access import allow_by_policy, anyone_can_read, open_by_policy, set_acl
from mlwf.publish.form_check import problems
from mlwf.publish.form_file import FormFile
from mlwf.publish.package import TARBALL
from mlwf.publish.place import Place, StoreRefusedError, parse_place, s3_client
from mlwf.publish.upload import PART, Local, Store, Upload, abort_unfinished, is_published, unfinished
from urllib3 import HTTPResponse

from tests.mlwf.faults import Fault, FaultyProxy
from tests.mlwf.publishing import Shell, make_package
from tests.support.ordinary import GROUP, USER, write_program
from tests.support.s3 import S3Store


def keys_in(store: S3Store, bucket: str) -> list[str]:
    return [each["Key"] for each in store.client().list_objects_v2(Bucket=bucket).get("Contents", ())]


@pytest.mark.parametrize("name", ["README.md", "info.yaml"])
def test_a_file_that_a_human_put_there_stays(name: str, package: Path, sh: Shell) -> None:
    """Nothing is uploaded then; --replace is the way to say that it may go."""
    bucket, client = sh.store.make_bucket(), sh.store.client()
    client.put_object(Bucket=bucket, Key=f"m/{name}", Body=b"My own words.\n")
    assert sh("publish", package, f"s3://{bucket}/m/") == 1
    assert f"There is already another file at s3://{bucket}/m/{name}" in sh.err
    assert keys_in(sh.store, bucket) == [f"m/{name}"]
    assert client.get_object(Bucket=bucket, Key=f"m/{name}")["Body"].read() == b"My own words.\n"
    assert sh("publish", package, f"s3://{bucket}/m/", "--replace") == 0
    assert client.get_object(Bucket=bucket, Key=f"m/{name}")["Body"].read() == (package / name).read_bytes()


def test_a_package_that_was_copied_there_by_hand_is_known(package: Path, sh: Shell) -> None:
    bucket, client = sh.store.make_bucket(), sh.store.client()
    for file in package.iterdir():
        client.put_object(Bucket=bucket, Key=f"m/{file.name}", Body=file.read_bytes())
    assert sh("publish", package, f"s3://{bucket}/m/") == 0
    assert "There already, unchanged: model.tar.gz" in sh.err
    (package / "README.md").write_text((package / "README.md").read_text("utf-8") + "More.\n", "utf-8")
    assert sh("publish", package, f"s3://{bucket}/m/") == 0
    assert "Uploaded: README.md" in sh.err


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket//"])
def test_a_policy_never_opens_the_whole_bucket(url: str, package: Path, sh: Shell) -> None:
    assert sh("publish", package, url, "--by-policy") == 2
    assert "--by-policy would make the whole bucket bucket public" in sh.err


def test_a_policy_never_opens_the_prefixes_of_others(package: Path, sh: Shell) -> None:
    assert sh("publish", package, "s3://bucket/*/", "--by-policy") == 2
    assert "means others too" in sh.err


def test_a_policy_whose_only_statement_is_in_no_list() -> None:
    client = boto3.client("s3", region_name="x", aws_access_key_id="a", aws_secret_access_key="b")  # asks nobody
    lone = {"Sid": "Lone", "Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b"}
    written: list[str] = []
    client.meta.events.register("provide-client-params.s3.PutBucketPolicy", lambda params, **_more: written.append(params["Policy"]))
    with Stubber(client) as stub:
        stub.add_response("get_bucket_policy", {"Policy": json.dumps({"Version": "2012-10-17", "Statement": lone})})
        stub.add_response("put_bucket_policy", {})
        assert allow_by_policy(Store(client, Place("b", "m/", "http://127.0.0.1:9")))
    statements = json.loads(written[0])["Statement"]
    assert statements[0] == lone
    assert statements[1]["Resource"] == ["arn:aws:s3:::b/m/*"]


def test_two_who_open_their_prefixes_of_one_bucket_at_once(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one writes what it read before ours was there, as soon as ours is: S3 knows no condition for a policy."""
    for name, value in sh.environ.items():
        monkeypatch.setenv(name, value)
    bucket = sh.store.make_bucket()
    ours, other = (parse_place(f"s3://{bucket}/{name}/", sh.environ) for name in ("ours", "other"))
    sh.store.client().put_object(Bucket=bucket, Key=ours.key(TARBALL), Body=b"x")
    allow_by_policy(Store(s3_client(other, sh.environ), other))
    before = sh.store.client().get_bucket_policy(Bucket=bucket)["Policy"]
    client, late = s3_client(ours, sh.environ), [before, before]

    def overwritten(**_event: object) -> None:
        if late:
            sh.store.client().put_bucket_policy(Bucket=bucket, Policy=late.pop())

    client.meta.events.register("after-call.s3.PutBucketPolicy", overwritten)
    open_by_policy(Store(client, ours), TARBALL, sh.environ)
    policy = json.loads(sh.store.client().get_bucket_policy(Bucket=bucket)["Policy"])
    assert (len(policy["Statement"]), late) == (2, [])


@pytest.mark.parametrize(("answers", "readable"), [([503, 429, 403], False), ([503, 200], True), ([401], False), ([404], False)])
def test_a_busy_store_is_asked_again_who_may_read(answers: list[int], readable: bool, s3_store: S3Store) -> None:
    proxy = FaultyProxy(s3_store.endpoint_url, lambda _path, count: Fault(status=answers[count]))
    try:
        assert anyone_can_read(f"{proxy.url}/b/m/model.tar.gz", {}, wait=lambda _seconds: None) is readable
        assert len(proxy.seen) == len(answers)
    finally:
        proxy.stop()


@pytest.mark.parametrize("status", [301, 400, 429, 503])
def test_an_answer_that_says_nothing_is_no_proof(status: int, s3_store: S3Store) -> None:
    proxy = FaultyProxy(s3_store.endpoint_url, lambda _path, _count: Fault(status=status))
    try:
        with pytest.raises(MlwfError, match=f"is not known: HTTP {status}"):
            anyone_can_read(f"{proxy.url}/b/m/model.tar.gz", {}, wait=lambda _seconds: None)
    finally:
        proxy.stop()


def test_a_store_that_nobody_reaches_is_no_proof() -> None:
    with pytest.raises(MlwfError, match=r"is not known: Connection refused"):
        anyone_can_read("http://127.0.0.1:9/b/m/model.tar.gz", {}, wait=lambda _seconds: None)


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user may enter; the tests' own are one user's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_uploaded(anybodys: Path, sh: Shell) -> None:
    """A colleague's package: the group may read it."""
    bucket, program, package = sh.store.make_bucket(), write_program(anybodys / "mlwf", "mlwf.cli.main"), make_package(anybodys / "package")
    for path in (package, *package.iterdir()):
        shutil.chown(path, group=GROUP)
    user = ["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **sh.environ}
    argv = [*user, program, "publish", package, f"s3://{bucket}/m/"]
    done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, keys_in(sh.store, bucket)) == (1, []), done.stderr
    assert "cannot be published from: Permission denied. Copy the package to a folder of yours" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"), [("赤ワイン".encode("shift-jis"), "is not UTF-8 text"), (b"x" * (1 << 20) + b"x", "is larger than a megabyte")]
)
def test_a_card_that_is_no_text_is_said_before_anything_is_uploaded(content: bytes, said: str, package: Path, sh: Shell) -> None:
    bucket = sh.store.make_bucket()
    (package / "README.md").write_bytes(content)
    assert sh("publish", package, f"s3://{bucket}/m/") == 1
    assert f"README.md {said}" in sh.err
    assert keys_in(sh.store, bucket) == []


def begun(sh: Shell, bucket: str, other: bytes, parts: int) -> None:
    """An upload of another version's tarball that was interrupted after so many parts."""
    where = {"Bucket": bucket, "Key": "m/model.tar.gz"}
    client = sh.store.client()
    upload = client.create_multipart_upload(**where, Metadata={"sha256": hashlib.sha256(other).hexdigest()})["UploadId"]  # type: ignore[arg-type]
    for number in range(1, parts + 1):
        part = other[(number - 1) * PART : number * PART]
        client.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)  # type: ignore[arg-type]


def test_a_disk_that_is_full_when_the_form_is_filled(package: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tarball is there already; it was a fault of the tool."""
    url = f"s3://{sh.store.make_bucket()}/m/"

    def full(_part: Path, _form: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(run, "rename", full)
        assert sh("publish", package, url) == 1
    assert "cannot be published from: No space left on device. Free some space there" in sh.err
    assert sh("publish", package, url) == 0
    assert "There already, unchanged: model.tar.gz" in sh.err


@pytest.mark.parametrize("alike", [0, 1])
def test_another_versions_upload_is_not_taken_up(alike: int, tmp_path: Path, sh: Shell) -> None:
    """Not its digest either, where both versions begin with the same bytes."""
    package = make_package(tmp_path / "version-3", weights=os.urandom(PART + (1 << 20)))
    content = (package / "model.tar.gz").read_bytes()
    assert PART < len(content) < 2 * PART
    bucket = sh.store.make_bucket()
    begun(sh, bucket, content[:PART] * alike + os.urandom(PART * (2 - alike)), parts=1)
    assert sh("publish", package, f"s3://{bucket}/m/") == 0
    found = sh.store.client().head_object(Bucket=bucket, Key="m/model.tar.gz")
    assert found["Metadata"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert not sh.store.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert sh("publish", package, f"s3://{bucket}/m/") == 0
    assert "There already, unchanged: model.tar.gz" in sh.err


@pytest.fixture
def large(tmp_path: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Local]:
    """A file of two parts, and where to upload it."""
    for name, value in sh.environ.items():
        monkeypatch.setenv(name, value)
    content = os.urandom(PART + (1 << 20))
    (tmp_path / TARBALL).write_bytes(content)
    place = Place(sh.store.make_bucket(), "m/", sh.store.endpoint_url)
    local = Local(tmp_path / TARBALL, len(content), hashlib.sha256(content).hexdigest(), "application/gzip")
    return Store(s3_client(place, sh.environ), place), local


def upload(store: Store, local: Local) -> None:
    Upload(store, TARBALL, local, lambda _size: None).run()


def test_a_try_to_complete_that_went_well_and_whose_answer_was_lost(large: tuple[Store, Local]) -> None:
    """Amazon's store and others answer the next try so; the one of these tests says once more what it said."""
    store, local = large
    sent: list[str] = []

    def refuse(request: AWSPreparedRequest, **_event: object) -> AWSResponse:
        raw = io.BytesIO(b"<Error><Code>NoSuchUpload</Code><Message>m</Message></Error>")
        sent.append(request.url)
        upload(Store(s3_client(store.place, {}), store.place), local)
        return AWSResponse(request.url, 404, HeadersDict({}), HTTPResponse(raw, preload_content=False))

    store.client.meta.events.register("before-send.s3.CompleteMultipartUpload", refuse)
    upload(store, local)
    assert (len(sent), is_published(store, TARBALL, local), unfinished(store, TARBALL)) == (1, True, [])


def answers(store: Store, operation: str, status: int, code: str = "") -> None:
    """From now on the store refuses that operation so; without a code as it answers HEAD, which has no body."""

    def refuse(request: AWSPreparedRequest, **_event: object) -> AWSResponse:
        raw = io.BytesIO(f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else b"")
        return AWSResponse(request.url, status, HeadersDict({}), HTTPResponse(raw, preload_content=False))

    store.client.meta.events.register(f"before-send.s3.{operation}", refuse)


def test_a_temporary_key_that_has_expired_is_said(large: tuple[Store, Local]) -> None:
    """Amazon's store says so with 400: HEAD is the first that is asked, and has no word for it."""
    store, local = large
    answers(store, "HeadObject", 400)
    answers(store, "GetObject", 400, "ExpiredToken")
    with pytest.raises(StoreRefusedError, match=r"your temporary key has expired\. Get a new one"):
        is_published(store, TARBALL, local)


def test_a_bucket_that_takes_no_acls_is_said(large: tuple[Store, Local]) -> None:
    """As every new one of Amazon's."""
    store, _local = large
    answers(store, "PutObjectAcl", 400, "AccessControlListNotSupported")
    with pytest.raises(StoreRefusedError, match=r"the bucket takes no ACLs\. Try --by-policy"):
        set_acl(store, TARBALL, "public-read")


def test_what_broke_an_upload_is_said_by_a_key_that_may_not_remove_its_parts(large: tuple[Store, Local]) -> None:
    store, local = large
    answers(store, "UploadPart", 403, "QuotaExceeded")
    answers(store, "AbortMultipartUpload", 403, "AccessDenied")
    with pytest.raises(StoreRefusedError, match="the bucket is full"):
        upload(store, local)


def test_two_that_publish_the_same_at_once(large: tuple[Store, Local]) -> None:
    """One of them takes up the other's upload and completes it."""
    store, local = large
    once = threading.Lock()

    def other(**_event: object) -> None:
        if once.acquire(blocking=False):
            upload(Store(s3_client(store.place, {}), store.place), local)
            abort_unfinished(store, TARBALL)

    store.client.meta.events.register("before-call.s3.UploadPart", other)
    upload(store, local)
    assert (once.locked(), is_published(store, TARBALL, local), unfinished(store, TARBALL)) == (True, True, [])


def test_an_upload_whose_parts_were_removed_meanwhile_is_said(large: tuple[Store, Local]) -> None:
    store, local = large

    def remove(**_event: object) -> None:
        abort_unfinished(store, TARBALL)

    store.client.meta.events.register("before-call.s3.CompleteMultipartUpload", remove)
    with pytest.raises(StoreRefusedError, match=r"its parts were removed meanwhile\. Run it again") as refused:
        upload(store, local)
    assert not refused.value.lasting


@pytest.mark.parametrize("text", ["Version: !!int ''", "Version: !!bool x", "Keywords: !!omap x", "Version: !!float ''"])
def test_a_form_whose_values_are_not_what_they_say(text: str) -> None:
    with pytest.raises(MlwfError, match="not valid YAML"):
        FormFile(text)


@pytest.mark.parametrize("text", ["Creator: &c {Name: 1}\nLicense:\n  <<: *c\n", "x: &x {Name: 1}\n<<: *x\n", "Creator: !!omap [Name: 1]"])
def test_a_form_that_takes_over_what_it_has_said(text: str) -> None:
    """What stands in no line there is told by the line above it."""
    assert [problem.line for problem in problems(FormFile(text)) if problem.what == "is not text"]


@pytest.mark.parametrize("more", ["AdditionalInfo: *a11", "Keywords: *a11", "? [*a11]\n: 1", "? {a: b}\n: 1"])
def test_a_form_of_a_few_lines_that_is_endless_when_written_out(more: str, package: Path, sh: Shell) -> None:
    text = (package / "info.yaml").read_text("utf-8").replace("AdditionalInfo:", "Was:", 1).replace("Keywords:", "Were:", 1)
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12))
    (package / "info.yaml").write_text(f"{text}\na0: &a0 [x, x]\n{levels}{more}\n", "utf-8")
    assert sh("verify", package) == 1
    assert "fault of the tool" not in sh.err


@pytest.mark.parametrize(
    ("environ", "said"), [({"AWS_PROFILE": "nope"}, "nope"), ({"AWS_SECRET_ACCESS_KEY": ""}, "missing: AWS_SECRET_ACCESS_KEY")]
)
def test_aws_settings_that_lead_nowhere_are_wrong_use(environ: dict[str, str], said: str, package: Path, sh: Shell) -> None:
    assert sh("publish", package, "s3://bucket/m/", **environ) == 2
    assert said in sh.err
