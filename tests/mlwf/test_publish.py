"""mlwf publish and mlwf verify against a real object store."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlwf.publish.model_card import is_ours, model_card
from mlwf.publish.upload import PART

from tests.mlwf.publishing import Shell, make_package
from tests.support.box import until
from tests.support.s3 import S3Store

MLWF = Path(sys.executable).parent / "mlwf"


def loaded(package: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((package / "info.yaml").read_text("utf-8"))
    return content


def names(store: S3Store, bucket: str) -> list[str]:
    return [each["Key"] for each in store.client().list_objects_v2(Bucket=bucket).get("Contents", ())]


def everything(package: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in package.iterdir()}


def test_publish_verify_and_again(package: Path, sh: Shell) -> None:
    bucket = sh.store.make_bucket()
    (package / "info.yaml").write_text((package / "info.yaml").read_text().replace("Name: wine", "Name: wine  # my own words"))
    assert sh("publish", str(package), f"s3://{bucket}/wine/2/") == 0
    assert names(sh.store, bucket) == ["wine/2/README.md", "wine/2/info.yaml", "wine/2/model.tar.gz"]
    assert "Application: registration of a model" in sh.out
    assert "alice@example.org" in sh.out
    assert "Only those with access to the bucket can read it." in sh.err
    form = loaded(package)
    assert form["Distribution"]["ContentURL"] == [f"s3://{bucket}/wine/2/model.tar.gz"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", form["DatePublished"])
    text = (package / "info.yaml").read_text("utf-8")
    assert "# my own words" in text
    assert "# Registration form of this model" in text
    assert (package / "info.yaml").stat().st_mode & 0o777 == 0o640

    before = everything(package)
    assert sh("publish", str(package), f"s3://{bucket}/wine/2") == 0
    assert "There already, unchanged: model.tar.gz, info.yaml, README.md" in sh.err
    assert everything(package) == before
    assert sh("verify", f"s3://{bucket}/wine/2/model.tar.gz") == 0
    assert sh("verify", str(package), "--json") == 0
    told = json.loads(sh.out)
    assert (told["files"], told["problems"], told["unpacked"]) == (2, [], 1012)


def test_a_prefix_with_spaces_is_no_fault_of_the_form(package: Path, sh: Shell) -> None:
    place = f"s3://{sh.store.make_bucket()}/赤 ワイン\u30001/"
    assert sh("publish", str(package), place) == 0
    assert sh("publish", str(package), place) == 0, sh.err
    assert sh("verify", place) == 0, sh.err
    (package / "info.yaml").write_text((package / "info.yaml").read_text("utf-8").replace("s3://", "https://"), "utf-8")
    assert sh("verify", str(package)) == 1
    assert "ContentURL is not a URL" in sh.err


def test_another_package_is_not_overwritten_unasked(package: Path, tmp_path: Path, sh: Shell) -> None:
    bucket, other = sh.store.make_bucket(), make_package(tmp_path / "other", weights=b"other")
    assert sh("publish", str(package), f"s3://{bucket}/m/") == 0
    assert sh("publish", str(other), f"s3://{bucket}/m/") == 1
    assert "There is already another package at" in sh.err
    assert sh("publish", str(other), f"s3://{bucket}/m/", "--replace") == 0
    assert sh("verify", f"s3://{bucket}/m/") == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Name: wine", "Name: wine: [", "info.yaml is not valid YAML in line"),
        ("Name: wine", "Nmae: wine", "Nmae is not a key of this form. Did you mean Name?"),
        ("Name: wine", "Name: ''", "Name is required and empty"),
        ("Version: '2'", "Version: 2.10", "Version is not text. Write it in quotes."),
        ("Email: alice@example.org", "Email: at home", "Creator.ContactPoint.Email is not an e-mail address"),
        ("Keywords:\n- wine\n- regression", "Keywords: wine", "Keywords is not a list"),
        ("measurements of it.", "", "Description has 44 characters and needs at least 50"),
        ("DateCreated: ''", "DateCreated: yesterday", "DateCreated is not a date"),
    ],
)
def test_a_form_edited_into_nonsense(package: Path, old: str, new: str, said: str, sh: Shell) -> None:
    """Each message has the line; nothing is uploaded."""
    text = (package / "info.yaml").read_text("utf-8")
    assert old in text
    (package / "info.yaml").write_text(text.replace(old, new), "utf-8")
    bucket = sh.store.make_bucket()
    assert sh("publish", str(package), f"s3://{bucket}/m/") == 1
    err = sh.err
    assert said in err
    line = 1 + text[: text.index(old)].count("\n")
    assert re.search(rf"line ({line}|{line - 1}|{line + 1})\b", err), err
    assert names(sh.store, bucket) == []


def test_what_is_no_package_is_said(package: Path, tmp_path: Path, sh: Shell) -> None:
    with (package / "model.tar.gz").open("ab") as file:
        file.write(b"x")
    assert sh("publish", str(package), "s3://bucket/m/") == 1
    assert "model.tar.gz was changed after the export" in sh.err
    assert sh("verify", str(package)) == 1
    assert sh("publish", str(tmp_path), "s3://bucket/m/") == 1
    assert "Name a folder that mlwf_export_model made." in sh.err
    assert sh("publish", str(package), "https://bucket/m/") == 2
    assert sh("verify", "nowhere") == 2


def test_the_recorded_digest_must_be_there(package: Path, sh: Shell) -> None:
    text = (package / "info.yaml").read_text("utf-8")
    (package / "info.yaml").write_text(re.sub(r".*SHA-256.*\n", "", text), "utf-8")
    assert sh("publish", str(package), "s3://bucket/m/") == 1
    assert "Put this line back" in sh.err


def test_refusals_of_the_store(package: Path, sh: Shell) -> None:
    bucket, reader = sh.store.make_bucket(), sh.store.reader
    keys = {"AWS_ACCESS_KEY_ID": reader.access_key, "AWS_SECRET_ACCESS_KEY": reader.secret_key}
    assert sh("publish", str(package), f"s3://{bucket}/m/", **keys) == 1
    assert "your key may not do that" in sh.err
    assert sh("publish", str(package), "s3://no-such-bucket-here/m/") == 1
    assert sh("publish", str(package), f"s3://{bucket}/m/", AWS_SECRET_ACCESS_KEY="not-the-secret") == 1
    assert "the secret of your key is wrong. Check AWS_SECRET_ACCESS_KEY." in sh.err
    assert sh("publish", str(package), f"s3://{bucket}/m/", AWS_ACCESS_KEY_ID="nobody") == 1
    assert "the store does not know your key. Check AWS_ACCESS_KEY_ID" in sh.err
    assert "not-the-secret" not in sh.err
    assert sh("publish", str(package), f"s3://{bucket}/m/", MLFLOW_S3_ENDPOINT_URL="http://127.0.0.1:9") == 1
    assert "Check MLFLOW_S3_ENDPOINT_URL" in sh.err


def test_a_store_that_ignores_acls_is_found_out(package: Path, sh: Shell) -> None:
    """The embedded store takes an ACL and keeps none."""
    bucket = sh.store.make_bucket()
    assert sh("publish", str(package), f"s3://{bucket}/m/", "--acl", "public-read") == 1
    assert "ACL" in sh.err or "cannot be read without a key" in sh.err
    assert "Try --by-policy" in sh.err
    assert sh("publish", str(package), f"s3://{bucket}/m/", "--acl", "private", "--by-policy") == 2


def test_a_policy_that_opens_nothing_is_found_out_and_not_advised_again(package: Path, sh: Shell) -> None:
    """Another statement of the bucket's goes before it: here one against the program that reads without a key."""
    bucket = sh.store.make_bucket()
    condition = {"StringEquals": {"aws:UserAgent": "mlwf"}}
    place = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", **place, "Condition": condition}]}
    sh.store.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    assert sh("publish", str(package), f"s3://{bucket}/m/", "--by-policy") == 1
    assert "cannot be read without a key" in sh.err
    assert "Run it again in a minute" in sh.err
    assert "Try --by-policy" not in sh.err


def test_killed_while_uploading_and_taken_up_again(tmp_path: Path, sh: Shell) -> None:
    """After kill -9 the parts that arrived are not sent again, and no unfinished upload is left at the end."""
    package = make_package(tmp_path / "large", weights=os.urandom(6 * PART))
    bucket, client = sh.store.make_bucket(), sh.store.client()
    key = "m/model.tar.gz"

    def parts() -> int:
        uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
        return sum(len(client.list_parts(Bucket=bucket, Key=key, UploadId=each["UploadId"]).get("Parts", [])) for each in uploads)

    argv = [MLWF, "publish", package, f"s3://{bucket}/m/"]
    running = subprocess.Popen(argv, env={**os.environ, **sh.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: parts() > 0, what="the first part")
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = client.list_multipart_uploads(Bucket=bucket, Prefix=key)["Uploads"]
    assert len(before) == 1
    client.create_multipart_upload(Bucket=bucket, Key="m/model.tar.gz.other")
    assert sh("publish", str(package), f"s3://{bucket}/m/") == 0
    left = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [each["Key"] for each in left] == ["m/model.tar.gz.other"]
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert body == (package / "model.tar.gz").read_bytes()
    assert sh("verify", f"s3://{bucket}/m/") == 0


def test_parts_can_be_removed(package: Path, sh: Shell) -> None:
    bucket, client = sh.store.make_bucket(), sh.store.client()
    client.create_multipart_upload(Bucket=bucket, Key="m/model.tar.gz")
    assert sh("publish", str(package), f"s3://{bucket}/m/", "--abort") == 0
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert names(sh.store, bucket) == []
    assert "1 unfinished" in sh.err
    client.create_multipart_upload(Bucket=bucket, Key="m/model.tar.gz")
    assert sh("publish", str(package), f"s3://{bucket}/m/", "--abort", "--json") == 0
    assert json.loads(sh.out) == {"removed": 1}


def test_the_card_never_loses_a_humans_words(package: Path, tmp_path: Path, sh: Shell) -> None:
    url = f"s3://{sh.store.make_bucket()}/m/"
    assert sh("publish", str(package), url) == 0
    card = (package / "README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["license"], front["tags"]) == ("mlflow", "cc-by-4.0", ["wine", "regression"])
    assert "# wine" in card
    assert is_ours(card)
    assert model_card(loaded(package)) == card
    (package / "README.md").write_text(card + "My own words\n", "utf-8")
    assert sh("publish", str(package), url) == 0
    assert (package / "README.md").read_text("utf-8").endswith("My own words\n")


@pytest.mark.parametrize(
    ("kind", "size", "told", "said"),
    [
        (tarfile.GNUTYPE_LONGNAME, 8 << 20, {}, "an entry says too much of itself"),
        (tarfile.REGTYPE, 512, {"GNU.sparse.map": "0,512"}, "MLmodel is neither a file nor a folder"),
        (tarfile.REGTYPE, 512, {"GNU.sparse.map": "0,x"}, "invalid literal"),
    ],
)
def test_verify_bears_a_strangers_archive(kind: bytes, size: int, told: dict[str, str], said: str, package: Path, sh: Shell) -> None:  # noqa: PLR0917
    """A megabyte became three gigabytes of memory, and what is no number was told as a fault of the tool."""
    with tarfile.open(package / "model.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("MLmodel")
        entry.type, entry.size, entry.pax_headers = kind, size, told
        archive.addfile(entry, io.BytesIO(bytes(size)))
    assert sh("verify", str(package)) == 1
    assert f"model.tar.gz is not a model package: {said}" in sh.err


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "link", "no model"])
def test_verify_finds_damage(package: Path, damage: str, sh: Shell) -> None:
    tarball = package / "model.tar.gz"
    content = bytearray(tarball.read_bytes())
    if damage == "cut":
        tarball.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-6] ^= 1
        tarball.write_bytes(content)
    elif damage == "empty":
        tarball.write_bytes(b"")
    else:
        with tarfile.open(tarball, "w:gz") as archive:
            entry = tarfile.TarInfo("MLmodel" if damage == "link" else "other")
            entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc/passwd") if damage == "link" else (tarfile.REGTYPE, "")
            archive.addfile(entry)
    assert sh("verify", str(package)) == 1
    assert "Export the model again." in sh.err
    shutil.rmtree(package)
