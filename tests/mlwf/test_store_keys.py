"""The caller's AWS settings, which may be of another day: what of them cannot be used is said, and is no fault of the tool."""

from collections.abc import Mapping
from pathlib import Path

import botocore.session
import pytest
from mlwf.errors import MlwfError, WrongUseError
from mlwf.publish.place import Place, parse_place, s3_client
from mlwf.transfer.store import Signer, StoreError, StoreSource, endpoint_of, region_of

from tests.mlwf.faults import Fault, FaultyProxy
from tests.support.s3 import S3Store

ROLE = """
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = keys
region = x
[profile keys]
aws_access_key_id = a
aws_secret_access_key = b
[profile program]
credential_process = false
[profile site]
endpoint_url = https://site.example
region = eu-west-1
[profile services]
endpoint_url = https://site.example
services = lab
[services lab]
s3 =
  endpoint_url = https://lab.example
[profile region]
region = eu-west-1
[profile gone]
credential_process = /nonexistent/program
[profile talks]
credential_process = echo hello
[profile flat]
s3 = x
aws_access_key_id = a
aws_secret_access_key = b
"""


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(ROLE)
    variables = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_PROFILE": "nope"}, r"The config profile \(nope\) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "lone"}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "program"}, "Error when retrieving credentials from custom-process"),
        ({"AWS_PROFILE": "role"}, "Could not connect to the endpoint URL"),
        ({}, "There are no AWS credentials"),
    ],
)
def test_settings_that_lead_nowhere(environ: Mapping[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=said):
        Signer("x").headers("http://127.0.0.1:9/b", {})


@pytest.mark.parametrize(
    ("environ", "endpoint", "region"),
    [
        ({"AWS_PROFILE": "site"}, "https://site.example", "eu-west-1"),
        ({"AWS_PROFILE": "services"}, "https://lab.example", "us-east-1"),
        ({"AWS_PROFILE": "region"}, "https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ({"AWS_PROFILE": "site", "AWS_ENDPOINT_URL": "https://all.example"}, "https://all.example", "eu-west-1"),
        ({"AWS_PROFILE": "services", "AWS_ENDPOINT_URL": "https://all.example"}, "https://all.example", "us-east-1"),
        (
            {"AWS_PROFILE": "site", "AWS_ENDPOINT_URL_S3": "https://s3.example", "AWS_ENDPOINT_URL": "https://all.example"},
            "https://s3.example",
            "eu-west-1",
        ),
        ({"AWS_PROFILE": "site", "AWS_DEFAULT_REGION": "eu-north-1"}, "https://site.example", "eu-north-1"),
        (
            {"AWS_PROFILE": "site", "AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://s3.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
    ],
)
def test_a_profile_says_where_the_store_is_as_for_the_aws_tools(
    environ: Mapping[str, str], endpoint: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    theirs = botocore.session.Session().create_client("s3", region_name=None if region != "us-east-1" else region)
    if not endpoint.endswith(".amazonaws.com"):
        assert theirs.meta.endpoint_url == endpoint, "what botocore itself takes"
    assert theirs.meta.region_name == region
    assert (endpoint_of(environ, {}), region_of(environ, {})) == (endpoint, region)
    place = parse_place("s3://bucket/prefix/", environ)
    ours = s3_client(place, environ).meta
    assert (place.endpoint_url, ours.endpoint_url, ours.region_name) == (endpoint, endpoint, region)


def test_a_servers_own_store_goes_before_a_profiles_and_one_that_is_named_before_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "site")
    told = {"endpoint_url": "https://server.example", "region": "mars"}
    assert (endpoint_of({}, told), region_of({}, told)) == ("https://server.example", "mars")
    assert endpoint_of({"MLFLOW_S3_ENDPOINT_URL": "https://mine.example"}, told) == "https://mine.example"
    assert parse_place("s3://bucket/prefix/", {}, profile="services").endpoint_url == "https://lab.example"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_PROFILE": "gone"}, "/nonexistent/program.*credential_process"),
        ({"AWS_PROFILE": "talks"}, "Expecting value.*credential_process"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"}, "/nonexistent/token"),
        ({"AWS_ACCESS_KEY_ID": "鍵", "AWS_SECRET_ACCESS_KEY": "b"}, "AWS_ACCESS_KEY_ID contains a character that no key can contain"),
        ({"AWS_ACCESS_KEY_ID": "a\r", "AWS_SECRET_ACCESS_KEY": "b\r"}, "AWS_ACCESS_KEY_ID contains a character.*Windows line endings"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c\r"}, "AWS_SESSION_TOKEN contains a character"),
    ],
)
def test_settings_over_which_botocore_stumbles(environ: Mapping[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were a fault of the tool, or of the folder for the export, which then did not even ask the server; a token was quoted."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=said):
        Signer("x")
    with pytest.raises(MlwfError, match=said):
        s3_client(Place("b", "p/", "http://127.0.0.1:9"), environ)


def test_a_text_where_a_section_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "flat")
    with pytest.raises(WrongUseError, match="The object store cannot be asked"):
        s3_client(Place("b", "p/", "http://127.0.0.1:9"), {})


def test_a_network_in_no_proxy_holds_for_publishing_too(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for reading, and not for botocore by itself: its requests went to the proxy, which knows nobody inside."""
    bucket = s3_store.make_bucket()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.0/8")
    assert s3_client(Place(bucket, "", s3_store.endpoint_url), {}).list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def source_of(environ: Mapping[str, str]) -> StoreSource:
    return StoreSource(endpoint_url="https://127.0.0.1:9", region=None, bucket="b", prefix="m", environ=environ)


def test_who_vouches_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile says that, too; what is not there is named, and was an "OSError" with advice about keys."""
    site, mine = tmp_path / "site.pem", tmp_path / "mine.pem"
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "config").write_text(f"[profile site]\nca_bundle = {site}\n{keys}[profile plain]\n{keys}")
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "plain")
    assert source_of({})._session.verify is True
    monkeypatch.setenv("AWS_PROFILE", "site")
    with pytest.raises(StoreError, match=f"ca_bundle names {site}, which does not exist"):
        source_of({})
    site.touch()
    assert source_of({})._session.verify == str(site)
    with pytest.raises(StoreError, match=f"AWS_CA_BUNDLE names {mine}, which does not exist"):
        source_of({"AWS_CA_BUNDLE": str(mine)})
    mine.touch()
    assert source_of({"AWS_CA_BUNDLE": str(mine)})._session.verify == str(mine)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (b"<Error><Code>RequestTimeTooSkewed</Code></Error>", "this machine's clock is wrong. Ask the admins to set it."),
        (b'<Error xmlns="x"><Code>SignatureDoesNotMatch</Code></Error>', "the secret of your key is wrong"),
        (b"<Error><Code>AccessDenied</Code></Error>", "your key may not read it. .*s3:ListBucket"),
        (b"<html>", "your key may not read it"),
        (b"", "your key may not read it"),
        ('<?xml version="1.0" encoding="Shift_JIS"?><e>拒否</e>'.encode("shift_jis"), "your key may not read it"),
        (b'<?xml version="1.0" encoding="mars"?><e/>', "your key may not read it"),
    ],
)
def test_why_a_store_refuses(refusal: bytes, said: str, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    proxy = FaultyProxy(s3_store.endpoint_url, lambda _path, _count: Fault(status=403, body=refusal), keep_host=True)
    source = StoreSource(endpoint_url=proxy.url, region="x", bucket=s3_store.make_bucket(), prefix="m", environ={})
    try:
        with pytest.raises(StoreError, match=said):
            source.files()
    finally:
        proxy.stop()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (400, "ExpiredToken", r"your temporary key has expired\. Get a new one"),
        (400, "InvalidToken", r"the session token is not your key's\. Correct AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", r"the bucket is in another region\. Set AWS_REGION"),
        (301, "PermanentRedirect", r"the bucket is in another region\. Set AWS_REGION"),
        (403, "InvalidAccessKeyId", "Check AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN and the endpoint"),
    ],
)
def test_what_amazon_says_of_keys_and_regions(
    status: int, code: str, said: str, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its list of error responses has them. The first three were told as HTTP 400, with the advice to check the endpoint."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    refusal = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>m</Message></Error>'.encode()
    proxy = FaultyProxy(s3_store.endpoint_url, lambda _path, _count: Fault(status=status, body=refusal), keep_host=True)
    source = StoreSource(endpoint_url=proxy.url, region="x", bucket="b", prefix="m", environ={})
    try:
        with pytest.raises(StoreError, match=said):
            source.files()
    finally:
        proxy.stop()


def test_a_session_token_of_another_key(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lasting key beside what a shell still has of a temporary one: a real store takes the key for unknown."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "Zm9vYmFy")
    source = StoreSource(endpoint_url=s3_store.endpoint_url, region="x", bucket=s3_store.make_bucket(), prefix="m", environ={})
    with pytest.raises(StoreError, match="AWS_SESSION_TOKEN"):
        source.files()


@pytest.mark.parametrize("encoding", ["EUC-JP", "mars"])
def test_a_list_that_no_parser_takes(encoding: str, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portal's page, say, that is sent with 200."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    page = f'<?xml version="1.0" encoding="{encoding}"?><html/>'.encode()
    proxy = FaultyProxy(s3_store.endpoint_url, lambda _path, _count: Fault(status=200, body=page), keep_host=True)
    source = StoreSource(endpoint_url=proxy.url, region="x", bucket="b", prefix="m", environ={})
    try:
        with pytest.raises(StoreError, match="its list of objects is not XML"):
            source.files()
    finally:
        proxy.stop()
